//! A pod that floods the node with connections that it never completes.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use lb_tests::address::{FAR, Family, vip};
use lb_tests::dial::Held;
use lb_tests::lab::Setup;
use lb_tests::scene::Scene;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that nobody completes: many times what fits in the table of the agent (`--flows-max 8192`).
const TUPLES: u32 = 60_000;

/// Sends SYNs of clients that do not exist.
fn flood(to: SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).expect("root may open a raw socket");
    socket.set_header_included_v4(true).expect("an option that raw sockets have");
    let IpAddr::V4(vip) = to.ip() else { panic!("{to} is of the other family") };
    for number in 0..TUPLES {
        let IpAddr::V4(source) = FAR.host(Family::V4, (number % 250) as u8 + 1) else { unreachable!("of this family") };
        let packet = PacketBuilder::ipv4(source.octets(), vip.octets(), 64).tcp(
            (1 + number / 250) as u16,
            to.port(),
            number,
            1024,
        );
        let mut bytes = Vec::new();
        packet.syn().write(&mut bytes, &[]).expect("memory takes all");
        // A full queue drops some; there are enough.
        let _ = socket.send_to(&bytes, &to.into());
    }
}

/// A table of 4,096 flows, of which 300 are open and idle.
#[test]
fn idle_connections_withstand_a_syn_flood() {
    let scene = Scene::start(Setup::new("synflood"));
    scene.publish("s1", 1, "VIP", &["a"]);
    let to = vip(Family::V4, 1, 80);
    let mut open: Vec<Held> = (0..300).map(|_| scene.dial().hold(to).expect("it is answered")).collect();
    scene.lab.pod("b").netns.inside(|| flood(to));
    for held in &mut open {
        held.echo("still here").expect("an idle connection withstands the flood");
    }
    // In the middle of another one.
    let flooder = scene.lab.pod("b").netns.thread(move || flood(to));
    let mut answered = 0;
    while !flooder.is_finished() {
        let mut held = scene.dial().patient().hold(to).expect("a new connection is answered");
        held.echo("new here").expect("a new connection carries data");
        answered += 1;
    }
    flooder.join().expect("the flood ends");
    println!("{answered} connections were opened meanwhile");
    assert!(answered > 10, "{answered} connections");
}
