//! PROXY headers that the node adds, over links of every kind: devices that cut and sum segments or do not, stacks
//! without the usual options, and a network that loses and reorders packets. Conntrack finds nothing invalid.

use lb_tests::lab::Setup;
use lb_tests::scene::Scene;

use crate::announced::{Backend, Client, HERE, PORT, crowd, pods_converse, publish};

/// Counts what conntrack takes for invalid, as strictly as it can, and drops it.
const STRICT: &str = "table inet strict {
 counter invalid {
 }
 chain forward {
  type filter hook forward priority 0
  ct state invalid counter name invalid drop
 }
}
";

fn be_strict(scene: &Scene) {
    let node = &scene.lab.node;
    node.nft(STRICT);
    node.sysctl(&[("net.netfilter.nf_conntrack_tcp_be_liberal", "0")]);
}

#[track_caller]
fn nothing_was_invalid(scene: &Scene) {
    let counter = scene.lab.node.run("nft", &["list", "counter", "inet", "strict", "invalid"]);
    assert!(counter.contains("packets 0 "), "{counter}");
}

/// Settings as `ethtool -K` takes them.
const OFFLOADS: [&[&str]; 3] = [
    &["tx", "on", "tso", "off", "gso", "off", "gro", "off"],
    &["tx", "off", "gso", "off", "gro", "off"],
    &["tx", "on", "rx", "off", "tso", "on", "gso", "on", "gro", "on"],
];

/// Settings without which a stack still works.
const OPTIONS: [[&str; 2]; 4] = [
    ["net.ipv4.tcp_timestamps", "0"],
    ["net.ipv4.tcp_sack", "0"],
    ["net.ipv4.tcp_window_scaling", "0"],
    ["net.ipv4.tcp_ecn", "1"],
];

const MIXED: [Client; 6] = [
    Client::Listens(0),
    Client::Listens(300_000),
    Client::Talks(0),
    Client::Talks(300_000),
    Client::Waits(1),
    Client::Waits(40_000),
];

#[test]
fn devices_and_stacks_may_lack_what_is_usual() {
    let scene = Scene::start(Setup::new("announcedlinks"));
    be_strict(&scene);
    let _backend = Backend::start(&scene.lab.pod("a").netns);
    publish(&scene, "v1", &[HERE]);
    let pods = ["client", "a"].map(|name| scene.lab.pod(name));
    // The ends alone, then the node's ends as well: they may differ.
    for with_node in [false, true] {
        for setting in OFFLOADS {
            for pod in pods {
                pod.netns.run("ethtool", &[&["-K", "eth0"], setting].concat());
                if with_node {
                    scene.lab.node.run("ethtool", &[&["-K", &*pod.interface], setting].concat());
                }
            }
            pods_converse(&scene, &MIXED);
        }
    }
    for [key, value] in OPTIONS {
        pods[0].netns.sysctl(&[(key, value)]);
        pods_converse(&scene, &MIXED);
    }
    nothing_was_invalid(&scene);
    // The sum of a segment is checked by its receiver alone.
    for pod in pods {
        let failed = pod.netns.run("nstat", &["-a", "-s", "-z", "TcpInCsumErrors"]);
        assert!(failed.lines().any(|line| line.split_whitespace().nth(1) == Some("0")), "{failed}");
    }
}

/// Packets of both directions are lost, one in twenty. One in four takes a slow link beside the usual one, so that later
/// packets overtake it.
fn make_bad(scene: &Scene) {
    let (node, pod) = (&scene.lab.node, &scene.lab.pod("a").netns);
    node.ip(&[format!("link add slow type veth peer name slow netns {}", pod.name())]);
    for (netns, own, other) in [(node, "fe80::2", "fe80::3"), (pod, "fe80::3", "fe80::2")] {
        netns.ip(&[&format!("addr add {own}/64 dev slow nodad"), "link set slow up"]);
        for (family, via) in [("-4", &["inet6", other][..]), ("-6", &[other])] {
            netns.run("ip", &[family, "rule", "add", "fwmark", "1", "table", "100"]);
            let route = [&[family, "route", "add", "default", "via"], via, &["dev", "slow", "table", "100"]];
            netns.run("ip", &route.concat());
        }
        let rate = ["rate", "20mbit", "burst", "1600", "latency", "500ms"];
        netns.run("tc", &[&["qdisc", "add", "dev", "slow", "root", "tbf"], &rate[..]].concat());
    }
    let stray = "numgen random mod 100 < 25 meta mark set 1";
    node.nft(&format!(
        "table inet bad {{
 chain prerouting {{
  type filter hook prerouting priority -150
  tcp dport {PORT} {stray}
 }}
 chain forward {{
  type filter hook forward priority -10
  meta l4proto tcp numgen random mod 100 < 5 drop
 }}
}}
"
    ));
    pod.nft(&format!(
        "table inet bad {{
 chain output {{
  type route hook output priority -150
  tcp sport {PORT} {stray}
 }}
}}
"
    ));
}

#[test]
fn every_stream_survives_loss_and_reordering() {
    let scene = Scene::start(Setup::new("announcedbad"));
    let _backend = Backend::start(&scene.lab.pod("a").netns);
    publish(&scene, "v2", &[HERE]);
    make_bad(&scene);
    pods_converse(&scene, &crowd(30, 2_997));
    let overtaken = scene.lab.pod("a").netns.run("nstat", &["-a", "-s", "-z", "TcpExtTCPOFOQueue"]);
    assert!(overtaken.lines().any(|line| line.split_whitespace().nth(1).is_some_and(|count| count != "0")));
}
