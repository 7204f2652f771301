//! The warning that no Node and no endpoint has the name of this node.

use std::collections::BTreeSet;

use super::policy::Policy;
use crate::model::{Warning, WarningKind, World};

/// Number of names that the warning lists.
const NAMES_MAX: usize = 5;

/// A warning if Nodes or endpoints have names, but none has ours. No endpoint then counts as being on this node.
pub fn unknown_node(world: &World, policy: &Policy) -> Option<Warning> {
    let ours = policy.node_name.as_str();
    if world.node(ours).is_some() || names_of_endpoints(world).any(|name| name == ours) {
        return None;
    }
    let names: BTreeSet<&str> = world.nodes().map(|node| &*node.name).chain(names_of_endpoints(world)).collect();
    if names.is_empty() {
        return None;
    }
    let problem = format!(
        "no Node and no endpoint has this name, so no endpoint counts as local and traffic policy Local drops \
         everything; there are {}",
        listed(names, ours)
    );
    let warning = Warning::new(WarningKind::Hazard, problem, "set --node-name (or $NODE_NAME) to the name of the Node");
    Some(warning.of(format_args!("Node {ours}")).at("--node-name"))
}

fn names_of_endpoints(world: &World) -> impl Iterator<Item = &str> {
    world.live_slices().flat_map(|slice| &slice.endpoints).filter_map(|endpoint| endpoint.node.as_deref())
}

/// Lists the likely names first: those that differ from ours only in case or in the domain.
fn listed(names: BTreeSet<&str>, ours: &str) -> String {
    let host = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let count = names.len();
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_by_key(|name| host(name) != host(ours));
    names.truncate(NAMES_MAX);
    let more = count.saturating_sub(NAMES_MAX);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::tests::policy;
    use crate::model::{Change, Node, Object};
    use crate::source::written::world;

    const SLICE: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 80}]
endpoints:
";

    fn told(world: &World) -> Option<String> {
        unknown_node(world, &policy()).map(|warning| warning.to_string())
    }

    fn slice(nodes: &[&str]) -> String {
        let endpoint = |node: &&str| format!("- {{addresses: [10.0.0.1], nodeName: {node}}}\n");
        SLICE.to_owned() + &nodes.iter().map(endpoint).collect::<String>()
    }

    #[test]
    fn a_name_that_nobody_has_is_told_with_those_that_exist() {
        let text = told(&world(&slice(&["z", "b", "c", "d", "e", "n1.example.com"]))).expect("n1 is none of them");
        assert!(text.starts_with("Node n1: --node-name: no Node and no endpoint"), "{text}");
        assert!(text.contains("there are n1.example.com, b, c, d, e and 1 more;"), "{text}");
    }

    #[test]
    fn a_name_that_an_endpoint_or_a_node_has_is_not() {
        assert_eq!(told(&world(&slice(&["z", "n1"]))), None);
        let mut world = world(&slice(&["z"]));
        assert!(told(&world).is_some());
        let node =
            |name: &str| Object::Node(Node { name: name.into(), zone: None, addresses: Vec::new(), is_leaving: false });
        world.apply(Change::Apply { object: node("y"), warnings: Vec::new() });
        assert!(told(&world).is_some_and(|text| text.contains("there are y, z;")));
        world.apply(Change::Apply { object: node("n1"), warnings: Vec::new() });
        assert_eq!(told(&world), None);
        world.apply(Change::Remove(node("n1").reference()));
        assert!(told(&world).is_some());
    }

    #[test]
    fn where_nothing_has_a_name_nothing_is_told() {
        assert_eq!(told(&World::default()), None);
        let nameless = SLICE.to_owned() + "- {addresses: [10.0.0.1]}\n";
        assert_eq!(told(&world(&nameless)), None);
    }
}
