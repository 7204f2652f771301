//! `--socket-lb`: processes of the node, whose packets pass no interface of a pod, dial Services.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use lb_tests::address::{BALANCERS, FAMILIES, Family, UPLINK, vip};
use lb_tests::deadline;
use lb_tests::dial::{Dial, Outcome, Unconnected};
use lb_tests::lab::Setup;
use lb_tests::manifest::ingress;
use lb_tests::scene::{BALANCER, Scene, TARGET};
use serde_json::json;

use crate::all_services::{ALL, ELSEWHERE, Endpoints, HERE, NOWHERE, addresses, cluster, node_port, publish};

/// Who answers each of these sockets. The answers come from the address that was asked.
#[track_caller]
fn answers(sockets: &[Unconnected], to: SocketAddr, words: &str) -> Vec<String> {
    let ask = |socket: &Unconnected| {
        let (answer, from) = socket.ask(to, words).unwrap_or_else(|outcome| panic!("{to}: {outcome:?}"));
        assert_eq!(from, to);
        answer.who
    };
    sockets.iter().map(ask).collect()
}

/// The node's own address towards the pods: what a pod sees as the client.
fn is_of_node(scene: &Scene, client: IpAddr) -> bool {
    !["client", "a", "b"].iter().any(|pod| FAMILIES.iter().any(|family| scene.lab.pod_address(pod, *family) == client))
}

/// CIP-01, XIP-01, NP-01 for the node: every kind of address, TCP and UDP. A process sees the address that it dialled.
#[test]
fn the_node_reaches_every_kind_of_address() {
    let scene = Scene::with_flags(Setup::new("sockall"), &ALL);
    publish(&scene, 60, &json!({}), HERE);
    for family in FAMILIES {
        for to in addresses(family, 60) {
            let held = scene.dial_from_node().held(to);
            assert_eq!((held.answer.who.as_str(), held.peer().expect("connected")), ("a", to));
            assert!(is_of_node(&scene, held.answer.client.ip()), "{:?}", held.answer);
            assert_eq!(scene.dial_from_node().udp(to).who(), Some("a"), "UDP to {to}");
            let unconnected = Dial::from(&scene.lab.node).unconnected(family);
            let (answer, from) = unconnected.ask(to, "hello").unwrap_or_else(|outcome| panic!("{to}: {outcome:?}"));
            assert_eq!((answer.who.as_str(), from), ("a", to), "a datagram comes from the address that was dialled");
        }
        // IPM-24: the balancer's Proxy address of the same Service.
        assert_eq!(scene.dial_from_node().tcp(vip(family, 60, 80)).who(), Some(BALANCER));
    }
    assert!(scene.agent.counted("socket_translated") >= 18);
    // Nothing was translated at an interface.
    let flows = scene.agent.says(&["show", "flows", "-o", "json"]);
    let dialled = FAMILIES.iter().flat_map(|family| addresses(*family, 60));
    assert!(dialled.into_iter().all(|to| !flows.contains(&to.to_string())), "{flows}");
}

/// IPv6 sockets dial IPv4 addresses in their mapped form.
#[test]
fn an_ipv6_socket_reaches_an_ipv4_address() {
    let scene = Scene::start(Setup::new("sockmapped"));
    scene.publish("web", 61, "VIP", &["a"]);
    let IpAddr::V4(addr) = BALANCERS.host(Family::V4, 61) else { panic!("an IPv4 address") };
    let to = SocketAddr::new(Ipv6Addr::from(addr.to_ipv6_mapped().octets()).into(), 80);
    let node = Dial::from(&scene.lab.node);
    let held = node.held(to);
    assert_eq!((held.answer.who.as_str(), held.peer().expect("connected")), ("a", to));
    assert_eq!(node.udp(to).who(), Some("a"));
    let (answer, from) = node.unconnected(Family::V6).ask(to, "hello").expect("an answer");
    assert_eq!((answer.who.as_str(), from), ("a", to));
}

/// IPM-04, IPM-40: Proxy and Split leave the node's own connections to the balancer.
#[test]
fn ipm_04_proxy_leaves_the_node_to_the_balancer() {
    let scene = Scene::start(Setup::new("sockproxy"));
    scene.publish("proxy", 62, "Proxy", &["a"]);
    scene.publish("short", 63, "VIP", &["a"]);
    for family in FAMILIES {
        for outcome in
            [scene.dial_from_node().tcp(vip(family, 62, 80)), scene.dial_from_node().udp(vip(family, 62, 80))]
        {
            assert_eq!(outcome.who(), Some(BALANCER));
        }
        assert_eq!(scene.dial_from_node().tcp(vip(family, 63, 80)).who(), Some("a"));
    }
    // The mode changes: a connected socket keeps its backend (IPM-60), a new one follows.
    let mut held: Vec<_> = FAMILIES.map(|family| scene.dial_from_node().held(vip(family, 63, 80))).into();
    scene.publish("short", 63, "Proxy", &["a"]);
    for (family, held) in FAMILIES.into_iter().zip(&mut held) {
        held.echo("still here").expect("the connection continues");
        assert_eq!(scene.dial_from_node().tcp(vip(family, 63, 80)).who(), Some(BALANCER));
    }
}

/// IPM-33, NP-03, ITP-01 for the node: the external policy does not concern it, the internal policy does.
#[test]
fn ipm_33_np_03_itp_01_policies_of_the_node() {
    let scene = Scene::with_flags(Setup::new("sockpolicy"), &ALL);
    publish(&scene, 64, &json!({"externalTrafficPolicy": "Local"}), ELSEWHERE);
    publish(&scene, 65, &json!({"internalTrafficPolicy": "Local"}), ELSEWHERE);
    publish(&scene, 66, &json!({"internalTrafficPolicy": "Local"}), Endpoints { here: &["a"], elsewhere: true });
    publish(&scene, 67, &json!({}), NOWHERE);
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, 68), "VIP"));
    let service = scene.service("s68", 68, &entries).spec("externalTrafficPolicy", json!("Local"));
    let slices = FAMILIES.map(|family| crate::all_services::slice(&scene, &service, family, ELSEWHERE)).to_vec();
    scene.apply("s68", &[vec![service.object()], slices].concat());
    for family in FAMILIES {
        let dial = || scene.dial_from_node();
        for to in addresses(family, 64).into_iter().chain([node_port(family, 65), vip(family, 68, 80)]) {
            assert_eq!(dial().tcp(to).who(), Some(BALANCER), "{to}: the pod of the other node");
        }
        assert_eq!(dial().tcp(cluster(family, 65)), Outcome::Denied, "no endpoint here");
        assert_eq!(dial().udp(cluster(family, 65)), Outcome::Denied);
        for _ in 0..8 {
            assert_eq!(dial().tcp(cluster(family, 66)).who(), Some("a"));
        }
        for to in addresses(family, 67) {
            assert_eq!(dial().tcp(to), Outcome::Refused, "{to} has no endpoint anywhere");
            assert_eq!(dial().udp(to), Outcome::Refused);
        }
    }
    assert!(scene.agent.counted("socket_refused") >= 12 && scene.agent.counted("drop_no_local_endpoint") >= 4);
}

/// LB-04: the VIP is an address of the node itself.
#[test]
fn lb_04_the_node_reaches_a_vip_that_is_its_own_address() {
    let scene = Scene::start(Setup::new("sockown"));
    for family in FAMILIES {
        let address = lb_tests::address::add_address(family, &UPLINK.interface(family, 77), "lo");
        scene.lab.node.ip(&[address]);
    }
    let entries = FAMILIES.map(|family| ingress(UPLINK.host(family, 77), "VIP"));
    let service = scene.service("own", 69, &entries);
    scene.apply("own", &[vec![service.object()], scene.slices(&service, &["b"])].concat());
    for family in FAMILIES {
        let to = SocketAddr::new(UPLINK.host(family, 77), 80);
        assert_eq!(scene.dial_from_node().tcp(to).who(), Some("b"));
        assert_eq!(scene.dial_from_node().udp(to).who(), Some("b"));
    }
}

/// SR-02, SR-03: source ranges hold for the node, by its address.
#[test]
fn sr_02_sr_03_source_ranges_hold_for_the_node() {
    let scene = Scene::start(Setup::new("sockrange"));
    let publish = |ranges: &[String]| {
        let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, 70), "VIP"));
        let service = scene.service("shop", 70, &entries).spec("loadBalancerSourceRanges", json!(ranges));
        scene.apply("shop", &[vec![service.object()], scene.slices(&service, &["a"])].concat());
    };
    publish(&FAMILIES.map(|family| UPLINK.prefix(family)));
    for family in FAMILIES {
        let to = vip(family, 70, 80);
        assert_eq!(scene.dial_from_node().tcp(to).who(), Some("a"));
        // A socket that is bound to an address is judged by it. SR-03: the balancer's own address is in.
        assert_eq!(scene.dial_from_node().bound(UPLINK.host(family, 2)).unasked("bound").tcp(to).who(), Some("a"));
    }
    publish(&FAMILIES.map(|family| lb_tests::address::FAR.prefix(family)));
    for family in FAMILIES {
        let to = vip(family, 70, 80);
        assert_eq!(scene.dial_from_node().tcp(to), Outcome::Denied);
        assert_eq!(scene.dial_from_node().udp(to), Outcome::Denied);
        assert_eq!(scene.dial_from_node().bound(UPLINK.host(family, 2)).unasked("bound").tcp(to), Outcome::Denied);
    }
}

/// SA-01 for the node: it is one client.
#[test]
fn sa_01_the_node_keeps_its_backend() {
    let scene = Scene::start(Setup::new("sockaffinity"));
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, 71), "VIP"));
    let service = scene.service("shop", 71, &entries).spec("sessionAffinity", json!("ClientIP"));
    scene.apply("shop", &[vec![service.object()], scene.slices(&service, &["a", "b"])].concat());
    for family in FAMILIES {
        let dial = || scene.dial_from_node().tcp(vip(family, 71, 80)).who().map(str::to_owned);
        let first = dial();
        assert!(first.is_some());
        assert!((0..16).all(|_| dial() == first), "{first:?}");
    }
}

/// CT-01 for sockets that are not connected: one backend while the endpoint exists, then at once another.
#[test]
fn ct_01_an_unconnected_socket_leaves_a_backend_that_is_gone() {
    let scene = Scene::start(Setup::new("sockudp"));
    scene.publish("dns", 72, "VIP", &["a", "b"]);
    for family in FAMILIES {
        let to = vip(family, 72, 80);
        let sockets: Vec<_> = (0..8).map(|_| Dial::from(&scene.lab.node).unconnected(family)).collect();
        let who = |words| answers(&sockets, to, words);
        let first = who("one");
        assert_eq!(who("two"), first, "a socket keeps its backend");
        scene.publish("dns", 72, "VIP", &["b"]);
        assert!(who("three").iter().all(|who| who == "b"), "the endpoint has gone");
        scene.publish("dns", 72, "VIP", &["a", "b"]);
        assert!(who("four").iter().all(|who| who == "b"), "a socket keeps its backend");
    }
}

/// CT-01 for connected sockets: the socket fails, and the next one is answered. Sockets with other backends stay.
#[test]
fn ct_01_a_connected_socket_ends_with_its_backend() {
    let scene = Scene::start(Setup::new("sockgone"));
    scene.publish("dns", 75, "VIP", &["a", "b"]);
    for family in FAMILIES {
        let to = vip(family, 75, 80);
        let node = Dial::from(&scene.lab.node);
        let mut sockets: Vec<_> = (0..12).map(|_| node.asking(to)).collect();
        let who: Vec<_> = sockets.iter().map(|socket| socket.ask("one").who().map(str::to_owned)).collect();
        // A socket that a process connected to the pod itself is none of ours.
        let direct = node.asking(SocketAddr::new(scene.lab.pod_address("a", family), TARGET));
        assert_eq!(direct.ask("one").who(), Some("a"));
        scene.publish("dns", 75, "VIP", &["b"]);
        let is_ended = || {
            let mut with_a = sockets.iter().zip(&who).filter(|(_, who)| who.as_deref() == Some("a"));
            with_a.all(|(socket, _)| matches!(socket.ask("two"), Outcome::Failed(_)))
        };
        assert!(who.iter().any(|who| who.as_deref() == Some("a")), "{who:?}");
        assert!(deadline::within(deadline::PATIENCE, || is_ended().then_some(())).is_some(), "{to}");
        for (socket, who) in sockets.drain(..).zip(&who).filter(|(_, who)| who.as_deref() == Some("b")) {
            assert_eq!(socket.ask("three").who(), who.as_deref());
        }
        assert_eq!(direct.ask("three").who(), Some("a"));
        assert_eq!(node.udp(to).who(), Some("b"));
        scene.publish("dns", 75, "VIP", &["a", "b"]);
    }
}

/// A socket that sends to several addresses gets each answer from the address that it sent to, if their backends differ.
#[test]
fn an_unconnected_socket_sends_to_several_addresses() {
    let scene = Scene::start(Setup::new("sockmany"));
    for (number, pod) in [(76, "a"), (77, "b"), (78, "client")] {
        scene.publish(&format!("s{number}"), number, "VIP", &[pod]);
    }
    for family in FAMILIES {
        let socket = Dial::from(&scene.lab.node).unconnected(family);
        for _ in 0..3 {
            for (number, pod) in [(76, "a"), (77, "b"), (78, "client")] {
                let to = vip(family, number, 80);
                let (answer, from) = socket.ask(to, "hello").unwrap_or_else(|outcome| panic!("{to}: {outcome:?}"));
                assert_eq!((answer.who.as_str(), from), (pod, to));
            }
        }
    }
}

/// A socket that connects to the pod itself has the pod as its peer, whatever it dialled before.
#[test]
fn a_socket_that_dials_directly_sees_the_pod() {
    let scene = Scene::start(Setup::new("sockdirect"));
    scene.publish("web", 79, "VIP", &["a"]);
    for family in FAMILIES {
        let (to, pod) = (vip(family, 79, 80), SocketAddr::new(scene.lab.pod_address("a", family), TARGET));
        scene.lab.node.inside(|| {
            let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).expect("a socket");
            for peer in [to, pod, to] {
                socket.connect(peer).expect("a datagram socket connects at once");
                assert_eq!(socket.peer_addr().expect("connected"), peer);
            }
        });
    }
}

/// Without an agent, the hooks stay. A new agent with other table sizes keeps what is known of sockets.
#[test]
fn ipm_70_sockets_are_served_without_an_agent_and_by_the_next_one() {
    let mut scene = Scene::start(Setup::new("sockcrash"));
    scene.publish("web", 73, "VIP", &["a", "b"]);
    let sockets: Vec<_> = (0..8).map(|_| Dial::from(&scene.lab.node).unconnected(Family::V4)).collect();
    let to = vip(Family::V4, 73, 80);
    let who = || answers(&sockets, to, "hello");
    let first = who();
    let held = scene.dial_from_node().held(to);
    scene.agent.crash();
    assert!(scene.dial_from_node().unasked("no agent").tcp(vip(Family::V6, 73, 80)).who().is_some());
    assert_eq!(who(), first);
    scene.agent.set_flags(&["--sockets-max", "4096"]);
    scene.agent.start();
    scene.apply("other", &[]);
    assert_eq!(who(), first, "the notes of sockets stay");
    assert_eq!(held.peer().expect("connected"), to);
    scene.agent.terminate();
    scene.agent.set_flags(&["--socket-lb", "off"]);
    scene.agent.start();
    scene.apply("another", &[]);
    assert_eq!(scene.dial_from_node().tcp(vip(Family::V6, 73, 80)).who(), Some(BALANCER), "off: the packet leaves");
    let rows = scene.agent.rows("frontends");
    assert!(rows.iter().all(|row| row["host"].is_null()), "{rows:?}");
}

/// `--socket-lb=all`: sockets of pods are translated as well, so no packet to the VIP reaches their interface.
#[test]
fn sockets_of_pods_are_served_if_asked() {
    let scene = Scene::with_flags(Setup::new("sockpods"), &["--socket-lb", "all"]);
    scene.publish("web", 74, "VIP", &["a"]);
    for family in FAMILIES {
        let to = vip(family, 74, 80);
        let before = scene.agent.counted("socket_translated");
        let held = scene.dial().unasked("the socket is translated, not its packets").held(to);
        assert_eq!((held.answer.who.as_str(), held.peer().expect("connected")), ("a", to));
        assert_eq!(held.answer.client.ip(), scene.client_address(to.ip()));
        assert_eq!(scene.agent.counted("socket_translated"), before + 1);
        // A pod that reaches itself needs no hairpin.
        let outcome = scene.dial_from("a").unasked("as above").tcp(to);
        assert_eq!(outcome.who(), Some("a"), "{outcome:?}");
        // What depends on the pod's address is left to the programs at its interface.
        assert_eq!(scene.dial().unasked("as above").udp(to).who(), Some("a"));
    }
}
