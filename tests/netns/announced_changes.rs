//! PROXY headers that are due while something changes: the Service, the agent, its tables, the way of attachment.

use lb_tests::deadline::until_true;
use lb_tests::lab::Setup;
use lb_tests::scene::Scene;

use crate::announced::{Backend, Client, HERE, PORT, crowd, publish, start_in_pod};

/// Drops what the node forwards of these packets, and nothing else.
fn lose(scene: &Scene, packets: &str) {
    scene.lab.node.nft(&format!(
        "table inet lost {{
}}
delete table inet lost
table inet lost {{
 chain forward {{
  type filter hook forward priority 0
  {packets} drop
 }}
}}
"
    ));
}

/// Waits until so many clients have connected.
fn await_clients(scene: &Scene, count: usize) {
    let pod = &scene.lab.pod("client").netns;
    let list = || pod.run("ss", &["-Htn", "state", "synchronized", "dport", "=", ":80"]);
    until_true("the clients have connected", || list().lines().count() == count);
}

/// Each header has the version that its Service wanted when the client dialled.
#[test]
fn a_due_header_survives_every_change() {
    let mut scene = Scene::start(Setup::new("announcedlate"));
    let _backend = Backend::start(&scene.lab.pod("a").netns);
    lose(&scene, &format!("tcp dport {PORT} tcp flags & syn == 0"));
    publish(&scene, "v1", &[HERE]);
    let first = start_in_pod(&scene, &crowd(6, 997));
    await_clients(&scene, 12);
    publish(&scene, "v2", &[HERE]);
    let second = start_in_pod(&scene, &crowd(6, 997));
    await_clients(&scene, 24);
    scene.agent.crash();
    scene.agent.set_flags(&["--flows-max", "16384", "--attach", "clsact"]);
    scene.agent.start();
    publish(&scene, "none", &[HERE]);
    scene.lab.node.run("nft", &["delete", "table", "inet", "lost"]);
    first.end(&scene);
    second.end(&scene);
}

/// A keep-alive ends the handshake for a backend that has got nothing else. Then it does not ask for the header.
#[test]
fn a_client_that_says_nothing_is_announced_by_its_keep_alives() {
    let scene = Scene::start(Setup::new("announcedmute"));
    let _backend = Backend::start(&scene.lab.pod("a").netns);
    publish(&scene, "v2", &[HERE]);
    lose(&scene, &format!("tcp dport {PORT} tcp flags & syn == 0"));
    let mute = start_in_pod(&scene, &[Client::Probes]);
    await_clients(&scene, 2);
    lose(&scene, &format!("tcp sport {PORT} tcp flags & syn == syn"));
    mute.end(&scene);
}
