//! Continuous edits: no client notices that the folder is read again.

use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::lab::Setup;
use lb_tests::scene::Scene;

/// How often the folder changes.
const RELOADS: usize = 1000;

#[test]
fn a_dialler_sees_no_failure_during_a_thousand_reloads() {
    // Room for all flows that the diallers leave behind, so that no established flow is evicted.
    let scene = Scene::with_flags(Setup::new("reload"), &["--flows-max", "262144", "--frontends-max", "8192"]);
    scene.publish("shop", 110, "VIP", &["a"]);
    let mut held = scene.dial().held(vip(Family::V4, 110, 80));
    let diallers = FAMILIES.map(|family| scene.dial().repeatedly(vip(family, 110, 80)));
    let memberships: [&[&str]; 4] = [&["b"], &["a", "b"], &["a"], &["b", "a"]];
    for reload in 0..RELOADS {
        scene.publish("shop", 110, "VIP", memberships[reload % memberships.len()]);
    }
    held.echo("through all of them").expect("an open connection goes on");
    for dialler in diallers {
        let tally = dialler.stop();
        assert!(tally.failures.is_empty(), "{} of {}: {:?}", tally.failures.len(), tally.answers(), tally.failures);
        assert_eq!(tally.answered.keys().collect::<Vec<_>>(), ["a", "b"], "{tally:?}");
        assert!(tally.answers() > RELOADS as u64, "it hardly dialled: {tally:?}");
    }
}
