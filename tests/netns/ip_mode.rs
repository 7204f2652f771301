//! ipMode: the shortcut or the balancer, for each entry, family, port and protocol.

use std::net::SocketAddr;

use lb_tests::address::{BALANCERS, CLUSTER, FAMILIES, Family, vip};
use lb_tests::capture::{Capture, Carries, Packet};
use lb_tests::dial::{Dial, Outcome};
use lb_tests::lab::Setup;
use lb_tests::manifest::{Service, ingress};
use lb_tests::scene::{BALANCER, Scene, TARGET};
use serde_json::{Value, json};

/// The server that must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// A pod: the connection was shortcut.
    Pod,
    /// The balancer: the packets left the node.
    Balancer,
}

/// A Service and the expected answers of its ports: (family, port, protocol, server).
struct Case {
    id: &'static str,
    /// The last part of its balancer address, in both families.
    number: u8,
    service: Service,
    answers: Vec<(Family, u16, Transport, Who)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

use Transport::{Tcp, Udp};
use Who::{Balancer, Pod};

const V4: Family = Family::V4;
const V6: Family = Family::V6;

/// TCP on port 80, in both families.
fn both(who: Who) -> Vec<(Family, u16, Transport, Who)> {
    FAMILIES.map(|family| (family, 80, Tcp, who)).to_vec()
}

/// Entries for a number, in both families.
fn entries(number: u8, mode: &str) -> Vec<Value> {
    FAMILIES.map(|family| ingress(BALANCERS.host(family, number), mode)).to_vec()
}

/// Entries with these fields changed, apart from the address.
fn entries_with(number: u8, fields: &Value) -> Vec<Value> {
    let mut entries = FAMILIES.map(|family| json!({"ip": BALANCERS.host(family, number).to_string()}));
    for entry in &mut entries {
        for (field, value) in fields.as_object().expect("fields are an object") {
            entry[field] = value.clone();
        }
    }
    entries.to_vec()
}

fn cases(scene: &Scene) -> Vec<Case> {
    let simple = |id, number, entries: &[Value], who| Case {
        id,
        number,
        service: scene.service(&format!("s{number}"), number, entries),
        answers: both(who),
    };
    let mixed: Vec<Value> = [entries(4, "VIP"), entries(5, "Proxy")].concat();
    let mut cases = vec![
        simple("IPM-01", 1, &entries(1, "VIP"), Pod),
        simple("IPM-02", 2, &entries_with(2, &json!({})), Pod),
        simple("IPM-03", 3, &entries(3, "Proxy"), Balancer),
        simple("IPM-05 the VIP entry", 4, &mixed, Pod),
        simple("IPM-06", 6, &[json!({"hostname": "lb.example"})], Balancer),
        simple("IPM-07", 7, &entries_with(7, &json!({"hostname": "lb.example", "ipMode": "VIP"})), Pod),
        simple("IPM-08 Router", 8, &entries(8, "Router"), Balancer),
        simple("IPM-08 proxy", 9, &entries(9, "proxy"), Balancer),
        simple(
            "IPM-13",
            14,
            &entries_with(14, &json!({"ipMode": "VIP", "ports": [{"port": 80, "protocol": "TCP", "error": "x"}]})),
            Pod,
        ),
    ];
    cases.push(Case {
        answers: both(Balancer),
        id: "IPM-05 the Proxy entry",
        number: 5,
        service: scene.service("s4", 4, &mixed),
    });
    cases.extend(family_cases(scene));
    cases.extend(port_cases());
    let class = scene.service("s15", 15, &entries(15, "VIP")).spec("loadBalancerClass", json!("example.com/lb"));
    cases.push(Case { id: "IPM-14 VIP", number: 15, service: class, answers: both(Pod) });
    let class = scene.service("s16", 16, &entries(16, "Proxy")).spec("loadBalancerClass", json!("example.com/lb"));
    cases.push(Case { id: "IPM-14 Proxy", number: 16, service: class, answers: both(Balancer) });
    cases
}

fn family_cases(scene: &Scene) -> [Case; 2] {
    let [v4, v6] = FAMILIES.map(|family| BALANCERS.host(family, 11));
    let dual = scene.service("s11", 11, &[ingress(v4, "VIP"), ingress(v6, "Proxy")]);
    let only_v4 = scene.service("s10", 10, &entries(10, "VIP")).cluster_ips(&[CLUSTER.host(V4, 10)]);
    [
        Case { id: "IPM-09", number: 10, service: only_v4, answers: vec![(V4, 80, Tcp, Pod), (V6, 80, Tcp, Balancer)] },
        Case { id: "IPM-10", number: 11, service: dual, answers: vec![(V4, 80, Tcp, Pod), (V6, 80, Tcp, Balancer)] },
    ]
}

fn port_cases() -> [Case; 3] {
    let one = |name, cluster, port, mode| {
        let service = Service::new(name).cluster_ips(&FAMILIES.map(|family| CLUSTER.host(family, cluster)));
        entries(12, mode).into_iter().fold(service.port("web", "TCP", port, TARGET), Service::ingress)
    };
    let shared = |who, other| {
        FAMILIES.iter().flat_map(|&f| [(f, 80, Tcp, who), (f, 443, Tcp, other), (f, 9999, Tcp, other)]).collect()
    };
    let ports = Service::new("s13")
        .cluster_ips(&FAMILIES.map(|family| CLUSTER.host(family, 13)))
        .port("web", "TCP", 80, TARGET)
        .port("dns", "UDP", 53, TARGET);
    let ports = entries(13, "VIP").into_iter().fold(ports, Service::ingress);
    let by_port = |f| {
        [(f, 80, Tcp, Pod), (f, 53, Udp, Pod), (f, 80, Udp, Balancer), (f, 8080, Tcp, Balancer), (f, 53, Tcp, Balancer)]
    };
    [
        Case {
            id: "IPM-11 the VIP Service",
            number: 12,
            service: one("s12", 12, 80, "VIP"),
            answers: shared(Pod, Balancer),
        },
        Case {
            id: "IPM-11 the Proxy Service",
            number: 12,
            service: one("s112", 112, 443, "Proxy"),
            answers: shared(Pod, Balancer),
        },
        Case { id: "IPM-12", number: 13, service: ports, answers: FAMILIES.into_iter().flat_map(by_port).collect() },
    ]
}

#[test]
fn ipm_01_to_14_every_entry_is_decided_by_itself() {
    let scene = Scene::start(Setup::new("ipmode"));
    let cases = cases(&scene);
    let mut objects = Vec::new();
    for Case { service, .. } in &cases {
        // Two cases may use one Service.
        if !objects.contains(&service.object()) {
            objects.push(service.object());
            objects.extend(scene.slices(service, &["a", "b"]));
        }
    }
    scene.apply("cases", &objects);
    let mut wrong = Vec::new();
    for Case { id, number, answers, .. } in &cases {
        for &(family, port, transport, who) in answers {
            let to = vip(family, *number, port);
            let outcome = match transport {
                Tcp => scene.dial().tcp(to),
                Udp => scene.dial().udp(to),
            };
            let holds = match who {
                Pod => matches!(outcome.who(), Some("a" | "b")),
                Balancer => outcome.who() == Some(BALANCER),
            };
            if !holds {
                wrong.push(format!("{id}: {to} {transport:?} is to be answered by the {who:?}: {outcome:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\nthe agent has\n{}", wrong.join("\n"), scene.agent.says(&["show", "frontends"]));
}

/// A SYN to an address.
fn is_syn(to: SocketAddr) -> impl Fn(&Packet) -> bool {
    move |packet| packet.carries == Carries::Syn && packet.destination == to
}

#[test]
fn ipm_01_no_packet_of_a_shortcut_leaves_the_node() {
    let scene = Scene::start(Setup::new("shortcut"));
    scene.publish("s1", 1, "VIP", &["a", "b"]);
    let capture = Capture::start(&scene.lab.external);
    for family in FAMILIES {
        let to = vip(family, 1, 80);
        scene.expect_all(to, &["a", "b"]);
        let Outcome::Answered(answer) = scene.dial().tcp(to) else { panic!("{to}") };
        assert_eq!(answer.client.ip(), scene.client_address(to.ip()), "the pod sees the client");
        let seen = capture.all_until_now(&scene.lab.pod("client").netns);
        let leaked: Vec<_> = seen.iter().filter(|packet| packet.destination.ip() == to.ip()).collect();
        assert!(leaked.is_empty(), "{leaked:?}");
    }
}

#[test]
fn ipm_03_04_30_proxy_leaves_the_node_as_it_came() {
    let scene = Scene::start(Setup::new("proxy"));
    scene.publish("s3", 3, "Proxy", &["a", "b"]);
    scene.publish("s30", 30, "Proxy", &[]);
    let capture = Capture::start(&scene.lab.external);
    let (client, node) = (&scene.lab.pod("client").netns, &scene.lab.node);
    for family in FAMILIES {
        for (id, number, from) in [("IPM-03", 3, client), ("IPM-04", 3, node), ("IPM-30", 30, client)] {
            let to = vip(family, number, 80);
            let Outcome::Answered(answer) = Dial::from(from).tcp(to) else { panic!("{id}: {to}") };
            assert_eq!(answer.who, BALANCER, "{id}: {to}");
            capture.wait_for(id, |packet| is_syn(to)(packet) && packet.source == answer.client);
            if from.name() == client.name() {
                assert_eq!(answer.client.ip(), scene.client_address(to.ip()), "{id}: the source is untouched");
            }
            assert_eq!(Dial::from(from).udp(to).who(), Some(BALANCER), "{id}: UDP to {to}");
        }
    }
}

#[test]
fn ipm_31_a_vip_without_endpoints_refuses() {
    let scene = Scene::start(Setup::new("refuse"));
    scene.publish("s31", 31, "VIP", &[]);
    let capture = Capture::start(&scene.lab.external);
    for family in FAMILIES {
        let to = vip(family, 31, 80);
        assert_eq!(scene.dial().tcp(to), Outcome::Refused, "TCP to {to}");
        assert_eq!(scene.dial().udp(to), Outcome::Refused, "UDP to {to}");
        let other_port = scene.dial().tcp(vip(family, 31, 443));
        assert_eq!(other_port.who(), Some(BALANCER), "another port is nobody's");
        let seen = capture.all_until_now(&scene.lab.pod("client").netns);
        assert!(!seen.iter().any(|packet| packet.destination == to), "a packet to {to} left the node");
    }
}

#[test]
fn ipm_24_proxy_leaves_cluster_address_and_node_port_to_kube_proxy() {
    let scene = Scene::start(Setup::new("others"));
    scene.publish("s24", 24, "Proxy", &["a"]);
    for (family, ip, addresses) in [(V4, "ip", "ipv4_addr"), (V6, "ip6", "ipv6_addr")] {
        let (cluster, backend) =
            (CLUSTER.host(family, 24), SocketAddr::new(scene.lab.pod_address("a", family), TARGET));
        let node = lb_tests::address::UPLINK.host(family, 2);
        scene.lab.node.nft(&format!(
            "table {ip} kube {{
                map services {{ type {addresses} . inet_service : {addresses} . inet_service
                    elements = {{ {cluster} . 80 : {} . {TARGET}, {node} . 30080 : {} . {TARGET} }}
                }}
                chain prerouting {{ type nat hook prerouting priority dstnat
                    meta l4proto tcp dnat to {ip} daddr . tcp dport map @services
                }}
            }}",
            backend.ip(),
            backend.ip()
        ));
        for to in [SocketAddr::new(cluster, 80), SocketAddr::new(node, 30080)] {
            let dial = scene.dial().unasked("netfilter translates what the programs leave alone");
            assert_eq!(dial.tcp(to).who(), Some("a"), "{to}");
        }
        assert_eq!(scene.dial().tcp(vip(family, 24, 80)).who(), Some(BALANCER));
    }
}
