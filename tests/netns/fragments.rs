//! Datagrams that are longer than the links are wide.

use lb_tests::address::{FAMILIES, vip};
use lb_tests::capture::{Capture, Carries};
use lb_tests::dial::Outcome;
use lb_tests::lab::Setup;
use lb_tests::scene::{BALANCER, Scene};

/// Asks with datagrams of both sizes; who answers them all.
fn ask(scene: &Scene, number: u8, who: &str) {
    for family in FAMILIES {
        let asking = scene.dial().asking(vip(family, number, 80));
        for len in [2_000, 60_000] {
            let answer = asking.ask(&"f".repeat(len));
            let Outcome::Answered(answer) = answer else { panic!("{len} bytes in {family:?}: {answer:?}") };
            assert_eq!(answer.who, who, "{len} bytes in {family:?}");
        }
    }
}

#[test]
fn pr_01_fragments_go_where_the_first_one_goes() {
    let scene = Scene::start(Setup::new("fragments"));
    scene.publish("s1", 1, "VIP", &["a"]);
    scene.publish("s2", 2, "Proxy", &["a"]);
    let outside = Capture::start(&scene.lab.external);
    ask(&scene, 1, "a");
    let client = &scene.lab.pod("client").netns;
    let leaked = |carries| matches!(carries, Carries::Udp | Carries::Other(_));
    let seen = outside.all_until_now(client);
    let vips = FAMILIES.map(|family| vip(family, 1, 80).ip());
    assert!(
        !seen.iter().any(|packet| leaked(packet.carries) && vips.contains(&packet.destination.ip())),
        "a fragment left the node: {seen:?}"
    );
    ask(&scene, 2, BALANCER);
}

/// Checksums that the senders make themselves, and a node that puts fragments together on the way, as conntrack does.
#[test]
fn pr_01_fragments_with_full_checksums_and_conntrack() {
    let scene = Scene::start(Setup::new("fragmentsum"));
    for pod in ["client", "a"] {
        scene.lab.pod(pod).netns.run("ethtool", &["-K", "eth0", "tx", "off"]);
    }
    scene.lab.node.nft("table inet t { chain c { type filter hook forward priority 0; ct state invalid drop; }; };");
    scene.publish("s1", 1, "VIP", &["a"]);
    ask(&scene, 1, "a");
}
