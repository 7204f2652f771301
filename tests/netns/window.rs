//! CT-06: segments outside the window. netfilter calls them invalid and does not translate them back, so the client
//! resets a connection that it never opened. Here every packet of a known flow is translated, whatever its window.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::capture::{Capture, Carries, Direction, Packet};
use lb_tests::dial::Held;
use lb_tests::lab::{Cni, ReversePath, Setup};
use lb_tests::netns::Netns;
use lb_tests::scene::{Scene, TARGET};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// The last part of the balancer's address.
const NUMBER: u8 = 88;
/// Segments, evenly over all sequence numbers: at most one of them is inside the window.
const SEGMENTS: u32 = 8;

/// Sends spoofed segments of a connection: the "boom server" of Kubernetes' e2e test.
fn boom(backend: &Netns, from: SocketAddr, to: SocketAddr) {
    backend.inside(|| {
        let raw = Protocol::from(libc::IPPROTO_RAW);
        let socket = Socket::new(Domain::for_address(from), Type::RAW, Some(raw)).expect("root may open a raw socket");
        for number in 0..SEGMENTS {
            let builder = match (from.ip(), to.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
                (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
                _ => panic!("{from} and {to} are of two families"),
            };
            let segment = builder.tcp(from.port(), to.port(), number << 29, 1024).ack(number << 29);
            let mut bytes = Vec::new();
            segment.write(&mut bytes, b"boom").expect("memory takes all");
            // A raw socket takes no port.
            let to = SockAddr::from(SocketAddr::new(to.ip(), 0));
            socket.send_to(&bytes, &to).expect("there is a route to the client");
        }
    });
}

/// A connection to the frontend, and the packets on the client's link during a boom.
fn boomed(scene: &Scene, family: Family, backend: IpAddr, pod: &str) -> (Held, Vec<Packet>) {
    let to = vip(family, NUMBER, 80);
    let mut held = scene.dial().held(to);
    assert_eq!(held.answer.who, pod);
    held.echo("before").expect("it carries data");
    let client = &scene.lab.pod("client").netns;
    let own = scene.lab.pod_address("client", family);
    let capture = Capture::start(client);
    boom(&scene.lab.pod(pod).netns, SocketAddr::new(backend, TARGET), held.answer.client);
    let is_boom =
        |packet: &Packet| packet.direction == Direction::In && packet.destination.ip() == own && is_tcp(packet);
    lb_tests::deadline::until_true("all of them have come", || {
        capture.seen().iter().filter(|packet| is_boom(packet)).count() >= SEGMENTS as usize
    });
    (held, capture.all_until_now(client))
}

fn is_tcp(packet: &Packet) -> bool {
    matches!(packet.carries, Carries::Tcp | Carries::Reset | Carries::Syn)
}

/// The client sees only its frontend, no packet is a reset, and the connection continues.
fn is_translated(setup: Setup) {
    let scene = Scene::start(setup);
    scene.publish("s1", NUMBER, "VIP", &["a"]);
    for family in FAMILIES {
        let backend = scene.lab.pod_address("a", family);
        let (mut held, seen) = boomed(&scene, family, backend, "a");
        let strangers: Vec<String> =
            seen.iter().filter(|packet| packet.source.ip() == backend).map(ToString::to_string).collect();
        assert!(strangers.is_empty(), "the client sees the backend itself: {strangers:?}");
        let resets: Vec<String> =
            seen.iter().filter(|packet| packet.carries == Carries::Reset).map(ToString::to_string).collect();
        assert!(resets.is_empty(), "{resets:?}");
        held.transfer(1 << 20).expect("the connection goes on");
    }
}

#[test]
fn ct_06_segments_out_of_window_are_translated() {
    is_translated(Setup::new("window"));
}

#[test]
fn ct_06_segments_out_of_window_are_translated_on_a_bridge() {
    is_translated(Setup::new("windowbr").cni(Cni::Bridge).reverse_path(ReversePath::Strict));
}

/// The bug itself: with only kube-proxy's rules the client gets segments from an unknown address, and resets them.
#[test]
fn ct_06_is_what_rules_of_netfilter_do_not_do() {
    let scene = Scene::without_agent(Setup::new("windownft"), &[]);
    for family in FAMILIES {
        let backend = scene.lab.pod_address("a", family);
        let ip = if backend.is_ipv4() { "ip" } else { "ip6" };
        let (address, target) = (vip(family, NUMBER, 80).ip(), SocketAddr::new(backend, TARGET));
        scene.lab.node.nft(&format!(
            "table {ip} nat {{ chain prerouting {{ type nat hook prerouting priority dstnat
                {ip} daddr {address} tcp dport 80 dnat to {target}; }}; }}"
        ));
        let (_, seen) = boomed(&scene, family, backend, "a");
        assert!(
            seen.iter().any(|packet| packet.source.ip() == backend && packet.direction == Direction::In),
            "conntrack has translated what it calls invalid"
        );
        assert!(
            seen.iter().any(|packet| packet.carries == Carries::Reset && packet.direction == Direction::Out),
            "the client does not mind"
        );
    }
}
