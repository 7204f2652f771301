//! `--xdp`: packets of known flows are translated in the driver of an uplink, and tc does the rest. Real packets by veths,
//! whose driver runs such programs natively if the sender completes its sums.

use std::time::Duration;

use lb_tests::address::{FAMILIES, Family, UPLINK, flag, host_prefix, vip};
use lb_tests::deadline::until_true;
use lb_tests::dial::{Dial, Held, Outcome, Transfer};
use lb_tests::lab::{FAR_NAME, ReversePath, Setup, UPLINK_NAME};
use lb_tests::raw::{Flood, flood_during};
use lb_tests::scene::outside::{DROP_INVALID, Endpoints, UPLINKS, client, dial, publish};
use lb_tests::scene::{BALANCER, Scene};

const MODES: [&str; 2] = ["generic", "native"];

/// Whether a device joins packets that it receives (GRO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joins {
    Yes,
    No,
}

/// A node whose uplinks have programs of a driver. What reaches them has finished sums, as real devices deliver it.
fn node(test: &'static str, mode: &str, more: &[&str]) -> Scene {
    let flags = [&UPLINKS[..], &["--xdp", mode], more].concat();
    let scene = Scene::with_flags(Setup::new(test).reverse_path(ReversePath::Strict), &flags);
    scene.lab.node.nft(DROP_INVALID);
    for outside in [&scene.lab.far, &scene.lab.external] {
        // Only a veth whose peer joins packets takes frames of a driver.
        outside.run("ethtool", &["-K", "eth0", "tx", "off", "gro", "on"]);
    }
    scene
}

fn in_driver(scene: &Scene) -> u64 {
    scene.agent.counted("in_driver")
}

/// A stream of the client that the driver must have dealt with.
#[track_caller]
fn streams(scene: &Scene, held: &mut Held, what: &str) {
    let before = in_driver(scene);
    held.transfer(2 << 20).unwrap_or_else(|error| panic!("{what}: {error}"));
    let dealt = in_driver(scene) - before;
    assert!(dealt > 100, "{what}: the driver dealt with {dealt} packets");
}

#[test]
fn clients_in_the_network_reach_endpoints_here_and_elsewhere_by_the_driver() {
    for mode in MODES {
        let scene = node(if mode == "native" { "xdpnat" } else { "xdpgen" }, mode, &[]);
        publish(&scene, 70, "VIP", "Cluster", Endpoints::Here);
        publish(&scene, 71, "VIP", "Cluster", Endpoints::Elsewhere);
        for joins in [Joins::Yes, Joins::No] {
            let gro = if joins == Joins::Yes { "on" } else { "off" };
            for uplink in [UPLINK_NAME, FAR_NAME] {
                scene.lab.node.run("ethtool", &["-K", uplink, "gro", gro]);
            }
            for (family, (number, who, seen)) in FAMILIES.into_iter().flat_map(|family| {
                [(70, "a", client(family)), (71, BALANCER, UPLINK.host(family, 2))].map(|place| (family, place))
            }) {
                let (to, what) = (vip(family, number, 80), format!("{mode}, {joins:?}, {family:?}, {who}"));
                let Outcome::Answered(answer) = dial(&scene, family).tcp(to) else { panic!("{what}: no answer") };
                assert_eq!((answer.who.as_str(), answer.client.ip()), (who, seen), "{what}");
                streams(&scene, &mut dial(&scene, family).held(to), &what);
                assert_eq!(dial(&scene, family).udp(to).who(), Some(who), "{what}: UDP");
            }
        }
    }
}

/// A driver can not ask for the MAC of a neighbour: it leaves the packet to tc until the neighbour is known.
#[test]
fn a_neighbour_that_is_forgotten_in_the_middle_of_a_stream_is_found_again() {
    let scene = node("xdpcold", "native", &[]);
    publish(&scene, 72, "VIP", "Cluster", Endpoints::Elsewhere);
    for family in FAMILIES {
        let mut held = dial(&scene, family).held(vip(family, 72, 80));
        for _ in 0..3 {
            scene.lab.node.ip(&[format!("neigh flush dev {UPLINK_NAME}"), format!("neigh flush dev {FAR_NAME}")]);
            streams(&scene, &mut held, "after the neighbours were forgotten");
        }
    }
}

/// A next hop gets another MAC and says nothing. The kernel notices when it asks, which it does for packets of tc.
#[test]
fn a_next_hop_with_another_mac_is_found_again() {
    let scene = node("xdpmac", "native", &[]);
    publish(&scene, 77, "VIP", "Cluster", Endpoints::Elsewhere);
    let timing = |what: &str, value: &str| (format!("net.ipv4.neigh.{UPLINK_NAME}.{what}"), value.to_owned());
    let quick = [("base_reachable_time_ms", "1000"), ("delay_first_probe_time", "1"), ("retrans_time_ms", "100")];
    scene.lab.node.sysctl(&quick.map(|(what, value)| timing(what, value)));
    let shown = scene.lab.node.run("ip", &["-oneline", "link", "show", UPLINK_NAME]);
    let own = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).expect("a veth has a MAC");
    let node_address = UPLINK.host(Family::V4, 2).to_string();
    let next_hop = UPLINK.host(Family::V4, 1).to_string();
    // The other machine never asks, and so never shows its new MAC.
    let known = ["neigh", "replace", &node_address, "lladdr", own, "nud", "permanent", "dev", "eth0"];
    scene.lab.external.run("ip", &known);
    for mac in ["02:00:00:00:00:a1", "02:00:00:00:00:a2"] {
        // Its segments are lost from then on, so it comes to rest for ever longer.
        let stream = Transfer::over(dial(&scene, Family::V4).held(vip(Family::V4, 77, 80)));
        until_true("the stream runs", || stream.bytes() > 1 << 20);
        scene.lab.external.ip(&[format!("link set eth0 address {mac}")]);
        scene.lab.external.run("ip", &known);
        until_true("its lost segments find the new MAC", || {
            // Only the next hop: a question of the endpoint itself, before its neighbour is permanent again, shows the MAC.
            scene.lab.node.run("ip", &["neigh", "show", "to", &next_hop, "dev", UPLINK_NAME]).contains(mac)
        });
        streams(&scene, &mut dial(&scene, Family::V4).patient().held(vip(Family::V4, 77, 80)), "by the new MAC");
    }
}

/// Frames of several buffers, in a driver: those for this node are translated there, and those in transit left to tc.
#[test]
fn jumbo_frames_arrive_here_and_elsewhere() {
    const JUMBO: &str = "9000";
    let scene = node("xdpjumbo", "native", &[]);
    for (machine, interfaces) in [
        (&scene.lab.node, &[UPLINK_NAME, FAR_NAME, &scene.lab.pod("a").interface][..]),
        (&scene.lab.far, &["eth0"]),
        (&scene.lab.external, &["eth0"]),
        (&scene.lab.pod("a").netns, &["eth0"]),
    ] {
        for interface in interfaces {
            machine.ip(&[format!("link set {interface} mtu {JUMBO}")]);
        }
    }
    // Without these, the sender cuts by itself.
    scene.lab.far.run("ethtool", &["-K", "eth0", "gso", "off"]);
    publish(&scene, 78, "VIP", "Cluster", Endpoints::Here);
    publish(&scene, 79, "VIP", "Cluster", Endpoints::Elsewhere);
    for family in FAMILIES {
        for number in [78, 79] {
            let mut held = dial(&scene, family).held(vip(family, number, 80));
            held.transfer(4 << 20).unwrap_or_else(|error| panic!("{family:?}, {number}: {error}"));
        }
    }
    assert!(in_driver(&scene) > 100, "the driver dealt with {} packets", in_driver(&scene));
}

/// PR-02 in the driver: what does not fit is left to tc, which answers.
#[test]
fn pr_02_a_client_learns_of_a_narrow_way_although_the_driver_sends_packets_on() {
    const NARROW: &str = "1300";
    let scene = node("xdpmtu", "native", &[]);
    publish(&scene, 73, "VIP", "Cluster", Endpoints::Elsewhere);
    scene.lab.node.ip(&[format!("link set {UPLINK_NAME} mtu {NARROW}")]);
    scene.lab.external.ip(&[format!("link set eth0 mtu {NARROW}")]);
    for family in FAMILIES {
        // The endpoint announces the segment size of a wide link all the same.
        let node = host_prefix(UPLINK.host(family, 2));
        scene.lab.external.run("ip", &[flag(family), "route", "add", &node, "dev", "eth0", "advmss", "1440"]);
        let mut held = dial(&scene, family).held(vip(family, 73, 80));
        streams(&scene, &mut held, "a narrow way");
    }
    assert!(scene.agent.counted("too_long") > 0);
}

/// Streams run on while the agent is replaced by one that uses the driver, or no longer.
#[test]
fn streams_outlive_each_switch_between_driver_and_tc() {
    let mut scene = node("xdpswitch", "off", &[]);
    publish(&scene, 74, "VIP", "Cluster", Endpoints::Here);
    publish(&scene, 75, "VIP", "Cluster", Endpoints::Elsewhere);
    let open = |(family, number)| Transfer::over(dial(&scene, family).held(vip(family, number, 80)));
    let streams = [(Family::V4, 74), (Family::V6, 75)].map(open);
    for mode in ["native", "generic", "off", "native", "native", "off"] {
        scene.agent.set_flags(&[&UPLINKS[..], &["--xdp", mode]].concat());
        scene.agent.crash();
        scene.agent.start();
        let before = (in_driver(&scene), streams.iter().map(Transfer::bytes).collect::<Vec<_>>());
        let moves = || streams.iter().zip(&before.1).all(|(stream, before)| stream.bytes() > before + (1 << 20));
        until_true("all streams run on", moves);
        let dealt = in_driver(&scene) - before.0;
        assert_eq!(dealt > 0, mode != "off", "{mode}: the driver dealt with {dealt} packets");
    }
    for stream in streams {
        stream.stop().expect("a stream outlives all switches");
    }
}

/// Connections that are open during the flood.
const OPEN: usize = 1_000;

/// A flood of SYNs from the network beside a thousand living connections.
#[test]
fn a_thousand_connections_withstand_a_flood_at_the_uplink() {
    let scene = node("xdpflood", "native", &["--flows-max", "16384"]);
    publish(&scene, 76, "VIP", "Cluster", Endpoints::Here);
    let to = vip(Family::V4, 76, 80);
    // Without asking explain for each.
    let dials = || Dial::from(&scene.lab.far).bound(client(Family::V4));
    let mut open: Vec<Held> = (0..OPEN).map(|_| dials().held(to)).collect();
    let before = in_driver(&scene);
    let mut flood = Flood::new(&scene.lab.far, to);
    let send = || {
        flood.send(50);
        std::thread::sleep(Duration::from_millis(1));
    };
    flood_during(send, || {
        for (number, held) in open.iter_mut().enumerate() {
            held.echo("still here").unwrap_or_else(|error| panic!("connection {number}: {error}"));
        }
    });
    assert!(in_driver(&scene) - before > OPEN as u64, "the driver dealt with the connections");
    assert!(scene.agent.counted("embryo_evicted") > 0, "the flood filled its part of the table");
    let kept = dial(&scene, Family::V4).patient().tcp(to);
    assert_eq!(kept.who(), Some("a"), "new connections are made");
}
