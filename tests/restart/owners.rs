//! Several agents: never two on the same pins, any number in namespaces of their own.

use lb_tests::address::{FAMILIES, vip};
use lb_tests::agent::Agent;
use lb_tests::lab::{Cni, Setup};
use lb_tests::scene::{BALANCER, Scene};

#[test]
fn a_second_agent_on_the_same_pins_is_refused() {
    let scene = Scene::start(Setup::new("second"));
    scene.publish("shop", 40, "VIP", &["a"]);
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let other = |netns| Agent::new(netns, folder.path(), scene.manifests.path()).pins(scene.agent.pin_path());
    for (place, netns) in [("on the same node", &scene.lab.node), ("on another one", &scene.lab.far)] {
        let mut second = other(netns).http_port(10357);
        second.spawn();
        let (code, output) = second.refused();
        assert_eq!(code, Some(1), "{place}: {output}");
        let pins = scene.agent.pin_path().display().to_string();
        assert!(output.contains(&pins), "{place}: the refusal names the pins:\n{output}");
    }
    scene.publish("shop", 40, "VIP", &["b"]);
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 40, 80)).who(), Some("b"), "the first one goes on");
    }
}

#[test]
fn pins_of_another_namespace_are_not_taken_over() {
    let mut scene = Scene::start(Setup::new("foreign"));
    scene.publish("shop", 41, "VIP", &["a"]);
    scene.agent.terminate();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let mut second = Agent::new(&scene.lab.far, folder.path(), scene.manifests.path()).pins(scene.agent.pin_path());
    second.spawn();
    let (code, output) = second.refused();
    assert_eq!(code, Some(1), "{output}");
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 41, 80)).who(), Some("a"), "what is pinned goes on");
    }
    scene.agent.start();
}

#[test]
fn two_nodes_on_one_machine_do_not_know_of_each_other() {
    // The same addresses, the same names of interfaces, other Services.
    let mut one = Scene::start(Setup::new("nodeone"));
    let two = Scene::start(Setup::new("nodetwo").cni(Cni::Bridge));
    one.publish("shop", 42, "VIP", &["a"]);
    two.publish("shop", 42, "VIP", &["b"]);
    two.publish("more", 43, "Proxy", &["b"]);
    one.publish("more", 43, "VIP", &["b"]);
    let answers = |scene: &Scene, number| {
        FAMILIES.map(|family| scene.dial().tcp(vip(family, number, 80)).who().map(ToOwned::to_owned))
    };
    let is = |who: &str| FAMILIES.map(|_| Some(who.to_owned()));
    assert_eq!((answers(&one, 42), answers(&two, 42)), (is("a"), is("b")));
    assert_eq!((answers(&one, 43), answers(&two, 43)), (is("b"), is(BALANCER)));
    one.agent.terminate();
    one.agent.unload();
    assert_eq!((answers(&one, 42), answers(&two, 42)), (is(BALANCER), is("b")));
    two.publish("shop", 42, "VIP", &["a"]);
    assert_eq!(answers(&two, 42), is("a"));
}
