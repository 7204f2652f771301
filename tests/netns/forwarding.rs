//! Packets of the network for endpoints on other nodes: this node forwards them, with an address of its own as source.

use std::net::SocketAddr;

use lb_tests::address::{FAMILIES, Family, OVERLAY, REMOTE_PODS, UPLINK, add_address, flag, host_prefix, vip};
use lb_tests::deadline::until_true;
use lb_tests::dial::{Dial, Held, Outcome};
use lb_tests::lab::{ReversePath, Setup, UPLINK_NAME};
use lb_tests::scene::{BALANCER, Scene, TARGET};

use lb_tests::scene::outside::DROP_INVALID;
use lb_tests::scene::outside::{Endpoints, UPLINKS, client, dial, publish};

/// The ports of `--snat-ports`.
const SNAT_PORTS: std::ops::RangeInclusive<u16> = 61_000..=65_535;

#[test]
fn mq_01_a_client_in_the_network_reaches_an_endpoint_of_another_node_and_is_seen_as_the_node() {
    let scene = Scene::with_flags(Setup::new("fwd").reverse_path(ReversePath::Strict), &UPLINKS);
    scene.lab.node.nft(DROP_INVALID);
    publish(&scene, 60, "VIP", "Cluster", Endpoints::Elsewhere);
    for family in FAMILIES {
        let to = vip(family, 60, 80);
        let Outcome::Answered(answer) = dial(&scene, family).tcp(to) else { panic!("{to} is not answered") };
        assert_eq!((answer.who.as_str(), answer.client.ip()), (BALANCER, UPLINK.host(family, 2)), "{to}");
        assert!(SNAT_PORTS.contains(&answer.client.port()), "{answer:?}");
        let mut held = dial(&scene, family).held(to);
        held.transfer(2 << 20).expect("bulk goes both ways");
        let Outcome::Answered(answer) = dial(&scene, family).udp(to) else { panic!("UDP to {to} is not answered") };
        assert_eq!((answer.who.as_str(), answer.client.ip()), (BALANCER, UPLINK.host(family, 2)), "UDP to {to}");
    }
}

/// eTP Cluster: both endpoints get connections. The one on this node sees its client (docs/limits.md).
#[test]
fn xip_03_endpoints_here_and_elsewhere_share_the_connections() {
    let scene = Scene::with_flags(Setup::new("fwdboth"), &UPLINKS);
    publish(&scene, 61, "VIP", "Cluster", Endpoints::Both);
    for family in FAMILIES {
        let to = vip(family, 61, 80);
        let (mut here, mut elsewhere) = (0, 0);
        for _ in 0..40 {
            let Outcome::Answered(answer) = dial(&scene, family).tcp(to) else { panic!("{to} is not answered") };
            match answer.who.as_str() {
                "a" => {
                    here += 1;
                    assert_eq!(answer.client.ip(), client(family));
                }
                BALANCER => {
                    elsewhere += 1;
                    assert_eq!(answer.client.ip(), UPLINK.host(family, 2));
                }
                other => panic!("{other} answers for {to}"),
            }
        }
        assert!(here > 0 && elsewhere > 0, "{here} here, {elsewhere} elsewhere");
    }
}

/// The router's part: its other end is known by ARP or neighbour discovery only after a packet has asked for it.
#[test]
fn the_first_packet_finds_a_neighbour_that_is_not_known_yet() {
    let scene = Scene::with_flags(Setup::new("fwdcold"), &UPLINKS);
    publish(&scene, 62, "VIP", "Cluster", Endpoints::Elsewhere);
    for family in FAMILIES {
        scene.lab.node.ip(&[format!("neigh flush dev {UPLINK_NAME}"), "neigh flush dev up1".to_owned()]);
        // A lost SYN would be repeated after the time limit of the client.
        assert_eq!(dial(&scene, family).tcp(vip(family, 62, 80)).who(), Some(BALANCER), "{family:?}");
    }
}

/// Narrower than any other link here, and wide enough for IPv6.
const NARROW: &str = "1300";

/// PR-02: the client's segments do not fit the way to the other node, as with an overlay network between nodes. The client
/// learns of that from this node.
#[test]
fn pr_02_a_client_learns_of_a_narrow_way_between_the_nodes() {
    let scene = Scene::with_flags(Setup::new("fwdpmtu"), &UPLINKS);
    publish(&scene, 63, "VIP", "Cluster", Endpoints::Elsewhere);
    scene.lab.node.ip(&[format!("link set {UPLINK_NAME} mtu {NARROW}")]);
    scene.lab.external.ip(&[format!("link set eth0 mtu {NARROW}")]);
    for family in FAMILIES {
        // The endpoint announces the segment size of a wide link all the same.
        let (node, ip) = (host_prefix(UPLINK.host(family, 2)), flag(family));
        scene.lab.external.run("ip", &[ip, "route", "add", &node, "dev", "eth0", "advmss", "1440"]);
        let to = vip(family, 63, 80);
        let mut held = dial(&scene, family).held(to);
        held.transfer(1 << 20).unwrap_or_else(|error| panic!("{family:?}: {error}"));
        let (to, from) = (to.ip().to_string(), client(family).to_string());
        let route = scene.lab.far.run("ip", &[ip, "route", "get", &to, "from", &from]);
        assert!(route.contains(&format!("mtu {NARROW}")), "{family:?}: {route}");
    }
    assert!(scene.agent.counted("too_long") > 0);
}

#[test]
fn ports_that_are_nearly_used_up_are_a_warning() {
    let few = ["--snat-ports", "61000-61004", "--gc-secs", "1"];
    let scene = Scene::with_flags(Setup::new("fwdports"), &[&UPLINKS[..], &few].concat());
    publish(&scene, 67, "VIP", "Cluster", Endpoints::Elsewhere);
    let to = vip(Family::V4, 67, 80);
    // Each connection tries 32 ports at random.
    let held: Vec<Held> = (0..4).map(|_| dial(&scene, Family::V4).held(to)).collect();
    let warns = || scene.agent.says(&["show", "warnings"]).contains("80 % or more of the 5 ports of");
    until_true("the ports are scarce", warns);
    drop(held);
    until_true("they are free again", || !warns());
}

/// A packet that is forwarded bypasses IPsec: it would leave in clear text.
#[test]
fn nothing_new_is_forwarded_where_ipsec_policies_apply() {
    let scene = Scene::with_flags(Setup::new("fwdipsec"), &UPLINKS);
    publish(&scene, 66, "VIP", "Cluster", Endpoints::Elsewhere);
    let mut held = FAMILIES.map(|family| dial(&scene, family).held(vip(family, 66, 80)));
    // Of another network: which packets a policy is for is the stack's to know.
    let policy =
        |verb: &str| scene.lab.node.ip(&[format!("xfrm policy {verb} src 192.0.2.0/24 dst 198.18.0.0/15 dir out")]);
    let warns = || scene.agent.says(&["show", "warnings"]).contains("IPsec");
    for family in FAMILIES {
        assert_eq!(dial(&scene, family).udp(vip(family, 66, 80)).who(), Some(BALANCER), "{family:?}");
    }
    let datagrams = || scene.agent.says(&["show", "flows"]).matches("udp").count();
    assert!(datagrams() > 0);
    policy("add");
    until_true("the policy is seen", warns);
    let seen_as = |family| {
        let outcome = dial(&scene, family).tcp(vip(family, 66, 80));
        let Outcome::Answered(answer) = outcome else { panic!("{family:?}: {outcome:?}") };
        answer.client.ip()
    };
    for family in FAMILIES {
        assert_eq!(seen_as(family), client(family), "the stack routes to the balancer, whose address this is");
    }
    until_true("the datagrams' flows are forgotten", || datagrams() == 0);
    assert!(scene.agent.says(&["check"]).contains("an IPsec policy applies"));
    all_transfer(&mut held, "what was open goes on");
    policy("del");
    until_true("the policy is gone", || !warns());
    for family in FAMILIES {
        assert_eq!(seen_as(family), UPLINK.host(family, 2), "it is forwarded again");
    }
}

#[test]
fn a_closed_port_of_another_node_refuses() {
    let scene = Scene::with_flags(Setup::new("fwdclosed"), &UPLINKS);
    publish(&scene, 64, "VIP", "Cluster", Endpoints::Elsewhere);
    for family in FAMILIES {
        let endpoint = REMOTE_PODS.host(family, 5);
        let table = if family == Family::V4 { "ip" } else { "ip6" };
        let closed = format!("{table} daddr {endpoint} meta l4proto {{ tcp, udp }} th dport {TARGET} reject");
        let chain = format!("chain in {{ type filter hook input priority 0; {closed}; }}");
        scene.lab.external.nft(&format!("table {table} closed {{ {chain}\n }}"));
        for outcome in [
            dial(&scene, family).patient().unasked("the endpoint refuses").tcp(vip(family, 64, 80)),
            dial(&scene, family).patient().unasked("the endpoint refuses").udp(vip(family, 64, 80)),
        ] {
            assert_eq!(outcome, Outcome::Refused, "{family:?}: the error reaches the socket that dialled");
        }
    }
}

#[test]
fn a_forwarded_connection_survives_crashes_and_a_resize() {
    let mut scene = Scene::with_flags(Setup::new("fwdcrash"), &UPLINKS);
    publish(&scene, 65, "VIP", "Cluster", Endpoints::Elsewhere);
    let mut held = FAMILIES.map(|family| dial(&scene, family).held(vip(family, 65, 80)));
    for flags in [&UPLINKS[..], &["--uplink-interfaces", "up0,up1", "--flows-max", "65536"]] {
        scene.agent.crash();
        all_transfer(&mut held, "it goes on without an agent");
        scene.agent.set_flags(flags);
        scene.agent.start();
        all_transfer(&mut held, "it goes on with another agent");
    }
}

/// Sends and receives over each connection.
#[track_caller]
fn all_transfer(held: &mut [Held], why: &str) {
    for held in held {
        held.transfer(1 << 20).expect(why);
    }
}

/// The policy of a live Service changes with connections open (XIP-03, XIP-05): they stay, and new ones obey.
#[test]
fn connections_stay_when_the_policy_of_their_service_changes() {
    let scene = Scene::with_flags(Setup::new("fwdpolicy"), &UPLINKS);
    publish(&scene, 66, "VIP", "Cluster", Endpoints::Elsewhere);
    let mut held = FAMILIES.map(|family| dial(&scene, family).held(vip(family, 66, 80)));
    publish(&scene, 66, "VIP", "Local", Endpoints::Elsewhere);
    for family in FAMILIES {
        assert_eq!(dial(&scene, family).tcp(vip(family, 66, 80)), Outcome::Silence, "no endpoint here");
    }
    all_transfer(&mut held, "it stays");
    publish(&scene, 66, "VIP", "Local", Endpoints::Both);
    for family in FAMILIES {
        assert_eq!(dial(&scene, family).tcp(vip(family, 66, 80)).who(), Some("a"));
    }
    all_transfer(&mut held, "it stays");
    publish(&scene, 66, "Proxy", "Cluster", Endpoints::Both);
    all_transfer(&mut held, "it stays");
}

/// The address of an uplink changes: new flows use the new one.
#[test]
fn the_source_follows_the_address_of_the_uplink() {
    let scene = Scene::with_flags(Setup::new("fwdaddr"), &UPLINKS);
    publish(&scene, 67, "VIP", "Cluster", Endpoints::Elsewhere);
    for family in FAMILIES {
        let (old, new) = (UPLINK.interface(family, 2), UPLINK.interface(family, 9));
        // In this order: IPv4 deletes the second address of a prefix with the first.
        scene.lab.node.ip(&[format!("addr del {old} dev {UPLINK_NAME}"), add_address(family, &new, UPLINK_NAME)]);
        let gateway = UPLINK.host(family, 1).to_string();
        scene.lab.node.run("ip", &[flag(family), "route", "replace", "default", "via", &gateway, "dev", UPLINK_NAME]);
        let far = Dial::from(&scene.lab.far).bound(client(family));
        until_true("new connections come from the new address", || match far.tcp(vip(family, 67, 80)) {
            Outcome::Answered(answer) => answer.client.ip() == UPLINK.host(family, 9),
            _ => false,
        });
    }
}

/// flannel.1 and vxlan.calico: the way to pods of other nodes is an overlay network, whose address on this node becomes
/// the source. Its MTU is smaller than the client's.
#[test]
fn an_overlay_between_the_nodes_is_a_way() {
    let scene = Scene::without_agent(Setup::new("fwdvxlan"), &["--uplink-interfaces", "auto"]);
    for (netns, lower, own, other) in [(&scene.lab.node, UPLINK_NAME, 2, 1), (&scene.lab.external, "eth0", 1, 2)] {
        let remote = UPLINK.host(Family::V4, other);
        netns.ip(&[
            format!("link add flannel.1 type vxlan id 1 dev {lower} remote {remote} dstport 8472"),
            "link set flannel.1 mtu 1450 up".to_owned(),
        ]);
        for family in FAMILIES {
            netns.ip(&[add_address(family, &OVERLAY.interface(family, own), "flannel.1")]);
        }
    }
    for family in FAMILIES {
        let (pods, gateway) = (REMOTE_PODS.prefix(family), OVERLAY.host(family, 1).to_string());
        scene.lab.node.run("ip", &[flag(family), "route", "add", &pods, "via", &gateway, "dev", "flannel.1"]);
    }
    let mut scene = scene;
    scene.agent.start();
    publish(&scene, 68, "VIP", "Cluster", Endpoints::Elsewhere);
    for family in FAMILIES {
        let mut held = dial(&scene, family).held(vip(family, 68, 80));
        let (who, client) = (held.answer.who.clone(), held.answer.client.ip());
        assert_eq!((who.as_str(), client), (BALANCER, OVERLAY.host(family, 2)), "{family:?}");
        held.transfer(1 << 20).unwrap_or_else(|error| panic!("{family:?}: {error}"));
    }
}

/// Without a way to any endpoint the packet is the stack's, as without forwarding.
#[test]
fn endpoints_behind_no_uplink_are_left_to_the_routes() {
    let scene = Scene::with_flags(Setup::new("fwdnoway"), &["--uplink-interfaces", "up1"]);
    publish(&scene, 69, "VIP", "Cluster", Endpoints::Elsewhere);
    publish(&scene, 70, "VIP", "Cluster", Endpoints::Both);
    for family in FAMILIES {
        let outcome = dial(&scene, family).tcp(vip(family, 69, 80));
        let Outcome::Answered(answer) = outcome else { panic!("{outcome:?}") };
        assert_eq!((answer.who.as_str(), answer.client.ip()), (BALANCER, client(family)), "routed to the balancer");
        for _ in 0..16 {
            let outcome = dial(&scene, family).tcp(vip(family, 70, 80));
            assert_eq!(outcome.who(), Some("a"), "the endpoint here is found: {outcome:?}");
        }
    }
    assert!(scene.agent.counted("passed_no_route") > 0);
}

/// Connections of the node and forwarded ones to the same endpoint share the ports: neither takes an answer of the other.
#[test]
fn connections_of_the_node_and_forwarded_ones_share_the_ports() {
    const PORTS: std::ops::Range<u16> = 61_000..61_064;
    let flags = [&UPLINKS[..], &["--snat-ports", "61000-61063"]].concat();
    let scene = Scene::with_flags(Setup::new("fwdown"), &flags);
    publish(&scene, 71, "VIP", "Cluster", Endpoints::Elsewhere);
    for family in FAMILIES {
        let (to, endpoint) = (vip(family, 71, 80), SocketAddr::new(REMOTE_PODS.host(family, 5), TARGET));
        let own = |port| {
            let from = SocketAddr::new(UPLINK.host(family, 2), port);
            Dial::from(&scene.lab.node).bound_to(from).held(endpoint)
        };
        let far = || scene.dial_from_far().bound(client(family)).unasked("many alike").held(to);
        // In turns. Half of the ports stay free: ports are tried at random.
        let mut held: Vec<Held> = Vec::new();
        for port in PORTS.step_by(4) {
            held.push(far());
            held.push(own(port));
        }
        for held in &mut held {
            held.echo("its own").expect("no answer went astray");
        }
    }
}
