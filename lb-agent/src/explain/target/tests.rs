//! Services as destinations.

use super::*;
use crate::desired::{Named, Rivalry};

fn named(address: &str, port: u16, service_port: u16, port_name: &str, proto: &str) -> Named {
    Named {
        address: address.parse().expect("an address"),
        port,
        service_port,
        port_name: port_name.into(),
        proto: proto.into(),
        field: "spec.clusterIPs[]".into(),
        reason: None,
        kube_proxy: Rivalry::default(),
    }
}

fn known() -> Known {
    let named = vec![
        named("192.0.2.10", 80, 80, "web", "tcp"),
        named("2001:db8::10", 80, 80, "web", "tcp"),
        named("192.0.2.2", 30_080, 80, "web", "tcp"),
        named("192.0.2.10", 53, 53, "dns", "udp"),
    ];
    let service = KnownService {
        name: "shop/web".into(),
        served_elsewhere: false,
        remarks: Vec::new(),
        named,
        warnings: Vec::new(),
    };
    Known { services: vec![service], ..Known::default() }
}

fn found(to: &str, client: Option<&str>, known: Option<&Known>) -> Result<Vec<String>, String> {
    let client = client.map(|client| client.parse().expect("an address"));
    let dialled = to.parse().expect("a destination");
    match of_one_family(&dialled, client).and_then(|()| targets(&dialled, client, known)) {
        Ok(targets) => Ok(targets.to.iter().map(ToString::to_string).collect()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn a_service_is_each_of_its_addresses() {
    let known = known();
    for (to, client, expected) in [
        ("shop/web:web", None, &["192.0.2.10:80/tcp", "[2001:db8::10]:80/tcp", "192.0.2.2:30080/tcp"][..]),
        ("shop/web:80", Some("10.0.0.1"), &["192.0.2.10:80/tcp", "192.0.2.2:30080/tcp"]),
        ("shop/web:30080", None, &["192.0.2.2:30080/tcp"]),
        ("shop/web", Some("fd00::1"), &["[2001:db8::10]:80/tcp"]),
        ("shop/web/udp", None, &["192.0.2.10:53/udp"]),
    ] {
        assert_eq!(found(to, client, Some(&known)).as_deref(), Ok(&expected.map_strings()[..]), "{to} from {client:?}");
    }
    let error = found("shop/web:81", None, Some(&known)).expect_err("no such port");
    assert!(error.contains("80/tcp (web), 53/udp (dns)"), "{error}");
    let error = found("shop/web", None, None).expect_err("no agent");
    assert!(error.contains("only a running agent"), "{error}");
    let error = found("shop/other", None, Some(&Known::default())).expect_err("no such Service");
    assert!(error.contains("no Service shop/other"), "{error}");
    assert!(found("192.0.2.1:80/tcp", Some("fd00::1"), None).is_err(), "the families differ");
}

#[test]
fn a_service_without_addresses_says_why() {
    let mut known = known();
    known.services[0].named.clear();
    known.services[0].remarks.push("it is headless".into());
    let targets = targets(&"shop/web".parse().expect("a Service"), None, Some(&known)).expect("an answer");
    let (to, reason) = targets.nothing.expect("nothing to dial");
    assert_eq!(to, "shop/web");
    assert!(reason.ends_with("it is headless"), "{reason}");
}

trait Strings {
    fn map_strings(&self) -> Vec<String>;
}

impl Strings for &[&str] {
    fn map_strings(&self) -> Vec<String> {
        self.iter().map(|text| (*text).to_owned()).collect()
    }
}
