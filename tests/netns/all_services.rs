//! `--services=all`: cluster addresses, externalIPs and node ports, dialled by pods and from the network.

use std::net::{IpAddr, SocketAddr};

use lb_tests::address::{
    BALANCERS, CLUSTER, FAMILIES, FAR, FAR_LINK, Family, REMOTE_PODS, UPLINK, add_address, flag, host_prefix, vip,
};
use lb_tests::dial::Outcome;
use lb_tests::lab::Setup;
use lb_tests::manifest::{NODE, OTHER_NODE, Service, ingress};
use lb_tests::scene::{BALANCER, Probe, Scene, empty_slice};
use serde_json::{Value, json};

pub const ALL: [&str; 2] = ["--services", "all"];
/// Added to a Service's number: its node port.
const NODE_PORTS: u16 = 30_000;

/// The pods that answer, here and on the other node.
#[derive(Clone, Copy, Debug)]
pub struct Endpoints {
    pub here: &'static [&'static str],
    pub elsewhere: bool,
}

pub const NOWHERE: Endpoints = Endpoints { here: &[], elsewhere: false };
pub const HERE: Endpoints = Endpoints { here: &["a"], elsewhere: false };
pub const ELSEWHERE: Endpoints = Endpoints { here: &[], elsewhere: true };

/// Writes a Service with a node port and an externalIP (both derived from the number), and a balancer entry in Proxy
/// mode.
pub fn publish(scene: &Scene, number: u8, policies: &Value, endpoints: Endpoints) {
    scene.apply(&name(number), &objects(scene, number, policies, endpoints));
}

fn name(number: u8) -> String {
    format!("s{number}")
}

/// The Service of [`publish`] and its slices.
pub fn objects(scene: &Scene, number: u8, policies: &Value, endpoints: Endpoints) -> Vec<Value> {
    let name = name(number);
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, number), "Proxy"));
    let node_port = NODE_PORTS + u16::from(number);
    let port = |name, protocol| json!({"name": name, "protocol": protocol, "port": 80, "nodePort": node_port});
    let mut service = scene
        .service(&name, number, &entries)
        .spec("ports", json!([port("web", "TCP"), port("dns", "UDP")]))
        .spec("externalIPs", json!(FAMILIES.map(|family| external(family, number))));
    for (field, value) in policies.as_object().expect("policies are an object") {
        service = service.spec(field, value.clone());
    }
    let slices = FAMILIES.map(|family| slice(scene, &service, family, endpoints)).to_vec();
    [vec![service.object()], slices].concat()
}

pub fn slice(scene: &Scene, service: &Service, family: Family, endpoints: Endpoints) -> Value {
    let here = endpoints.here.iter();
    let slice =
        here.fold(empty_slice(service, family), |slice, pod| slice.endpoint(scene.lab.pod_address(pod, family), NODE));
    let elsewhere = endpoints.elsewhere.then(|| REMOTE_PODS.host(family, 5));
    elsewhere.into_iter().fold(slice, |slice, remote| slice.endpoint(remote, OTHER_NODE)).object()
}

/// An address that no host has: without the shortcut a client gets no answer.
pub fn external(family: Family, number: u8) -> IpAddr {
    CLUSTER.host(family, number + 100)
}

pub fn cluster(family: Family, number: u8) -> SocketAddr {
    (CLUSTER.host(family, number), 80).into()
}

pub fn node_port(family: Family, number: u8) -> SocketAddr {
    (UPLINK.host(family, 2), NODE_PORTS + u16::from(number)).into()
}

/// Each kind of address of a Service, except the balancer's.
pub fn addresses(family: Family, number: u8) -> [SocketAddr; 3] {
    [cluster(family, number), (external(family, number), 80).into(), node_port(family, number)]
}

fn dial_from_far(scene: &Scene, family: Family) -> Probe<'_> {
    scene.dial_from_far().bound(FAR.host(family, 9))
}

/// CIP-03 as well: the network reaches cluster addresses that are routed to the node.
#[test]
fn cip_01_xip_01_np_01_pods_and_the_network_reach_every_kind_of_address() {
    let scene = Scene::with_flags(Setup::new("allserve"), &ALL);
    publish(&scene, 10, &json!({}), HERE);
    let log = scene.agent.log();
    assert!(
        log.contains("--services=all: endpoints on this node see their clients' own addresses"),
        "the log warns of what kube-proxy does: {log}"
    );
    for family in FAMILIES {
        for to in addresses(family, 10) {
            for (client, dial) in
                [(scene.client_address(to.ip()), scene.dial()), (FAR.host(family, 9), dial_from_far(&scene, family))]
            {
                let Outcome::Answered(answer) = dial.tcp(to) else { panic!("{to} is not answered to {client}") };
                assert_eq!(
                    (answer.who.as_str(), answer.client.ip()),
                    ("a", client),
                    "{to}: clients are seen as themselves"
                );
            }
            assert_eq!(scene.dial().udp(to).who(), Some("a"), "UDP to {to}");
        }
        // IPM-24: together with a Proxy entry, whose packets still leave the node.
        assert_eq!(scene.dial().tcp(vip(family, 10, 80)).who(), Some(BALANCER));
        // The node's own address is served on the node port only.
        let other_port = SocketAddr::new(UPLINK.host(family, 2), 80);
        assert_eq!(scene.dial().tcp(other_port), Outcome::Refused, "nobody listens on the node");
    }
}

/// `show` and `explain` name the rule for each address, also for addresses that have no mode.
#[test]
fn every_address_says_what_decided() {
    let scene = Scene::with_flags(Setup::new("alldecided"), &ALL);
    publish(&scene, 17, &json!({}), HERE);
    let rows = scene.agent.rows("frontends");
    for family in FAMILIES {
        let origins = ["ClusterIP", "ExternalIP", "NodePort"].into_iter().zip(addresses(family, 17));
        for ((origin, to), rule) in
            origins.zip(["internalTrafficPolicy", "externalTrafficPolicy", "externalTrafficPolicy"])
        {
            let is_row = |row: &&Value| row["address"] == to.to_string() && row["proto"] == "tcp";
            let row = rows.iter().find(is_row).unwrap_or_else(|| panic!("{to} in {rows:#?}"));
            assert_eq!(
                (&row["origin"], &row["mode"], &row["decided_by"]),
                (&origin.into(), &Value::Null, &rule.into())
            );
            let explanation = scene.agent.explains("pod", &format!("{to}/tcp"));
            assert_eq!(
                (&explanation["decision"], &explanation["frontend"]["decided_by"]),
                (&"balance".into(), &rule.into())
            );
        }
    }
}

#[test]
fn cip_09_a_pod_reaches_itself_at_its_cluster_address() {
    let scene = Scene::with_flags(Setup::new("allself"), &ALL);
    publish(&scene, 11, &json!({}), HERE);
    for family in FAMILIES {
        for to in addresses(family, 11) {
            let outcome = scene.dial_from("a").tcp(to);
            assert_eq!(outcome.who(), Some("a"), "{to}: {outcome:?}");
        }
    }
}

/// Neither policy affects the addresses of the other.
#[test]
fn cip_11_np_03_policies_hold_for_their_own_addresses() {
    let scene = Scene::with_flags(Setup::new("allpolicy"), &ALL);
    publish(&scene, 12, &json!({"internalTrafficPolicy": "Local"}), ELSEWHERE);
    publish(&scene, 13, &json!({"externalTrafficPolicy": "Local"}), ELSEWHERE);
    publish(&scene, 14, &json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"}), NOWHERE);
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(cluster(family, 12)), Outcome::Silence);
        for to in addresses(family, 12).into_iter().skip(1).chain(addresses(family, 13)) {
            let outcome = scene.dial().tcp(to);
            let Outcome::Answered(answer) = outcome else { panic!("{to}: {outcome:?}") };
            // The other node's pods are in the balancer's namespace. LB-02, LB-03: they see the pod's address under
            // either policy.
            let seen = (answer.who.as_str(), answer.client.ip());
            assert_eq!(seen, (BALANCER, scene.client_address(to.ip())), "{to}");
        }
        assert_eq!(dial_from_far(&scene, family).tcp(node_port(family, 13)), Outcome::Silence);
        for to in addresses(family, 14) {
            assert_eq!(scene.dial().tcp(to), Outcome::Refused, "{to} has no endpoint anywhere");
        }
        // NP-09.
        assert_eq!(dial_from_far(&scene, family).patient().tcp(node_port(family, 14)), Outcome::Refused);
    }
}

/// A pod of this node is recognised by its interface. A pod of another node is a client in the network, whatever its
/// address. LB-06 is kube-proxy's behaviour with a cluster CIDR, deliberately not implemented here. NP-02: an endpoint
/// here is reached from outside, and sees the client's address.
#[test]
fn lb_06_lb_07_pods_of_other_nodes_are_subject_to_the_external_policy() {
    let scene = Scene::with_flags(Setup::new("allforeign"), &ALL);
    let local = json!({"externalTrafficPolicy": "Local"});
    // With kube-proxy's rule half of the connections would go to an endpoint that has no route back.
    let both = Endpoints { here: &["a"], elsewhere: true };
    publish(&scene, 15, &local, both);
    publish(&scene, 16, &local, ELSEWHERE);
    for (number, endpoints) in [(19, both), (20, ELSEWHERE)] {
        let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, number), "VIP"));
        let service = scene.service(&format!("s{number}"), number, &entries);
        let service = service.spec("externalTrafficPolicy", json!("Local"));
        let slices = FAMILIES.map(|family| slice(&scene, &service, family, endpoints)).to_vec();
        scene.apply(&format!("s{number}"), &[vec![service.object()], slices].concat());
    }
    for family in FAMILIES {
        // One in the balancer's namespace; one behind the far link, whose packets to the balancer's address pass the
        // node.
        let (near, far) = (REMOTE_PODS.host(family, 7), REMOTE_PODS.host(family, 8));
        let (far_prefix, via) = (host_prefix(far), FAR_LINK.host(family, 1).to_string());
        scene.lab.far.ip(&[add_address(family, &far_prefix, "eth0")]);
        scene.lab.node.run("ip", &[flag(family), "route", "add", &far_prefix, "via", &via]);
        let from_near = || scene.dial_from_near().bound(near);
        let from_far = || scene.dial_from_far().bound(far);
        for (pod, dial, to) in [(near, from_near(), node_port(family, 15)), (far, from_far(), vip(family, 19, 80))] {
            for _ in 0..16 {
                let Outcome::Answered(answer) = dial.tcp(to) else { panic!("{pod} is not answered at {to}") };
                assert_eq!((answer.who.as_str(), answer.client.ip()), ("a", pod));
            }
        }
        for (dial, to) in [(from_near(), node_port(family, 16)), (from_far(), vip(family, 20, 80))] {
            assert_eq!(dial.tcp(to), Outcome::Silence, "{to}");
        }
    }
}

/// ETP-01, ETP-02: the policy of a live Service changes without a new Service. Established connections continue, and
/// new ones follow the current policy.
#[test]
fn etp_01_etp_02_the_external_policy_changes_on_a_live_service() {
    let scene = Scene::with_flags(Setup::new("alletp"), &ALL);
    let both = Endpoints { here: &["a"], elsewhere: true };
    let policy = |name: &str| json!({"externalTrafficPolicy": name});
    publish(&scene, 18, &policy("Local"), both);
    let mut held: Vec<_> = FAMILIES
        .iter()
        .flat_map(|family| {
            let to = node_port(*family, 18);
            [dial_from_far(&scene, *family), scene.dial()].map(|dial| dial.held(to))
        })
        .collect();
    for (round, (name, endpoints, outside)) in [
        ("Cluster", both, &[Some("a"), Some(BALANCER)][..]),
        ("Local", both, &[Some("a")]),
        ("Local", ELSEWHERE, &[None]),
        ("Cluster", ELSEWHERE, &[Some(BALANCER)]),
    ]
    .into_iter()
    .enumerate()
    {
        publish(&scene, 18, &policy(name), endpoints);
        for family in FAMILIES {
            let outcome = dial_from_far(&scene, family).tcp(node_port(family, 18));
            assert!(outside.contains(&outcome.who()), "round {round}: {outcome:?}");
        }
        for held in &mut held {
            held.echo(name).unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
    }
}

/// CVE-2020-8554: an old Service is edited to name the addresses of others, and gets none of them. Connections still
/// reach the owners, also after a restart and with every externalIP allowed. The warning names the Service that claims
/// the address.
#[test]
fn xip_05_an_old_service_takes_nothing_from_others() {
    let mut scene = Scene::with_flags(Setup::new("allsteal"), &ALL);
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, 21), "VIP"));
    let victim =
        scene.service("web", 21, &entries).spec("externalIPs", json!(FAMILIES.map(|family| external(family, 21))));
    scene.apply("web", &[vec![victim.object()], scene.slices(&victim, &["a"])].concat());
    let stolen =
        |family| [(CLUSTER.host(family, 21), 80).into(), vip(family, 21, 80), (external(family, 21), 80).into()];
    let addresses: Vec<IpAddr> = FAMILIES.into_iter().flat_map(stolen).map(|to: SocketAddr| to.ip()).collect();
    let old = scene.service("old", 22, &[]).metadata("creationTimestamp", json!("2001-01-01T00:00:00Z"));
    scene.apply("old", &[vec![old.object()], scene.slices(&old, &["b"])].concat());
    let old = old.spec("externalIPs", json!(addresses));
    let expect = |scene: &Scene, what: &str| {
        for to in FAMILIES.into_iter().flat_map(stolen) {
            assert_eq!(scene.dial().tcp(to).who(), Some("a"), "{what}: {to}");
            assert_eq!(
                dial_from_far(scene, lb_tests::address::family(to.ip())).tcp(to).who(),
                Some("a"),
                "{what}: {to}, far"
            );
        }
        let warnings = scene.agent.says(&["show", "warnings"]);
        assert!(warnings.contains("default/old") && !warnings.contains("Service default/web:"), "{what}: {warnings}");
    };
    for flags in [&ALL[..], &["--services", "all", "--external-ips", "any"]] {
        scene.agent.terminate();
        scene.agent.set_flags(flags);
        scene.agent.start();
        scene.apply("old", &[vec![old.object()], scene.slices(&old, &["b"])].concat());
        expect(&scene, &format!("{flags:?}"));
        scene.agent.crash();
        scene.agent.start();
        scene.apply("other", &[]);
        expect(&scene, &format!("{flags:?}, restarted"));
    }
    scene.agent.terminate();
    scene.agent.set_flags(&["--services", "all", "--external-ips", "off"]);
    scene.agent.start();
    scene.apply("other", &[]);
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp((external(family, 21), 80).into()), Outcome::Silence, "no externalIP is served");
        assert_eq!(scene.dial().tcp(vip(family, 21, 80)).who(), Some("a"));
    }
}

/// An externalIP that is a node's address is refused.
#[test]
fn an_external_ip_on_a_node_is_refused() {
    let scene = Scene::with_flags(Setup::new("allnodeip"), &ALL);
    let nodes = FAMILIES.map(|family| UPLINK.host(family, 2));
    let service = scene.service("old", 23, &[]).spec("externalIPs", json!(nodes));
    scene.apply("old", &[vec![service.object()], scene.slices(&service, &["b"])].concat());
    for family in FAMILIES {
        assert_eq!(
            scene.dial().tcp((UPLINK.host(family, 2), 80).into()),
            Outcome::Refused,
            "nobody listens on the node"
        );
        assert_eq!(scene.dial().tcp(cluster(family, 23)).who(), Some("b"));
    }
    assert!(scene.agent.says(&["show", "warnings"]).contains("is an address of a node"));
}

/// IPM-53: a Service whose balancer is Proxy has no claim on its address, however old it is. A Service that serves the
/// address does.
#[test]
fn ipm_53_a_proxy_entry_takes_no_address_from_who_serves_it() {
    let scene = Scene::with_flags(Setup::new("allproxyclaim"), &ALL);
    for (number, entry) in [(24, None), (25, Some("VIP"))] {
        let proxy = FAMILIES.map(|family| ingress(BALANCERS.host(family, number), "Proxy"));
        let old = scene.service(&format!("old{number}"), 40 + number, &proxy);
        let old = old.metadata("creationTimestamp", json!("2001-01-01T00:00:00Z"));
        scene.apply("old", &[vec![old.object()], scene.slices(&old, &["b"])].concat());
        for family in FAMILIES {
            assert_eq!(scene.dial().tcp(vip(family, number, 80)).who(), Some(BALANCER), "nobody else has it");
        }
        let entries: Vec<Value> = entry
            .iter()
            .flat_map(|mode| FAMILIES.map(|family| ingress(BALANCERS.host(family, number), mode)))
            .collect();
        let mut young = scene.service(&format!("young{number}"), 50 + number, &entries);
        if entry.is_none() {
            young = young.spec("externalIPs", json!(FAMILIES.map(|family| BALANCERS.host(family, number))));
        }
        scene.apply("young", &[vec![young.object()], scene.slices(&young, &["a"])].concat());
        for family in FAMILIES {
            assert_eq!(scene.dial().tcp(vip(family, number, 80)).who(), Some("a"), "{entry:?}");
        }
        let warnings = scene.agent.says(&["show", "warnings"]);
        assert!(!warnings.contains("already"), "{warnings}");
    }
}
