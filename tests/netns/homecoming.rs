//! A pod that reaches itself from an address other than its endpoint address.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::{self, JoinHandle};

use lb_tests::address::{BALANCERS, CLUSTER, FAMILIES, Family, PODS, add_address, flag, host_prefix, vip};
use lb_tests::answer::Answer;
use lb_tests::lab::cni::BRIDGE_NAME;
use lb_tests::lab::{Cni, ReversePath, Setup};
use lb_tests::manifest::{NODE, Service, ingress};
use lb_tests::netns::Netns;
use lb_tests::scene::{Probe, Scene};

use lb_tests::scene::outside::DROP_INVALID;

/// An IPv6 address of a pod that is closer to the balancers' than its other one: the kernel selects it as source.
const NEAR: &str = "2001:db8:50::a";

/// Adds a second address to pod `a`, and a route on the node to it by an interface.
fn add_second(scene: &Scene, family: Family, route_by: &str) -> IpAddr {
    let second = match family {
        Family::V4 => PODS.host(Family::V4, 200),
        Family::V6 => NEAR.parse().expect("an address"),
    };
    scene.lab.pod("a").netns.ip(&[add_address(family, &host_prefix(second), "eth0")]);
    scene.lab.node.run("ip", &[flag(family), "route", "add", &second.to_string(), "dev", route_by]);
    second
}

/// The port of a server in the pod that is bound to no address: the kernel chooses the source of its answers.
const UNBOUND: u16 = 7_000;

/// Echoes as the usual servers do, except for the source of its answers, until the answer to `stop`.
fn serve_unbound(pod: &Netns, family: Family) -> JoinHandle<()> {
    let any = match family {
        Family::V4 => IpAddr::from([0; 4]),
        Family::V6 => IpAddr::from([0; 16]),
    };
    let socket = pod.inside(|| UdpSocket::bind((any, UNBOUND)).expect("the port is free"));
    thread::spawn(move || {
        let mut bytes = [0; 64];
        let mut words = String::new();
        while words != "stop" {
            let (count, client) = socket.recv_from(&mut bytes).expect("somebody says stop");
            words = String::from_utf8_lossy(&bytes[..count]).into_owned();
            let answer = format!("{}\n{words}", Answer { who: "unbound".into(), client });
            socket.send_to(answer.as_bytes(), client).expect("there is a route");
        }
    })
}

fn publish_unbound(scene: &Scene) {
    let own = FAMILIES.map(|family| CLUSTER.host(family, 122));
    let service = Service::new("unbound").cluster_ips(&own).port("plain", "UDP", 80, UNBOUND);
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, 122), "VIP"));
    let service = entries.into_iter().fold(service, Service::ingress);
    let [v4, v6] = FAMILIES.map(|family| {
        let name = if family == Family::V4 { "v4" } else { "v6" };
        let slice = service.slice(name).address_type(family).port("plain", "UDP", UNBOUND);
        slice.endpoint(scene.lab.pod_address("a", family), NODE).object()
    });
    scene.apply("unbound", &[service.object(), v4, v6]);
}

fn reaches_itself(setup: Setup, route_by: &str) {
    let scene = Scene::start(setup);
    scene.lab.node.nft(DROP_INVALID);
    scene.publish("self", 120, "VIP", &["a"]);
    scene.publish("both", 121, "VIP", &["a", "b"]);
    publish_unbound(&scene);
    for family in FAMILIES {
        let second = add_second(&scene, family, route_by);
        let pod = scene.dial_from("a");
        let (own, both) = (vip(family, 120, 80), vip(family, 121, 80));
        let asked = match family {
            Family::V4 => pod.bound(second),
            Family::V6 => pod,
        };
        for dial in [asked, pod.bound(second)] {
            for _ in 0..4 {
                let udp = dial.udp(own);
                assert_eq!(udp.who(), Some("a"), "UDP from {second} to {own}: {udp:?}");
                let mut held = dial.held(own);
                assert_eq!((held.answer.who.as_str(), held.answer.client.ip()), ("a", own.ip()));
                held.transfer(1 << 20).expect("bulk goes both ways");
            }
        }
        // One socket, one flow.
        let asking = dial_from(&scene, second).asking(own);
        for words in ["one", "two", "three"] {
            assert_eq!(asking.ask(words).who(), Some("a"), "{words}");
        }
        let server = serve_unbound(&scene.lab.pod("a").netns, family);
        let asking = asked.asking(vip(family, 122, 80));
        for words in ["one", "two", "stop"] {
            let answered = asking.ask(words);
            assert_eq!(answered.who(), Some("unbound"), "{words} from {second}: {answered:?}");
        }
        server.join().expect("it was told to stop");
        for _ in 0..16 {
            let who = asked.tcp(both);
            assert!(matches!(who.who(), Some("a" | "b")), "{who:?}");
            assert!(matches!(asked.udp(both).who(), Some("a" | "b")));
        }
        // From its first address as well, with the same port.
        let first = SocketAddr::new(scene.lab.pod_address("a", family), 45_000);
        let mut held = [first, SocketAddr::new(second, 45_000)].map(|source| pod.bound_to(source).held(own));
        for held in &mut held {
            held.transfer(1 << 16).expect("each has its own answers");
        }
    }
}

fn dial_from(scene: &Scene, source: IpAddr) -> Probe<'_> {
    scene.dial_from("a").bound(source)
}

#[test]
fn point_to_point_pod_reaches_itself_from_a_second_address() {
    reaches_itself(Setup::new("homeptp").reverse_path(ReversePath::Strict), "cali-a");
}

#[test]
fn bridged_pod_reaches_itself_from_a_second_address() {
    reaches_itself(Setup::new("homebr").cni(Cni::Bridge), BRIDGE_NAME);
}
