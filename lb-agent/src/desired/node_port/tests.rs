//! Which addresses serve node ports.

use super::*;
use crate::desired::tests::policy;
use crate::desired::{HealthCheckPorts, Services};
use crate::source::written::world;

const NODE: &str = "
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: ExternalIP, address: 198.51.100.2}, {type: InternalIP, address: 192.0.2.2},
  {type: InternalIP, address: 192.0.2.3}, {type: ExternalIP, address: '2001:db8::2'}]}
";

/// The interfaces of the node, with an address that only kube-proxy in ipvs mode has.
const INTERFACES: [(&str, Holder); 8] = [
    ("127.0.0.1", Holder::Node),
    ("127.0.0.53", Holder::Node),
    ("192.0.2.2", Holder::Node),
    ("192.0.2.130", Holder::Node),
    ("203.0.113.9", Holder::Node),
    ("10.96.0.1", Holder::KubeProxy),
    ("::1", Holder::Node),
    ("2001:db8:1::9", Holder::Node),
];

fn settled(interfaces: &[(&str, Holder)]) -> World {
    let mut world = world(NODE);
    let addresses = interfaces.iter().map(|(ip, holder)| (ip.parse().expect("an address"), *holder));
    world.set_local_addresses(addresses.collect());
    world
}

fn serving(node_ports: NodePortAddresses) -> Policy {
    Policy { services: Services::All, node_ports, ..policy() }
}

fn within(prefixes: &[&str]) -> NodePortAddresses {
    let prefix = |text: &&str| {
        let (addr, length) = text.split_once('/').expect("a prefix");
        Prefix::new(addr.parse().expect("an address"), length.parse().expect("a length")).expect("a length")
    };
    NodePortAddresses::In(prefixes.iter().map(prefix).collect())
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// Where node ports are served, and where health checks are answered, in both families.
fn found(world: &World, node_ports: NodePortAddresses) -> [[Vec<String>; 2]; 2] {
    let policy = serving(node_ports);
    let found = NodePorts::of(world, &policy, &Here::of(world, &policy.node_name));
    [Family::ALL.map(|family| texts(found.served(family))), Family::ALL.map(|family| texts(found.listening(family)))]
}

#[test]
fn np_05_primary_addresses_are_those_of_the_node_object() {
    let lists = [vec!["192.0.2.2".to_owned()], vec!["2001:db8::2".to_owned()]];
    assert_eq!(found(&settled(&INTERFACES), NodePortAddresses::Primary), [lists.clone(), lists]);
    // HC-10: checks are answered also if the Node says nothing of its addresses.
    let nowhere = [vec!["0.0.0.0".to_owned()], vec!["::".to_owned()]];
    assert_eq!(found(&World::default(), NodePortAddresses::Primary), [[vec![], vec![]], nowhere]);
}

#[test]
fn np_06_no_setting_names_a_loopback_address() {
    for setting in [NodePortAddresses::All, within(&["0.0.0.0/0", "::/0"]), within(&["127.0.0.0/8", "::1/128"])] {
        let [served, _] = found(&settled(&INTERFACES), setting.clone());
        let is_loopback = |ip: &String| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        assert!(!served.iter().flatten().any(is_loopback), "{setting:?}: {served:?}");
    }
    let mut world = world(&NODE.replace("192.0.2.2}", "192.0.2.2}, {type: InternalIP, address: 127.0.0.1}"));
    world.set_local_addresses([([127, 0, 0, 1].into(), Holder::Node)].into());
    assert_eq!(found(&world, NodePortAddresses::All)[0], [vec![], Vec::<String>::new()]);
}

#[test]
fn all_are_those_of_interfaces_except_those_of_services() {
    let served = [vec!["192.0.2.2", "192.0.2.130", "203.0.113.9"], vec!["2001:db8:1::9"]];
    let served = served.map(|list| list.into_iter().map(String::from).collect::<Vec<_>>());
    // kube-proxy listens at the unspecified address then.
    let everywhere = [vec!["0.0.0.0".to_owned()], vec!["::".to_owned()]];
    for setting in [NodePortAddresses::All, within(&["0.0.0.0/0", "::/0"])] {
        assert_eq!(found(&settled(&INTERFACES), setting), [served.clone(), everywhere.clone()]);
    }
}

#[test]
fn np_04_np_11_prefixes_select_among_the_addresses_that_there_are() {
    let setting = within(&["192.0.2.0/25", "203.0.113.0/24", "2001:db8:1::/64"]);
    let lists = [vec!["192.0.2.2".to_owned(), "203.0.113.9".to_owned()], vec!["2001:db8:1::9".to_owned()]];
    assert_eq!(found(&settled(&INTERFACES), setting.clone()), [lists.clone(), lists]);
    let gone: Vec<_> = INTERFACES.into_iter().filter(|(ip, _)| *ip != "203.0.113.9").collect();
    assert_eq!(found(&settled(&gone), setting.clone())[0][0], ["192.0.2.2"]);
    let more = [&INTERFACES[..], &[("192.0.2.7", Holder::Node)]].concat();
    assert_eq!(found(&settled(&more), setting)[0][0], ["192.0.2.2", "192.0.2.7", "203.0.113.9"]);
}

/// `NewNodePortAddresses`: a list says nothing about a family of which it has no prefix.
#[test]
fn a_family_without_a_prefix_is_served_everywhere_and_told() {
    let setting = within(&["192.0.2.0/25"]);
    let [served, listening] = found(&settled(&INTERFACES), setting.clone());
    assert_eq!((&served[1][..], &listening[1][..]), (&["2001:db8:1::9".to_owned()][..], &["::".to_owned()][..]));
    let told = |world: &World| {
        let warnings = warnings(world, &serving(setting.clone()));
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        told(&settled(&INTERFACES)),
        [
            "lb-agent: --nodeport-addresses: lists no IPv6 prefix, so IPv6 node ports are served at all IPv6 addresses of this node, \
          as by kube-proxy: 2001:db8:1::9; add the IPv6 prefixes that are to serve node ports"
        ]
    );
    assert_eq!(told(&settled(&INTERFACES[..7])), [""; 0], "a node of one family");
}

#[test]
fn a_prefix_without_an_address_is_told_with_those_that_there_are() {
    let policy = serving(within(&["192.0.2.0/25", "10.96.0.0/16", "fe80::/10"]));
    let told =
        |world: &World, policy: &Policy| warnings(world, policy).iter().map(ToString::to_string).collect::<Vec<_>>();
    let remedy = "name prefixes of these addresses, or write all or primary";
    let expected = [
        format!(
            "lb-agent: --nodeport-addresses: no address of this node is in 10.96.0.0/16; the node has 192.0.2.2, 192.0.2.130, \
             203.0.113.9; {remedy}"
        ),
        format!(
            "lb-agent: --nodeport-addresses: no address of this node is in fe80::/10; the node has 2001:db8:1::9; {remedy}"
        ),
    ];
    assert_eq!(told(&settled(&INTERFACES), &policy), expected);
    let nothing = told(&settled(&[]), &policy);
    assert!(nothing.len() == 3 && nothing[0].contains("has no IPv4 address but loopback"), "{nothing:?}");
    let many: Vec<String> = (1..=11).map(|last| format!("203.0.113.{last}")).collect();
    let many: Vec<_> = many.iter().map(|ip| (ip.as_str(), Holder::Node)).collect();
    let many = told(&settled(&many), &policy);
    assert!(many[0].contains("203.0.113.8 and 3 more;"), "{many:?}");
    // Without an effect, there is no warning.
    let beside = Policy { services: Services::LoadBalancers, ..policy.clone() };
    assert_eq!(told(&settled(&INTERFACES), &beside), [""; 0]);
    let checks = Policy { health_checks: HealthCheckPorts::Served, ..beside };
    assert_eq!(told(&settled(&INTERFACES), &checks).len(), 2);
}
