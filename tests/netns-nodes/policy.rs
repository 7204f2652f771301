//! externalTrafficPolicy is changed on a live Service, with connections open by every way.

use std::thread;

use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::deadline::until_true;
use lb_tests::dial::{Asking, Dial, Held, Outcome};
use lb_tests::http;
use lb_tests::nodes::{Cluster, client, node_port};

use crate::delivery::ALL;
use crate::publish::{CHECKS, NODE_PORTS, local, publish, service};

/// ETP-01 and ETP-02: the Service is not made anew, connections stay, new ones obey, and those of the node with the
/// endpoint never fail. Not one packet leaves a node untranslated meanwhile.
#[test]
fn etp_01_etp_02_a_live_service_changes_its_policy() {
    let cluster = Cluster::start("etplive", &ALL);
    let cluster_wide = service(1, "VIP");
    publish(&cluster, &cluster_wide, &["a1"]);
    let watch = cluster.watch();
    let mut held: Vec<Held> = FAMILIES.into_iter().flat_map(|family| hold(&cluster, family)).collect();
    let flows: Vec<Flow> = FAMILIES.into_iter().flat_map(|family| ask(&cluster, family)).collect();
    ask_all(&flows, "at first");
    let steady: Vec<_> =
        FAMILIES.map(|family| cluster.dial_by(1, family).repeatedly(vip(family, 1, 80))).into_iter().collect();
    for (change, round) in ["Local", "Cluster", "Local", "Cluster"].into_iter().enumerate() {
        let service = if round == "Local" { local(1, "VIP") } else { cluster_wide.clone() };
        publish(&cluster, &service, &["a1"]);
        until_true("the checks follow the policy", || checks(&cluster) == wanted_checks(round));
        for family in FAMILIES {
            let addresses = [vip(family, 1, 80), node_port(2, family, NODE_PORTS + 1)];
            for to in addresses {
                let outcome = cluster.dial_by(2, family).tcp(to);
                match round {
                    "Local" => assert_eq!(outcome, Outcome::Silence, "{to}: node 2 has no endpoint"),
                    _ => assert_eq!(outcome.who(), Some("a1"), "{to}: node 2 forwards: {outcome:?}"),
                }
            }
            let Outcome::Answered(answer) = cluster.dial_by(1, family).tcp(vip(family, 1, 80)) else {
                panic!("node 1 has the endpoint")
            };
            assert_eq!(answer.client.ip(), client(1, family), "node 1 keeps the client's address");
            let pod = Dial::from(&cluster.node(2).pod("c").netns);
            assert_eq!(pod.tcp(vip(family, 1, 80)).who(), Some("a1"), "a pod of node 2");
        }
        for held in &mut held {
            held.transfer(64 * 1024).unwrap_or_else(|error| panic!("{round}: {:?}: {error}", held.answer));
        }
        ask_all(&flows, &format!("{round}, change {change}"));
    }
    for dialler in steady {
        let tally = dialler.stop();
        assert!(tally.failures.is_empty() && tally.answers() > 20, "{tally:?}");
    }
    watch.assert_clean(&cluster.outside, &Cluster::markers());
}

/// Connections by each node from outside, at both addresses, and of each node's pods and processes.
fn hold(cluster: &Cluster, family: Family) -> Vec<Held> {
    let (vip, mut held) = (vip(family, 1, 80), Vec::new());
    for node in cluster.nodes() {
        let outside = cluster.dial_by(node.number, family);
        held.push(outside.held(vip));
        held.push(outside.held(node_port(node.number, family, NODE_PORTS + 1)));
        held.push(Dial::from(&node.pod("c").netns).held(vip));
        held.push(Dial::from(&node.netns).held(vip));
    }
    held
}

/// A UDP flow.
struct Flow {
    name: String,
    asking: Asking,
}

/// The same by UDP.
fn ask(cluster: &Cluster, family: Family) -> Vec<Flow> {
    let (vip, mut flows) = (vip(family, 1, 80), Vec::new());
    for node in cluster.nodes() {
        let (pod, own) = (Dial::from(&node.pod("c").netns), Dial::from(&node.netns));
        let outside = cluster.dial_by(node.number, family);
        let port = node_port(node.number, family, NODE_PORTS + 1);
        for (who, dial, to) in
            [("outside", outside, vip), ("outside", outside, port), ("pod", pod, vip), ("node", own, vip)]
        {
            let name = format!("{who} by {} -> {to}/udp", node.name());
            flows.push(Flow { name, asking: dial.asking(to) });
        }
    }
    flows
}

/// Asks all flows at once: silence takes its time.
fn ask_all(flows: &[Flow], words: &str) {
    thread::scope(|scope| {
        for Flow { name, asking } in flows {
            scope.spawn(move || {
                let outcome = asking.ask(words);
                assert_eq!(outcome.who(), Some("a1"), "{words}: {name}: {outcome:?}");
            });
        }
    });
}

/// The answers to the balancer's checks, by node.
fn checks(cluster: &Cluster) -> Vec<Option<u16>> {
    let status = |number, family| {
        http::get(&cluster.cloud, node_port(number, family, CHECKS + 1), "/").map(|(status, _)| status)
    };
    FAMILIES.into_iter().flat_map(|family| [1, 2, 3].map(|number| status(number, family))).collect()
}

fn wanted_checks(policy: &str) -> Vec<Option<u16>> {
    let each = if policy == "Local" { [Some(200), Some(503), Some(503)] } else { [None; 3] };
    [each, each].concat()
}
