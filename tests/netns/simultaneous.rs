//! Both ends open the same connection at once (RFC 9293 section 3.5): two SYNs that cross are one flow.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Barrier;
use std::time::Duration;

use lb_tests::address::{BALANCERS, FAMILIES, Family, UPLINK, vip};
use lb_tests::capture::{Capture, Carries, Direction};
use lb_tests::lab::Setup;
use lb_tests::manifest::{NODE, ingress};
use lb_tests::netns::Netns;
use lb_tests::scene::{Scene, TARGET, empty_slice};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

/// The client's port. The backend dials it, so it must not be one that a pod serves: that would be an endpoint.
const CLIENT_PORT: u16 = 33_400;
/// The port from which the backend dials; no server listens there.
const BACKEND_PORT: u16 = 9_000;
/// How long either end tries: a lost SYN is retransmitted after a second.
const LIMIT: Duration = Duration::from_secs(8);

/// Bits per second of the ends' links. A full bucket lets one large datagram pass; the second one waits about half a
/// second, and the SYN behind it. The client's SYN goes first, so that a flow exists when the backend's arrives.
const CLIENT_RATE: &str = "24kbit";
const BACKEND_RATE: &str = "14kbit";
/// Just less than the bucket holds.
const FILLER_LEN: usize = 1_400;

/// Makes the next packets from `netns` wait on its link.
fn delay(netns: &Netns, rate: &str) {
    netns.run("tc", &["qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "1540", "latency", "60s"]);
    netns.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("any port");
        for _ in 0..2 {
            // Port 9 is discard; no server needs to listen.
            socket.send_to(&[0; FILLER_LEN], (UPLINK.host(Family::V4, 1), 9)).expect("it is queued");
        }
    });
}

/// Opens a connection from a given port while the other end does the same.
fn open(netns: &Netns, from: SocketAddr, to: SocketAddr, together: &Barrier) -> TcpStream {
    netns.inside(|| {
        let socket = Socket::new(Domain::for_address(from), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.bind(&from.into()).expect("the port is free");
        socket.set_read_timeout(Some(LIMIT)).expect("an option that all sockets have");
        together.wait();
        socket.connect_timeout(&to.into(), LIMIT).unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
        socket.into()
    })
}

fn says(from: &mut TcpStream, to: &mut TcpStream, words: &[u8]) {
    from.write_all(words).expect("the connection is open");
    let mut heard = vec![0; words.len()];
    to.read_exact(&mut heard).expect("it carries data");
    assert_eq!(heard, words);
}

/// A frontend whose only endpoint is this port of pod `a`.
fn publish(scene: &Scene) {
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, 1), "VIP"));
    let service = scene.service("s1", 1, &entries);
    let mut objects = vec![service.object()];
    for family in FAMILIES {
        let mut slice = empty_slice(&service, family).endpoint(scene.lab.pod_address("a", family), NODE).object();
        slice["ports"] = json!([{"name": "web", "protocol": "TCP", "port": BACKEND_PORT}]);
        objects.push(slice);
    }
    scene.apply("s1", &objects);
}

#[test]
fn two_syns_that_cross_are_one_connection() {
    let scene = Scene::start(Setup::new("bothopen"));
    publish(&scene);
    let [client, backend] = ["client", "a"].map(|pod| &scene.lab.pod(pod).netns);
    for family in FAMILIES {
        let [at_client, at_backend] = [Capture::start(client), Capture::start(backend)];
        let frontend = vip(family, 1, 80);
        let [client_end, backend_end] = [("client", CLIENT_PORT), ("a", BACKEND_PORT)]
            .map(|(pod, port)| SocketAddr::new(scene.lab.pod_address(pod, family), port));
        // Neighbours are resolved before packets have to wait.
        let warm = SocketAddr::new(backend_end.ip(), TARGET);
        assert_eq!(scene.dial().udp(warm).who(), Some("a"));
        delay(client, CLIENT_RATE);
        delay(backend, BACKEND_RATE);
        let together = Barrier::new(2);
        let (mut here, mut there) = std::thread::scope(|scope| {
            let there = scope.spawn(|| open(backend, backend_end, client_end, &together));
            let here = open(client, client_end, frontend, &together);
            (here, there.join().expect("the backend connects"))
        });
        // Each end received a SYN while it waited for the answer to its own.
        let is_syn = |capture: &Capture, from: SocketAddr, to: SocketAddr| {
            capture.wait_for("the other end's SYN", |packet| {
                (packet.carries, packet.direction) == (Carries::Syn, Direction::In)
                    && (packet.source, packet.destination) == (from, to)
            });
        };
        is_syn(&at_client, frontend, client_end);
        is_syn(&at_backend, client_end, backend_end);
        for netns in [client, backend] {
            netns.run("tc", &["qdisc", "del", "dev", "eth0", "root"]);
        }
        assert_eq!(here.peer_addr().expect("it is open"), frontend);
        for words in ["from the client", "and again", "and once more"] {
            says(&mut here, &mut there, words.as_bytes());
            says(&mut there, &mut here, words.as_bytes());
        }
        let flows = scene.agent.says(&["show", "flows"]);
        let is_it = |line: &&str| line.contains(&client_end.to_string()) && line.contains(&frontend.to_string());
        let flow = flows.lines().find(is_it).unwrap_or_else(|| panic!("the flow of {client_end} in\n{flows}"));
        assert!(flow.contains("Established"), "{flow}");
        // The server sends its FIN first, and the client still sends data.
        there.shutdown(std::net::Shutdown::Write).expect("it is open");
        assert_eq!(here.read(&mut [0; 8]).expect("the end of the stream"), 0);
        says(&mut here, &mut there, b"still talking");
    }
}
