//! The agent itself beside a real API server, if `KUBEBUILDER_ASSETS` names a folder with `kube-apiserver` and `etcd`:
//! real connections while the server stops and restarts. Needs root; without the programs every test is skipped.

#[path = "../netns-kube-policy.rs"]
mod policy;

use std::process::ExitCode;

use lb_tests::address::{FAMILIES, vip};
use lb_tests::deadline::until_true;
use lb_tests::kubernetes::trials;
use lb_tests::lab::Setup;
use lb_tests::scene::{BALANCER, Scene};

fn main() -> ExitCode {
    let own: (&str, policy::Test) = ("the_api_server_crashes_and_comes_back", the_api_server_crashes_and_comes_back);
    let tests = [&[own], policy::ALL].concat();
    let on_kubernetes = |test: policy::Test| -> trials::Test {
        Box::new(move |assets| test(&|setup, flags| Scene::on_kubernetes(setup, flags, assets)))
    };
    trials::run(tests.into_iter().map(|(name, test)| (name.to_owned(), on_kubernetes(test))).collect())
}

/// Forwarding continues while the server is stopped, and changes are found afterwards.
fn the_api_server_crashes_and_comes_back(start: policy::Start<'_>) {
    let mut scene = start(Setup::new("k8scrash"), &[]);
    scene.publish("s1", 1, "VIP", &["a"]);
    scene.publish("s2", 2, "Proxy", &["a"]);
    let mut open = FAMILIES.map(|family| scene.dial().held(vip(family, 1, 80)));
    let page = |scene: &Scene, path: &str| scene.agent.page(path).map(|(_, text)| text).unwrap_or_default();
    assert_eq!(page(&scene, "/readyz"), "ok\n");

    scene.stop_api();
    until_true("the trouble is told", || page(&scene, "/readyz").contains("API: Service: not watched for"));
    assert_eq!(scene.agent.page("/readyz").map(|(code, _)| code), Some(200), "it serves what it knows");
    assert!(page(&scene, "/warnings").contains("the objects known before are kept"), "{}", page(&scene, "/warnings"));
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
