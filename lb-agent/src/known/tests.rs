//! Who has an address, and who names it.

use super::*;
use crate::desired::tests::{policy, published, service, slice, world};
use crate::model::{Change, Node, Object};

fn node(name: &str, addr: [u8; 4]) -> Change {
    let node = Node { name: name.into(), zone: None, addresses: vec![addr.into()], is_leaving: false };
    Change::Apply { object: Object::Node(node), warnings: Vec::new() }
}

fn ask(client: Option<IpAddr>, target: Option<Target>, world: &World, warnings: &[&Warning]) -> Known {
    known(&Asked { client, target }, world, &policy(), warnings)
}

#[test]
fn an_address_is_a_nodes_or_an_endpoints() {
    let world = world([node("n2", [192, 0, 2, 2]), published("web", [1, 2, 3, 4]), slice("web", 2)]);
    let owner = |addr: [u8; 4]| ask(Some(addr.into()), None, &world, &[]).client;
    assert_eq!(owner([192, 0, 2, 2]), Some(Resident { node: Some("n2".into()), service: None }));
    assert_eq!(owner([10, 128, 0, 1]), Some(Resident { node: None, service: Some("t/web".into()) }));
    assert_eq!(owner([10, 128, 0, 2]), None);
}

#[test]
fn services_are_found_by_any_field_and_answers_are_bounded() {
    let mut by_port = service("port", [1, 2, 3, 5]);
    by_port.ports[0].node_port = Some(30_080);
    let mut by_external = service("external", [1, 2, 3, 6]);
    by_external.external_ips = vec![[1, 2, 3, 4].into()];
    let applied = |service| Change::Apply { object: Object::Service(service), warnings: Vec::new() };
    let many = (0..20).map(|number| published(&format!("many{number}"), [9, 9, 9, 9]));
    let changes = [node("n1", [192, 0, 2, 1]), published("web", [1, 2, 3, 4]), applied(by_port), applied(by_external)];
    let world = world(changes.into_iter().chain(many));
    let found = |addr: [u8; 4], port| {
        let known = ask(None, Some(Target::Address(addr.into(), port)), &world, &[]);
        (known.services.iter().map(|service| service.name.clone()).collect::<Vec<_>>(), known.more)
    };
    assert_eq!(found([1, 2, 3, 4], Some(80)), (vec!["t/external".into(), "t/web".into()], 0));
    assert_eq!(found([192, 0, 2, 1], Some(30_080)), (vec!["t/port".into()], 0));
    assert_eq!(found([192, 0, 2, 1], Some(30_081)), (vec![], 0));
    assert_eq!(found([192, 0, 2, 1], None), (vec![], 0));
    assert_eq!((found([9, 9, 9, 9], None).0.len(), found([9, 9, 9, 9], None).1), (8, 12));
    // Only its own warnings.
    let warning = |name: &str| {
        Warning::new(crate::model::WarningKind::Duplicate, "has it", "choose another")
            .of(format_args!("Service t/{name}"))
    };
    let (own, other) = (warning("web"), warning("we"));
    let known = ask(None, Some(Target::Service(ObjectName::new("t", "web"))), &world, &[&other, &own]);
    assert_eq!(known.services[0].warnings, [own.to_string()]);
    assert!(ask(None, Some(Target::Service(ObjectName::new("t", "no"))), &world, &[]).services.is_empty());
}
