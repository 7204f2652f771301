//! Nodes with other software's rules and settings: translation stays invisible to them, in both shapes of pod network.

use std::fs;

use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::dial::Outcome;
use lb_tests::lab::{Cni, ReversePath, Setup};
use lb_tests::netns::Netns;
use lb_tests::scene::{BALANCER, Scene, TARGET};

use crate::kube_proxy::KubeProxy;

/// Drops packets that conntrack calls invalid, at each hook of a forwarded packet.
const INVALID: &str = "
    table inet strict {
        chain prerouting { type filter hook prerouting priority filter; ct state invalid drop; }
        chain forward { type filter hook forward priority filter; ct state invalid drop; }
        chain postrouting { type filter hook postrouting priority filter; ct state invalid drop; }
    }
";

/// All uses of a balancer's address by pods of the node.
fn pods_are_served(scene: &Scene) {
    scene.publish("shop", 80, "VIP", &["a", "b"]);
    scene.publish("self", 81, "VIP", &["a"]);
    scene.publish("none", 82, "VIP", &[]);
    scene.publish("proxy", 83, "Proxy", &["a"]);
    for family in FAMILIES {
        let to = vip(family, 80, 80);
        scene.expect_all(to, &["a", "b"]);
        let mut held = scene.dial().held(to);
        assert_eq!(held.answer.client.ip(), scene.client_address(to.ip()), "the pod sees the client");
        held.transfer(4 << 20).expect("bulk goes both ways");
        let udp = scene.dial().udp(to);
        assert!(matches!(udp.who(), Some("a" | "b")), "UDP to {to}: {udp:?}");

        hairpin(scene, family);
        assert_eq!(scene.dial().patient().tcp(vip(family, 82, 80)), Outcome::Refused);
        assert_eq!(scene.dial().udp(vip(family, 82, 80)), Outcome::Refused);
        assert_eq!(scene.dial().tcp(vip(family, 83, 80)).who(), Some(BALANCER));
    }
}

/// A pod that reaches itself by its own Service sees the balancer's address as the client.
fn hairpin(scene: &Scene, family: Family) {
    let own = scene.dial_from("a");
    let to = vip(family, 81, 80);
    let mut held = own.hold(to).unwrap_or_else(|outcome| panic!("a pod to its own Service {to}: {outcome:?}"));
    assert_eq!((held.answer.who.as_str(), held.answer.client.ip()), ("a", to.ip()));
    held.transfer(1 << 20).expect("bulk goes both ways");
    assert_eq!(own.udp(to).who(), Some("a"), "UDP of a pod to its own Service {to}");
}

/// The node's conntrack table.
fn conntrack(node: &Netns) -> String {
    node.inside(|| fs::read_to_string("/proc/thread-self/net/nf_conntrack").expect("conntrack can be read"))
}

/// What the first hook of netfilter sees of a request is what `explain` says: the packet as it was sent, the translated
/// one, or none.
#[test]
fn explain_says_what_netfilter_sees() {
    let scene = Scene::start(Setup::new("sees"));
    scene.publish("shop", 80, "VIP", &["a"]);
    scene.publish("self", 81, "VIP", &["client"]);
    scene.publish("none", 82, "VIP", &[]);
    scene.publish("proxy", 83, "Proxy", &["a"]);
    for (family, ip) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        let client = scene.lab.pod_address("client", family);
        for (number, sees) in [(80, "translated"), (81, "never"), (82, "never"), (83, "unchanged")] {
            let to = vip(family, number, 80);
            scene.lab.node.nft(&format!(
                "table inet sight {{
                    counter unchanged {{ }}
                    counter translated {{ }}
                    chain prerouting {{ type filter hook prerouting priority raw;
                        {ip} saddr {client} {ip} daddr {} counter name unchanged
                        {ip} saddr {client} tcp dport {TARGET} counter name translated
                    }}
                }}",
                to.ip()
            ));
            let _ = scene.dial().tcp(to);
            let has_counted = |name| {
                let counter = scene.lab.node.run("nft", &["list", "counter", "inet", "sight", name]);
                !counter.contains("packets 0 ")
            };
            let seen = ["unchanged", "translated"].into_iter().find(|name| has_counted(name)).unwrap_or("never");
            scene.lab.node.run("nft", &["delete", "table", "inet", "sight"]);
            let said = scene.agent.explains(&client.to_string(), &format!("{to}/tcp"));
            assert_eq!((seen, &said["netfilter"]["sees"]), (sees, &serde_json::json!(sees)), "{to}: {said:#}");
        }
    }
}

#[test]
fn point_to_point_pods_are_served() {
    pods_are_served(&Scene::start(Setup::new("servedptp")));
}

#[test]
fn bridged_pods_are_served() {
    pods_are_served(&Scene::start(Setup::new("servedbr").cni(Cni::Bridge)));
}

/// The rules see only client and backend, in both directions.
fn served_beside_strict_rules(setup: Setup) {
    let scene = Scene::start(setup.reverse_path(ReversePath::Strict));
    scene.lab.node.nft(INVALID);
    pods_are_served(&scene);
    for family in FAMILIES {
        let [client, backend] = ["client", "a"].map(|pod| scene.lab.pod_address(pod, family));
        let address = vip(family, 80, 80).ip();
        let seen = conntrack(&scene.lab.node);
        let between = |line: &&str| line.contains(&long(client)) && line.contains(&long(backend));
        assert!(seen.lines().any(|line| between(&line)), "conntrack knows nothing of {client} and {backend}:\n{seen}");
        assert!(
            !seen.contains(&format!("dst={} ", long(address))),
            "conntrack has seen the balancer's address:\n{seen}"
        );
    }
}

/// An address as conntrack prints it.
fn long(address: std::net::IpAddr) -> String {
    match address {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => address.segments().map(|segment| format!("{segment:04x}")).join(":"),
    }
}

#[test]
fn point_to_point_pods_are_served_beside_strict_rules() {
    served_beside_strict_rules(Setup::new("strictptp"));
}

#[test]
fn bridged_pods_are_served_beside_strict_rules() {
    served_beside_strict_rules(Setup::new("strictbr").cni(Cni::Bridge));
}

/// Before the agent runs, the rules claim the address. Then the agent does, and nothing is translated twice.
fn served_beside_kube_proxy(setup: Setup) {
    let mut scene = Scene::without_agent(setup, &[]);
    KubeProxy::Nftables.claim(&scene.lab, 84, "b");
    for family in FAMILIES {
        let Outcome::Answered(answer) = scene.dial().tcp(vip(family, 84, 80)) else { panic!("the rules do not work") };
        assert_eq!(answer.who, "b");
        assert_ne!(answer.client.ip(), scene.client_address(answer.client.ip()), "the rules masquerade");
    }
    scene.agent.start();
    scene.publish("shop", 84, "VIP", &["a"]);
    for family in FAMILIES {
        let to = vip(family, 84, 80);
        for _ in 0..8 {
            let Outcome::Answered(answer) = scene.dial().tcp(to) else { panic!("{to} is not answered") };
            assert_eq!((answer.who.as_str(), answer.client.ip()), ("a", scene.client_address(to.ip())));
        }
        let Outcome::Answered(answer) = scene.dial().udp(to) else { panic!("UDP to {to} is not answered") };
        assert_eq!((answer.who.as_str(), answer.client.ip()), ("a", scene.client_address(to.ip())));
        let other = vip(family, 84, 443);
        assert_eq!(scene.dial().tcp(other).who(), Some(BALANCER), "what neither claims passes");
    }
}

#[test]
fn point_to_point_pods_are_served_beside_kube_proxy() {
    served_beside_kube_proxy(Setup::new("kubeptp"));
}

#[test]
fn bridged_pods_are_served_beside_kube_proxy() {
    served_beside_kube_proxy(Setup::new("kubebr").cni(Cni::Bridge));
}

/// Without offload the sender computes checksums, and the receiver detects a wrong one.
fn served_without_offload(setup: Setup) {
    let scene = Scene::start(setup);
    for pod in ["client", "a", "b"] {
        scene.lab.pod(pod).netns.run("ethtool", &["-K", "eth0", "tx", "off"]);
        scene.lab.node.run("ethtool", &["-K", &scene.lab.pod(pod).interface, "tx", "off"]);
    }
    pods_are_served(&scene);
}

#[test]
fn point_to_point_pods_are_served_without_checksum_offload() {
    served_without_offload(Setup::new("txptp"));
}

#[test]
fn bridged_pods_are_served_without_checksum_offload() {
    served_without_offload(Setup::new("txbr").cni(Cni::Bridge));
}
