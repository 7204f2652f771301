//! The agent itself beside a real API server, where `KUBEBUILDER_ASSETS` names a folder with `kube-apiserver` and `etcd`:
//! real connections while the server comes and goes. Needs root; without the programs every test is skipped.

#[path = "../netns_kube_policy.rs"]
mod policy;

use std::process::ExitCode;

use lb_tests::address::{FAMILIES, vip};
use lb_tests::deadline::until_true;
use lb_tests::kubernetes::{Assets, announce_skips};
use lb_tests::lab::Setup;
use lb_tests::scene::{BALANCER, Scene};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let assets = match Assets::find() {
        Ok(assets) => assets,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let own: (&str, policy::Test) = ("the_api_server_crashes_and_comes_back", the_api_server_crashes_and_comes_back);
    let tests = [&[own], policy::ALL].concat();
    if assets.is_none() {
        announce_skips(tests.len());
    }
    let trials = tests.into_iter().map(|(name, test)| {
        let assets = assets.clone();
        let is_skipped = assets.is_none();
        let run = move || {
            let assets = assets.as_ref().ok_or("there is no server to run it on")?;
            test(&|setup, flags| Scene::on_kubernetes(setup, flags, assets));
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(is_skipped)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// What forwards goes on forwarding while nobody answers, and what changed is found afterwards.
fn the_api_server_crashes_and_comes_back(start: policy::Start<'_>) {
    let mut scene = start(Setup::new("k8scrash"), &[]);
    scene.publish("s1", 1, "VIP", &["a"]);
    scene.publish("s2", 2, "Proxy", &["a"]);
    let mut open = FAMILIES.map(|family| scene.dial().hold(vip(family, 1, 80)).expect("it is answered"));
    let page = |scene: &Scene, path: &str| scene.agent.page(path).map(|(_, text)| text).unwrap_or_default();
    assert_eq!(page(&scene, "/readyz"), "ok\n");

    scene.stop_api();
    until_true("the trouble is told", || page(&scene, "/readyz").contains("API: Service: not followed for"));
    assert_eq!(scene.agent.page("/readyz").map(|(code, _)| code), Some(200), "it serves what it knows");
    assert!(page(&scene, "/warnings").contains("what was told before is kept"), "{}", page(&scene, "/warnings"));
    for restarts in [false, true] {
        if restarts {
            scene.agent.crash();
            scene.agent.spawn();
            until_true("it waits for the server", || page(&scene, "/readyz").contains("first list"));
        }
        for held in &mut open {
            held.echo("still here").expect("the open connection goes on");
        }
        for family in FAMILIES {
            assert_eq!(scene.dial().tcp(vip(family, 1, 80)).who(), Some("a"));
            assert_eq!(scene.dial().tcp(vip(family, 2, 80)).who(), Some(BALANCER));
        }
    }

    scene.resume_api();
    scene.publish("s1", 1, "VIP", &["b"]);
    scene.publish("s2", 2, "VIP", &["b"]);
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 1, 80)).who(), Some("b"));
        assert_eq!(scene.dial().tcp(vip(family, 2, 80)).who(), Some("b"));
    }
    for held in &mut open {
        held.echo("still here").expect("the open connection goes on");
    }
    until_true("the trouble is over", || page(&scene, "/readyz") == "ok\n");
}
