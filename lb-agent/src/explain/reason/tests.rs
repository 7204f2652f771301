//! Each reason in its words.

use lb_common::addr::Proto;

use super::*;
use crate::desired::{Named, Rivalry};

fn named(addr: [u8; 4], port: u16, proto: &str, reason: Option<&str>) -> Named {
    Named {
        address: addr.into(),
        port,
        service_port: port,
        port_name: "web".into(),
        proto: proto.into(),
        field: "spec.clusterIPs[]".into(),
        reason: reason.map(Into::into),
        kube_proxy: Rivalry::default(),
    }
}

fn told(named: Vec<Named>, warnings: &[&str]) -> String {
    let service = KnownService {
        name: "shop/web".into(),
        served_elsewhere: false,
        remarks: Vec::new(),
        named,
        warnings: warnings.iter().map(|text| (*text).to_owned()).collect(),
    };
    let known = Known { services: vec![service], ..Known::default() };
    let to = Destination { addr: [10, 96, 0, 1].into(), port: 80, proto: Proto::TCP };
    reasons(&to, Some(&known)).join("\n")
}

#[test]
fn the_nearest_reason_is_told() {
    let at = [10, 96, 0, 1];
    let says = |text: String, words: &str| assert!(text.contains(words), "{text:?} does not say {words:?}");
    says(
        told(vec![named(at, 80, "tcp", Some("kube-proxy serves it"))], &[]),
        "spec.clusterIPs[], but kube-proxy serves it",
    );
    says(told(vec![named(at, 80, "tcp", None)], &["other/web has it"]), "but: other/web has it");
    says(told(vec![named(at, 80, "tcp", None)], &[]), "a moment behind");
    says(told(vec![named(at, 80, "udp", None)], &[]), "port 80 there over udp only");
    says(told(vec![named(at, 443, "tcp", None)], &[]), "its ports are 443/tcp (web)");
    says(told(vec![named([10, 96, 0, 2], 443, "tcp", None)], &[]), "as its node port");
    let to = Destination { addr: at.into(), port: 80, proto: Proto::TCP };
    says(reasons(&to, Some(&Known::default())).join("\n"), "no Service that the agent knows names the address");
    says(reasons(&to, None).join("\n"), "only a running agent knows");
}
