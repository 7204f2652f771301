//! Datagrams that are longer than the MTU.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use lb_tests::address::{BALANCERS, CLUSTER, FAMILIES, FAR, vip};
use lb_tests::capture::{Capture, Carries};
use lb_tests::dial::{LIMIT, Outcome};
use lb_tests::lab::Setup;
use lb_tests::manifest::{NODE, Service, ingress};
use lb_tests::netns::Netns;
use lb_tests::scene::{BALANCER, Scene};
use lb_tests::{deadline, raw};

use lb_tests::scene::outside::DROP_INVALID;

/// Sends datagrams of both sizes, and checks which server answers them.
fn ask(scene: &Scene, number: u8, who: &str) {
    for family in FAMILIES {
        let asking = scene.dial().asking(vip(family, number, 80));
        for len in [2_000, 60_000] {
            let answer = asking.ask(&"f".repeat(len));
            let Outcome::Answered(answer) = answer else { panic!("{len} bytes in {family:?}: {answer:?}") };
            assert_eq!(answer.who, who, "{len} bytes in {family:?}");
        }
    }
}

#[test]
fn pr_01_fragments_go_where_the_first_one_goes() {
    let scene = Scene::start(Setup::new("fragments"));
    scene.publish("s1", 1, "VIP", &["a"]);
    scene.publish("s2", 2, "Proxy", &["a"]);
    let outside = Capture::start(&scene.lab.external);
    ask(&scene, 1, "a");
    let client = &scene.lab.pod("client").netns;
    let leaked = |carries| matches!(carries, Carries::Udp | Carries::Other(_));
    let seen = outside.all_until_now(client);
    let vips = FAMILIES.map(|family| vip(family, 1, 80).ip());
    assert!(
        !seen.iter().any(|packet| leaked(packet.carries) && vips.contains(&packet.destination.ip())),
        "a fragment left the node: {seen:?}"
    );
    ask(&scene, 2, BALANCER);
}

/// Senders compute the checksums themselves, and the node reassembles the fragments on the way, as conntrack does.
#[test]
fn pr_01_fragments_with_full_checksums_and_conntrack() {
    let scene = Scene::start(Setup::new("fragmentsum"));
    for pod in ["client", "a"] {
        scene.lab.pod(pod).netns.run("ethtool", &["-K", "eth0", "tx", "off"]);
    }
    scene.lab.node.nft(DROP_INVALID);
    scene.publish("s1", 1, "VIP", &["a"]);
    ask(&scene, 1, "a");
}

/// Orders of the fragments of a datagram: from the end, and mixed.
const ORDERS: [fn(usize, usize) -> usize; 2] = [|index, count| count - index, |index, count| (index * 7 + 3) % count];

/// A pod or a host in the network, with an address of each family.
struct Party<'a> {
    netns: &'a Netns,
    addresses: [IpAddr; 2],
}

impl<'a> Party<'a> {
    fn pod(scene: &'a Scene, name: &str) -> Self {
        let pod = scene.lab.pod(name);
        Self { netns: &pod.netns, addresses: FAMILIES.map(|family| pod.address(family)) }
    }

    /// A socket that receives whole datagrams only.
    fn socket(&self, index: usize, port: u16) -> UdpSocket {
        let bind = || UdpSocket::bind((self.addresses[index], port)).ok();
        // A process that another test has just forked may hold the last socket of the port for a moment.
        let socket = self.netns.inside(|| deadline::within(deadline::PATIENCE, bind)).expect("the address is ours");
        socket.set_read_timeout(Some(LIMIT)).expect("an option of all sockets");
        socket
    }

    /// Sends a datagram in fragments, in one of the orders.
    fn send(&self, from: SocketAddr, to: SocketAddr, id: u16, payload: &[u8], order: fn(usize, usize) -> usize) {
        let mut fragments: Vec<_> = raw::datagram(from, to, id, payload).into_iter().enumerate().collect();
        let count = fragments.len();
        fragments.sort_by_key(|(index, _)| order(*index, count));
        assert_ne!(fragments[0].0, 0, "the first one must be overtaken");
        let fragments: Vec<_> = fragments.into_iter().map(|(_, fragment)| fragment).collect();
        raw::send(self.netns, to.ip(), &fragments);
    }
}

/// The port on which the test itself answers in a pod.
const OWN_TARGET: u16 = 7_777;

/// Writes a Service whose endpoint is [`OWN_TARGET`] of a pod.
fn publish_own(scene: &Scene, number: u8, pod: &str) {
    let name = format!("own{number}");
    let service = Service::new(&name)
        .cluster_ips(&FAMILIES.map(|family| CLUSTER.host(family, number)))
        .port("own", "UDP", 80, OWN_TARGET);
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, number), "VIP"));
    let service = entries.into_iter().fold(service, Service::ingress);
    let mut objects = vec![service.object()];
    for (family, suffix) in FAMILIES.into_iter().zip(["v4", "v6"]) {
        let slice = service.slice(suffix).address_type(family).port("own", "UDP", OWN_TARGET);
        objects.push(slice.endpoint(scene.lab.pod_address(pod, family), NODE).object());
    }
    scene.apply(&name, &objects);
}

fn receive(socket: &UdpSocket, what: &str) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 64 * 1024];
    let (count, from) = match socket.recv_from(&mut bytes) {
        Ok(received) => received,
        Err(error) => panic!("{what}: {error}"),
    };
    bytes.truncate(count);
    (bytes, from)
}

/// Sends requests and answers of both sizes, in both families and all orders. Returns the client's addresses as the
/// server sees them.
fn exchange(client: &Party<'_>, server: &Party<'_>, number: u8) -> Vec<SocketAddr> {
    let mut seen = Vec::new();
    let cases = (0..2).flat_map(|index| [2_000, 60_000].map(|len| (index, len)));
    for (id, (index, len)) in cases.enumerate() {
        for (turn, order) in ORDERS.into_iter().enumerate() {
            let what = format!("{len} bytes in {:?}, order {turn}", FAMILIES[index]);
            let vip = vip(FAMILIES[index], number, 80);
            let (asking, answering) = (client.socket(index, 0), server.socket(index, OWN_TARGET));
            let port = asking.local_addr().expect("it is bound").port();
            let id = 1_000 + u16::try_from(2 * id + turn).expect("few cases");
            // No two parts of it are equal.
            let words: Vec<u8> = (0..len).map(|at: u32| (at % 251 + at / 1_400) as u8).collect();
            client.send(SocketAddr::new(client.addresses[index], port), vip, id, &words, order);
            let (request, from) = receive(&answering, &format!("the request, {what}"));
            assert!(request == words, "the request came as it was sent, {what}");
            let words: Vec<u8> = words.into_iter().rev().collect();
            server.send(SocketAddr::new(server.addresses[index], OWN_TARGET), from, id, &words, order);
            let (reply, by) = receive(&asking, &format!("the reply, {what}"));
            assert!(reply == words, "the reply came as it was sent, {what}");
            assert_eq!(by, vip, "who answers, {what}");
            seen.push(from);
        }
    }
    seen
}

/// First no node reassembles the datagrams on the way, then the node does, as conntrack does; with and without checksum
/// offload.
#[test]
fn pr_01_fragments_out_of_order() {
    let scene = Scene::start(Setup::new("disorder"));
    publish_own(&scene, 1, "a");
    let (client, server) = (Party::pod(&scene, "client"), Party::pod(&scene, "a"));
    exchange(&client, &server, 1);
    for pod in ["client", "a"] {
        scene.lab.pod(pod).netns.run("ethtool", &["-K", "eth0", "tx", "off"]);
    }
    exchange(&client, &server, 1);
    scene.lab.node.nft(DROP_INVALID);
    exchange(&client, &server, 1);
    for pod in ["client", "a"] {
        scene.lab.pod(pod).netns.run("ethtool", &["-K", "eth0", "tx", "on"]);
    }
    let seen = exchange(&client, &server, 1);
    assert!(seen.iter().all(|from| client.addresses.contains(&from.ip())), "{seen:?}");
}

/// A client in the network: overtaking fragments are parked at the uplink, in both directions.
#[test]
fn pr_01_fragments_out_of_order_at_an_uplink() {
    let scene = Scene::with_flags(Setup::new("disorderup"), &["--uplink-interfaces", "up0,up1"]);
    publish_own(&scene, 1, "a");
    let client = Party { netns: &scene.lab.far, addresses: FAMILIES.map(|family| FAR.host(family, 9)) };
    let seen = exchange(&client, &Party::pod(&scene, "a"), 1);
    assert!(seen.iter().all(|from| client.addresses.contains(&from.ip())), "{seen:?}");
}

/// A hairpin flow: the pod's own answers return by the interface from which it sent the request.
#[test]
fn pr_01_fragments_out_of_order_to_oneself() {
    let scene = Scene::start(Setup::new("disorderself"));
    publish_own(&scene, 1, "client");
    let client = Party::pod(&scene, "client");
    let seen = exchange(&client, &client, 1);
    let vips = FAMILIES.map(|family| vip(family, 1, 80).ip());
    assert!(seen.iter().all(|from| vips.contains(&from.ip())), "{seen:?}");
}

/// Datagrams that are left to the balancer arrive whole, in any order of their fragments.
#[test]
fn pr_01_fragments_out_of_order_that_are_left_alone() {
    let scene = Scene::start(Setup::new("disorderpass"));
    scene.publish("s2", 2, "Proxy", &["a"]);
    let client = Party::pod(&scene, "client");
    for (index, family) in FAMILIES.into_iter().enumerate() {
        let asking = client.socket(index, 0);
        let from = SocketAddr::new(client.addresses[index], asking.local_addr().expect("it is bound").port());
        let words = vec![b'f'; 20_000];
        client.send(from, vip(family, 2, 80), 7, &words, ORDERS[0]);
        let (answer, by) = receive(&asking, "the balancer's answer");
        assert_eq!(by, vip(family, 2, 80));
        assert!(answer.starts_with(BALANCER.as_bytes()) && answer.ends_with(&words), "{family:?}");
    }
}
