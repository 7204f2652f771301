//! `explain` against real packets, as a table: each kind of client dials each kind of destination, in both families, alone
//! and beside kube-proxy's rules. The dial itself compares decision, backends and client; here, what netfilter saw is
//! compared too.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use lb_tests::address::{
    BALANCERS, CLUSTER, FAMILIES, FAR, FAR_LINK, Family, Net, PODS, REMOTE_PODS, UPLINK, flag, pods_of, vip,
};
use lb_tests::dial::Outcome;
use lb_tests::lab::{Cni, Setup};
use lb_tests::manifest::{OTHER_NODE, Service, THIRD_NODE, ingress};
use lb_tests::printed;
use lb_tests::scene::{Probe, Scene, TARGET, empty_slice, node_addresses};
use serde_json::{Value, json};

use crate::kube_proxy::KubeProxy;

const VIP: u8 = 141;
const AFFINITY: u8 = 142;
const PROXY: u8 = 143;
const SPLIT: u8 = 144;
const EMPTY: u8 = 145;
const RANGES: u8 = 146;
const REMOTE: u8 = 147;
/// Proxy by our annotation, where the status says VIP.
const OURS: u8 = 148;
const OURS_EMPTY: u8 = 149;
const OURS_RANGES: u8 = 150;
const THIRD: u8 = 151;
const NODE_PORT: u16 = 30_141;
/// Pods of a node in the far network.
const THIRD_PODS: Net = pods_of(3);

/// Clients of [`RANGES`] and [`OURS_RANGES`]: those in the network.
const ALLOWED: Net = FAR;

/// Rules of another program that note each SYN with its addresses, before any translation by netfilter.
const NOTES: &str = "table inet notes {
    set seen4 { type ipv4_addr . ipv4_addr . inet_service; flags dynamic; size 4096; }
    set seen6 { type ipv6_addr . ipv6_addr . inet_service; flags dynamic; size 4096; }
    chain note {
        meta nfproto ipv4 tcp flags & (syn | ack) == syn add @seen4 { ip saddr . ip daddr . tcp dport }
        meta nfproto ipv6 tcp flags & (syn | ack) == syn add @seen6 { ip6 saddr . ip6 daddr . tcp dport }
    }
    chain came { type filter hook prerouting priority -310; jump note; }
    chain made { type filter hook output priority -310; jump note; }
}\n";

/// A SYN that netfilter saw.
type Seen = (IpAddr, SocketAddr);

fn seen(scene: &Scene) -> BTreeSet<Seen> {
    let mut all = BTreeSet::new();
    for set in ["seen4", "seen6"] {
        let listed = scene.lab.node.run("nft", &["-j", "list", "set", "inet", "notes", set]);
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let sets = listed["nftables"].as_array().expect("a list").iter();
        for element in sets.filter_map(|object| object["set"]["elem"].as_array()).flatten() {
            let parts = &element["concat"];
            let addr =
                |part: usize| parts[part].as_str().and_then(|text| text.parse::<IpAddr>().ok()).expect("an address");
            all.insert((addr(0), SocketAddr::new(addr(1), parts[2].as_u64().expect("a port") as u16)));
        }
    }
    all
}

/// A Service with a status of this mode in both families, changed by `edit`, with these pods as endpoints.
fn service(scene: &Scene, number: u8, mode: &str, pods: &[&str], edit: impl FnOnce(Service) -> Service) -> Vec<Value> {
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, number), mode));
    let service = edit(scene.service(&format!("s{number}"), number, &entries));
    [vec![service.object()], scene.slices(&service, pods)].concat()
}

fn annotated(mode: &'static str) -> impl FnOnce(Service) -> Service {
    move |service| service.metadata("annotations", json!({"lb-agent.io/ip-mode": mode}))
}

fn ranges(service: Service) -> Service {
    service.spec("loadBalancerSourceRanges", json!(FAMILIES.map(|family| ALLOWED.prefix(family))))
}

fn with_node_port(service: Service) -> Service {
    service.spec("ports", json!([{"name": "web", "protocol": "TCP", "port": 80, "nodePort": NODE_PORT}]))
}

/// Writes every kind of Service, and the Node of the pods in the network.
fn publish(scene: &Scene) {
    let plain = |service| service;
    let remote = scene.service("remote", REMOTE, &FAMILIES.map(|family| ingress(vip(family, REMOTE, 80).ip(), "VIP")));
    let elsewhere =
        FAMILIES.map(|family| empty_slice(&remote, family).endpoint(REMOTE_PODS.host(family, 5), OTHER_NODE).object());
    let affinity = |service: Service| service.spec("sessionAffinity", json!("ClientIP"));
    let objects = [
        service(scene, VIP, "VIP", &["a", "b"], with_node_port),
        service(scene, AFFINITY, "VIP", &["a", "b"], affinity),
        service(scene, PROXY, "Proxy", &["b"], plain),
        service(scene, SPLIT, "VIP", &["b"], annotated("Split")),
        service(scene, EMPTY, "VIP", &[], plain),
        service(scene, RANGES, "VIP", &["b"], ranges),
        service(scene, OURS, "VIP", &["b"], annotated("Proxy")),
        service(scene, OURS_EMPTY, "VIP", &[], annotated("Proxy")),
        service(scene, OURS_RANGES, "VIP", &["b"], |service| ranges(annotated("Proxy")(service))),
        vec![remote.object()],
        elsewhere.to_vec(),
        third(scene),
    ];
    scene.apply("table", &objects.concat());
}

/// Objects of a Service with an endpoint on a third node, which is in the far network.
fn third(scene: &Scene) -> Vec<Value> {
    let service = scene.service("third", THIRD, &[]);
    let slices =
        FAMILIES.map(|family| empty_slice(&service, family).endpoint(THIRD_PODS.host(family, 5), THIRD_NODE).object());
    for family in FAMILIES {
        let (pods, gateway) = (THIRD_PODS.prefix(family), FAR_LINK.host(family, 1).to_string());
        scene.lab.node.run("ip", &[flag(family), "route", "add", &pods, "via", &gateway]);
        scene.lab.far.run("ip", &[flag(family), "route", "add", "local", &pods, "dev", "lo"]);
    }
    [vec![service.object()], slices.to_vec()].concat()
}

/// The destinations of a family, by name.
fn destinations(family: Family) -> Vec<(&'static str, SocketAddr)> {
    let vips = [VIP, AFFINITY, PROXY, SPLIT, EMPTY, RANGES, REMOTE, OURS, OURS_EMPTY, OURS_RANGES];
    let names = ["vip", "affinity", "proxy", "split", "empty", "ranges", "remote", "ours", "ours-empty", "ours-ranges"];
    let balancers = names.into_iter().zip(vips.map(|number| vip(family, number, 80)));
    let cluster = SocketAddr::new(CLUSTER.host(family, VIP), 80);
    let node = SocketAddr::new(UPLINK.host(family, 2), NODE_PORT);
    balancers.chain([("cluster", cluster), ("node port", node), ("other port", vip(family, VIP, 443))]).collect()
}

/// Addresses whose UDP port is dialled as well.
const DATAGRAMS: [u8; 6] = [AFFINITY, PROXY, SPLIT, EMPTY, OURS, OURS_EMPTY];

/// The clients, by name; what `explain` must find of each.
fn clients(scene: &Scene, family: Family) -> Vec<(&'static str, Probe<'_>, Value)> {
    let node = UPLINK.host(family, 2);
    let remote = THIRD_PODS.host(family, 5);
    vec![
        ("pod", scene.dial(), json!({"kind": "pod", "node": null})),
        ("left out", scene.dial_from("left"), json!({"kind": "pod"})),
        ("host", scene.dial_from_node(), json!({"kind": "host", "found_by": "said"})),
        ("hostNetwork", scene.dial_from_node().named(node), json!({"kind": "host", "found_by": "route"})),
        ("other node's pod", scene.dial_from_far().bound(remote), json!({"kind": "external", "node": THIRD_NODE})),
        ("network", scene.dial_from_far().bound(FAR.host(family, 7)), json!({"kind": "external", "interface": "up1"})),
    ]
}

/// Dials every cell, and compares it.
fn compare(scene: &Scene) -> Vec<String> {
    scene.lab.node.nft(NOTES);
    // The node must have heard of the pods behind its bridge.
    for pod in ["client", "left"] {
        for family in FAMILIES {
            scene.dial_from(pod).unasked("the pod makes itself known").tcp(vip(family, PROXY, 443));
        }
    }
    let mut rows = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = FAMILIES
            .into_iter()
            .flat_map(|family| clients(scene, family).into_iter().map(move |client| (family, client)))
            .map(|(family, (name, probe, found))| {
                scope.spawn(move || {
                    let cells = destinations(family).into_iter().map(|(to, addr)| {
                        let (outcome, said) = probe.explained(addr);
                        for (field, wanted) in found.as_object().expect("an object") {
                            assert_eq!(&said["sender"][field], wanted, "{name} to {to}: {said:#}");
                        }
                        (name, to, addr, outcome, said)
                    });
                    let cells = cells.collect::<Vec<_>>();
                    // The dial compares it.
                    // What a rule refuses to a process of the node is an error of its send.
                    let is_refused = |number| number == OURS_EMPTY && name.starts_with("host");
                    for number in DATAGRAMS.into_iter().filter(|number| !is_refused(*number)) {
                        probe.udp(vip(family, number, 80));
                    }
                    cells
                })
            })
            .collect();
        rows.extend(threads.into_iter().flat_map(|thread| match thread.join() {
            Ok(cells) => cells,
            Err(panic) => std::panic::resume_unwind(panic),
        }));
    });
    let seen = seen(scene);
    rows.into_iter().map(|(name, to, addr, outcome, said)| row(&seen, (name, to, addr), &outcome, &said)).collect()
}

/// Checks what netfilter saw of a cell; the cell as text.
fn row(seen: &BTreeSet<Seen>, (name, to, addr): (&str, &str, SocketAddr), outcome: &Outcome, said: &Value) -> String {
    let sources: Vec<IpAddr> = match said["sender"]["client"].as_str() {
        Some(text) if said["sender"]["kind"] != "host" => vec![text.parse().expect("an address")],
        _ => node_addresses().into_iter().chain(FAMILIES.map(|family| PODS.host(family, 1))).collect(),
    };
    let saw = |to: SocketAddr| sources.iter().any(|source| seen.contains(&(*source, to)));
    let backends: Vec<SocketAddr> = serde_json::from_value(said["backends"].clone()).expect("addresses");
    let sees = said["netfilter"]["sees"].as_str().expect("a word");
    let is_right = match sees {
        "unchanged" => saw(addr),
        "translated" => !saw(addr) && backends.iter().any(|backend| saw(*backend)),
        "never" => !saw(addr),
        other => panic!("{other} is no sight"),
    };
    let cell =
        format!("{name:16} {to:11} {:8} {sees:10} {:9} {outcome:?}", said["decision"], said["kube_proxy"]["does"]);
    assert!(is_right, "netfilter saw otherwise: {cell}\n{said:#}\n{seen:?}");
    cell
}

/// How many cells have this decision.
fn count(rows: &[String], word: &str) -> usize {
    rows.iter().filter(|row| row.contains(word)).count()
}

const LEFT_OUT: [&str; 2] = ["--workload-interfaces", "cali-client,cali-a,cali-b,veth-client,veth-a,veth-b"];

fn scene(name: &'static str, cni: Cni, flags: &[&str]) -> Scene {
    let mut scene = Scene::with_flags(Setup::new(name).cni(cni), &[&LEFT_OUT[..], flags].concat());
    scene.add_pod("left");
    publish(&scene);
    scene
}

/// Every kind of address is ours.
#[test]
fn explain_agrees_with_packets_without_kube_proxy() {
    let scene = scene("explalone", Cni::PointToPoint, &["--services", "all"]);
    let rows = compare(&scene);
    println!("{}", rows.join("\n"));
    for (word, least) in
        [("\"balance\"", 50), ("\"pass\"", 20), ("\"reject\"", 8), ("\"drop\"", 8), ("\"not-ours\"", 20)]
    {
        assert!(count(&rows, word) >= least, "{word}: {}", rows.join("\n"));
    }
    let asked = ["explain", "--from", "pod", "--to", "default/s141:80"];
    let said = scene.agent.says(&asked);
    assert_eq!(said.matches("result ").count(), 6, "two of the balancer, two of the cluster, two of the node:\n{said}");
    let document = printed::items(&scene.agent.says(&[&asked[..], &["-o", "json"]].concat()));
    assert!(document.iter().all(|one| one["decision"] == "balance"), "{document:#?}");
}

fn beside(name: &'static str, cni: Cni, kube_proxy: KubeProxy, flags: &[&str]) {
    let scene = scene(name, cni, flags);
    let endpoint = |family| SocketAddr::new(scene.lab.pod_address("b", family), TARGET);
    kube_proxy.claim(&scene.lab, VIP, "b");
    for number in [RANGES, OURS_RANGES] {
        kube_proxy.filter(&scene.lab, number, ALLOWED);
    }
    for number in [EMPTY, OURS_EMPTY] {
        kube_proxy.reject(&scene.lab, number);
    }
    for family in FAMILIES {
        let claimed = [AFFINITY, SPLIT, RANGES, REMOTE, OURS, OURS_RANGES].map(|number| vip(family, number, 80));
        for to in claimed.into_iter().chain([SocketAddr::new(CLUSTER.host(family, VIP), 80)]) {
            kube_proxy.claim_another(&scene.lab, to, endpoint(family));
        }
        kube_proxy.serve_node_port(&scene.lab, NODE_PORT, endpoint(family));
    }
    let rows = compare(&scene);
    println!("{}", rows.join("\n"));
    if kube_proxy == KubeProxy::Iptables {
        becomes_legacy(&scene);
    }
    for (word, least) in
        [("\"balance\"", 16), ("\"translate\"", 20), ("\"refuse\"", 12), ("\"drop\"", 12), ("\"nothing\"", 30)]
    {
        assert!(count(&rows, word) >= least, "{word}: {}", rows.join("\n"));
    }
}

/// Beside rules of the older kind.
fn becomes_legacy(scene: &Scene) {
    for ip in ["ip", "ip6"] {
        scene.lab.node.nft(&format!("delete table {ip} nat\ndelete table {ip} filter\n"));
    }
    let kube_proxy = KubeProxy::IptablesLegacy;
    kube_proxy.claim(&scene.lab, SPLIT, "b");
    kube_proxy.filter(&scene.lab, OURS_RANGES, ALLOWED);
    kube_proxy.reject(&scene.lab, OURS_EMPTY);
    for family in FAMILIES {
        let endpoint = SocketAddr::new(scene.lab.pod_address("b", family), TARGET);
        for number in [OURS, OURS_RANGES] {
            kube_proxy.claim_another(&scene.lab, vip(family, number, 80), endpoint);
        }
        let wanted = [
            (SPLIT, ["nothing", "nothing", "translate"]),
            (OURS, ["nothing"; 3]),
            (OURS_EMPTY, ["refuse"; 3]),
            (OURS_RANGES, ["drop"; 3]),
        ];
        for (number, does) in wanted {
            let network = scene.dial_from_far().bound(FAR.host(family, 7));
            let clients = [scene.dial(), scene.dial_from_node(), network];
            for (client, does) in clients.into_iter().zip(does) {
                let (_, said) = client.explained(vip(family, number, 80));
                let sentence = said["kube_proxy"]["sentence"].as_str().unwrap_or_default();
                assert!(sentence.contains("legacy") && said["kube_proxy"]["does"] == does, "{number} {does}: {said:#}");
            }
        }
    }
}

#[test]
fn explain_agrees_with_packets_beside_nftables_rules() {
    beside("explnft", Cni::Bridge, KubeProxy::Nftables, &["--uplink-interfaces", "auto"]);
}

/// The network is left to kube-proxy, as is the default.
#[test]
fn explain_agrees_with_packets_beside_iptables_rules() {
    beside("explipt", Cni::PointToPoint, KubeProxy::Iptables, &[]);
}
