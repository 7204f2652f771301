//! One client port and one backend, dialled in several ways: each connection gets the answers of its own peer only.

use std::net::{IpAddr, SocketAddr};
use std::sync::Barrier;
use std::time::Duration;

use lb_tests::address::{FAMILIES, FAR, Family, vip};
use lb_tests::deadline;
use lb_tests::dial::{Dial, Dialler, Held};
use lb_tests::lab::Setup;
use lb_tests::netns::Netns;
use lb_tests::scene::{Scene, TARGET};

/// The port of all the client's sockets in one part of a test.
const PORT: u16 = 33_333;
/// Another port: closed connections are still in TIME_WAIT at the client.
const OTHER_PORT: u16 = 33_334;

/// Opens a connection from a port; `what` describes it in a failure.
fn open(scene: &Scene, family: Family, port: u16, to: SocketAddr, what: &str) -> Held {
    let source = SocketAddr::new(scene.lab.pod_address("client", family), port);
    match scene.dial().bound_to(source).hold(to) {
        Ok(held) => held,
        Err(outcome) => panic!("{family:?}: {what}: {outcome:?}"),
    }
}

/// Checks that all of them carry data, in turns.
fn all_live(connections: &mut [Held]) {
    for turn in 0..3 {
        for (index, held) in connections.iter_mut().enumerate() {
            assert_eq!(held.answer.who, "a");
            held.echo(&format!("turn {turn} of connection {index}")).expect("the connection goes on");
        }
    }
}

#[test]
fn a_frontend_and_its_backend_from_one_port() {
    let scene = Scene::start(Setup::new("oneport"));
    scene.publish("s1", 1, "VIP", &["a"]);
    for family in FAMILIES {
        let backend = SocketAddr::new(scene.lab.pod_address("a", family), TARGET);
        let mut vip_first = [
            open(&scene, family, PORT, vip(family, 1, 80), "the frontend first"),
            open(&scene, family, PORT, backend, "then its backend"),
        ];
        all_live(&mut vip_first);
        drop(vip_first);
        let mut backend_first = [
            open(&scene, family, OTHER_PORT, backend, "the backend first"),
            open(&scene, family, OTHER_PORT, vip(family, 1, 80), "then its frontend"),
        ];
        all_live(&mut backend_first);
    }
}

#[test]
fn two_frontends_of_one_backend_from_one_port() {
    let scene = Scene::start(Setup::new("twofront"));
    scene.publish("s1", 1, "VIP", &["a"]);
    scene.publish("s2", 2, "VIP", &["a"]);
    for family in FAMILIES {
        let mut both = [1, 2].map(|number| open(&scene, family, PORT, vip(family, number, 80), "a frontend"));
        all_live(&mut both);
    }
}

/// The same for datagrams, which have no state that shows whether the first exchange is over.
#[test]
fn datagrams_to_a_frontend_and_its_backend_from_one_port() {
    let scene = Scene::start(Setup::new("oneportudp"));
    scene.publish("s1", 1, "VIP", &["a"]);
    for family in FAMILIES {
        let source = SocketAddr::new(scene.lab.pod_address("client", family), PORT);
        let backend = SocketAddr::new(scene.lab.pod_address("a", family), TARGET);
        let dial = scene.dial();
        // One after the other: two sockets cannot have one port, but the flow of the first stays.
        for to in [vip(family, 1, 80), backend, vip(family, 1, 80), backend] {
            let outcome = dial.bound_to(source).udp(to);
            assert_eq!(outcome.who(), Some("a"), "{to}: {outcome:?}");
        }
    }
}

/// A client in the network that has a route to the pods, such as another node, or pods that another node masquerades: the
/// endpoint knows it by a frontend already, and it dials the endpoint itself from the same port.
#[test]
fn a_client_in_the_network_dials_a_frontend_and_then_its_backend_from_one_port() {
    let scene = Scene::with_flags(Setup::new("onefar"), &["--uplink-interfaces", "up0,up1"]);
    scene.publish("s1", 1, "VIP", &["a"]);
    for family in FAMILIES {
        let backend = SocketAddr::new(scene.lab.pod_address("a", family), TARGET);
        let far = |port| {
            let probe = scene.dial_from_far().bound_to((FAR.host(family, 9), port).into());
            probe.unasked("explain knows no connections")
        };
        let mut both = [far(PORT).held(vip(family, 1, 80)), far(PORT).held(backend)];
        all_live(&mut both);
        assert_eq!(both[0].answer.client.port(), PORT, "the first keeps its port");
        assert_ne!(both[1].answer.client.port(), PORT, "the second gives way");
    }
}

/// Ports from which both frontends are dialled at the same moment, and how many pairs are open at once.
const PAIRS: u16 = 96;
const PAIRS_AT_ONCE: u16 = 8;

/// CT-08: from each port both frontends are dialled at the same moment. The backend sees two source ports, one of which
/// is the client's own. Both connections carry data at once, and no SYN is lost: a retransmission would come too late
/// for the client.
fn pairs_of_one_port(netns: &Netns, family: Family, source: IpAddr, first_port: u16) {
    let pair = |port: u16| {
        let together = Barrier::new(2);
        let dial = |number| {
            together.wait();
            Dial::from(netns).bound_to((source, port).into()).hold(vip(family, number, 80))
        };
        let mut both = std::thread::scope(|scope| {
            let threads = [1, 2].map(|number| scope.spawn(move || dial(number)));
            threads.map(|thread| {
                let outcome = thread.join().expect("dialling does not panic");
                outcome.unwrap_or_else(|outcome| panic!("{source} port {port}: {outcome:?}"))
            })
        });
        all_live(&mut both);
        let seen = both.each_ref().map(|held| held.answer.client);
        assert!(seen.iter().all(|client| client.ip() == source), "{seen:?}");
        assert_ne!(seen[0], seen[1], "both from port {port}");
        assert!(seen.iter().any(|client| client.port() == port), "{seen:?}: neither kept port {port}");
    };
    for start in (first_port..first_port + PAIRS).step_by(usize::from(PAIRS_AT_ONCE)) {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (start..start + PAIRS_AT_ONCE).map(|port| scope.spawn(move || pair(port))).collect();
            for thread in threads {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
        });
    }
}

#[test]
fn ct_08_pairs_of_one_port_at_once_from_pods() {
    let scene = Scene::start(Setup::new("pairs"));
    scene.publish("s1", 1, "VIP", &["a"]);
    scene.publish("s2", 2, "VIP", &["a"]);
    for family in FAMILIES {
        // Two pods with the same ports: each interface has reply tuples of its own.
        std::thread::scope(|threads| {
            for pod in ["client", "b"] {
                let source = scene.lab.pod_address(pod, family);
                let netns = &scene.lab.pod(pod).netns;
                threads.spawn(move || pairs_of_one_port(netns, family, source, 20_000));
            }
        });
    }
}

/// All uplinks are one edge, with reply tuples for each client and port.
#[test]
fn ct_08_pairs_of_one_port_at_once_from_the_network() {
    let scene = Scene::with_flags(Setup::new("pairsfar"), &["--uplink-interfaces", "up0,up1"]);
    scene.publish("s1", 1, "VIP", &["a"]);
    scene.publish("s2", 2, "VIP", &["a"]);
    for family in FAMILIES {
        std::thread::scope(|threads| {
            for host in [9, 10] {
                let far = &scene.lab.far;
                threads.spawn(move || pairs_of_one_port(far, family, FAR.host(family, host), 20_000));
            }
        });
    }
}

/// The number of connections, and their time limit.
const CONNECTIONS: u64 = 100_000;
const BUDGET: Duration = Duration::from_mins(4);

/// Two frontends of one backend port: each of the client's 28,000 ports is reused many times, for both of them.
#[test]
fn a_hundred_thousand_short_connections_over_two_frontends() {
    let scene = Scene::start(Setup::new("shortconns"));
    scene.publish("s1", 1, "VIP", &["a"]);
    scene.publish("s2", 2, "VIP", &["a"]);
    let diallers = [1, 2, 1, 2].map(|number| scene.dial().repeatedly(vip(Family::V4, number, 80)));
    let dialled = || diallers.iter().map(Dialler::dialled).sum::<u64>();
    assert!(deadline::within(BUDGET, || (dialled() >= CONNECTIONS).then_some(())).is_some(), "{} dials", dialled());
    for dialler in diallers {
        let tally = dialler.stop();
        assert!(tally.failures.is_empty(), "{} failures: {:?}", tally.failures.len(), tally.failures.first());
        assert_eq!(tally.answered.keys().collect::<Vec<_>>(), ["a"]);
    }
}
