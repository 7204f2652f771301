//! The HTTP server with misbehaving clients: the resources that they hold are not missing elsewhere.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use lb_tests::address::{Family, vip};
use lb_tests::deadline;
use lb_tests::dial::Dial;
use lb_tests::lab::Setup;
use lb_tests::scene::Scene;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More than any agent of this test may have file descriptors.
const CLIENTS: usize = 1_100;

/// Connections to the agent that have sent this text, and stay open.
fn clients(scene: &Scene, count: usize, text: &str) -> Vec<TcpStream> {
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, 10356));
    let open = || {
        let mut stream = TcpStream::connect_timeout(&http, deadline::PATIENCE).expect("it listens");
        // The agent may close it meanwhile.
        let _ = stream.write_all(text.as_bytes());
        stream
    };
    scene.lab.node.inside(|| (0..count).map(|_| open()).collect())
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the agent runs").count()
}

#[test]
fn half_requests_take_nothing_from_others() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("every process has one");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raising it is allowed");
    let mut scene = Scene::without_agent(Setup::new("ophalf"), &[]);
    scene.agent.launch_by(&["prlimit", "--nofile=256:1024"]);
    scene.agent.start();
    let pid = scene.agent.pid();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("the agent runs");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit of every process");
    assert_eq!(files.split_whitespace().nth(3), Some("1024"), "the soft limit was raised: {files}");
    scene.publish("shop", 50, "VIP", &["a"]);

    let mut held = Vec::new();
    for text in ["", "GET /livez HTTP/1.1\r\nHost: x\r\n", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"] {
        held.extend(clients(&scene, CLIENTS, text));
        for page in ["/livez", "/readyz", "/metrics", "/warnings"] {
            let is_answered = || scene.agent.page(page).is_some_and(|(code, _)| code == 200);
            deadline::until_true(&format!("{page} beside {text:?}"), is_answered);
        }
        assert!(descriptors(pid) < 400, "{} descriptors", descriptors(pid));
    }
    scene.publish("shop", 50, "VIP", &["b"]);
    scene.expect_all(vip(Family::V4, 50, 80), &["b"]);
    scene.add_pod("late");
    let late = scene.lab.pod("late");
    deadline::until_true("the new pod to be served", || {
        Dial::from(&late.netns).tcp(vip(Family::V4, 50, 80)).who() == Some("b")
    });
    drop(held);
}

#[test]
fn who_waits_in_silence_is_ended() {
    let scene = Scene::start(Setup::new("opsilent"));
    for text in ["", "GET /livez HTTP/1.1\r\n"] {
        let mut silent = clients(&scene, 1, text).remove(0);
        silent.set_read_timeout(Some(deadline::PATIENCE)).expect("a time-out");
        let started = std::time::Instant::now();
        assert_eq!(silent.read_to_end(&mut Vec::new()).expect("it is ended in order"), 0);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(10), "{text:?}: {took:?}");
    }
}
