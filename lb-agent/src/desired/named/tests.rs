//! Each reason why a Service, or one of its addresses, is not served, and what kube-proxy does there.

use super::*;
use crate::desired::tests::{policy, service, slice, world};
use crate::desired::{ExternalIps, Policy};
use crate::model::{Change, IpMode, Node, Object, Prefix, TrafficPolicy};

const VIP: [u8; 4] = [1, 2, 3, 4];

fn node() -> Change {
    let node = Node { name: "n1".into(), zone: None, addresses: vec![[192, 0, 2, 1].into()], is_leaving: false };
    Change::Apply { object: Object::Node(node), warnings: Vec::new() }
}

fn web() -> Service {
    let mut web = service("web", VIP);
    web.ports[0].node_port = Some(30_080);
    web.external_ips = vec![[8, 8, 8, 8].into()];
    web
}

fn rows(service: &Service, endpoints: u32, policy: &Policy) -> Vec<Named> {
    let applied = Change::Apply { object: Object::Service(service.clone()), warnings: Vec::new() };
    named(service, &world([node(), applied, slice("web", endpoints)]), policy)
}

fn at(rows: &[Named], field: &str) -> Named {
    rows.iter().find(|row| row.field.starts_with(field)).unwrap_or_else(|| panic!("no {field} in {rows:?}")).clone()
}

const FIELDS: [&str; 4] = ["status", "spec.externalIPs", "spec.clusterIPs", "spec.ports"];

fn served(rows: &[Named]) -> [bool; 4] {
    FIELDS.map(|field| at(rows, field).reason.is_none())
}

#[test]
fn each_address_has_its_reason() {
    let (lb, all) = (policy(), Policy { services: Services::All, ..policy() });
    assert_eq!(served(&rows(&web(), 1, &lb)), [true, false, false, false]);
    assert_eq!(served(&rows(&web(), 1, &all)), [true; 4]);
    assert_eq!(at(&rows(&web(), 1, &all), "spec.ports").port, 30_080);
    let off = Policy { external_ips: ExternalIps::Off, ..all.clone() };
    assert!(
        at(&rows(&web(), 1, &off), "spec.externalIPs").reason.is_some_and(|why| why.contains("--external-ips=off"))
    );
    let taken = Policy { cluster_ranges: vec![Prefix::new(VIP.into(), 24).expect("a prefix")], ..lb.clone() };
    assert!(at(&rows(&web(), 1, &taken), "status").reason.is_some_and(|why| why.contains("--cluster-cidrs")));
    for (change, id) in [
        ((|web: &mut Service| web.served_elsewhere = true) as fn(&mut Service), "FLT-01"),
        (|web| web.headless = true, "FLT-03"),
        (|web| web.service_type = ServiceType::ExternalName, "FLT-05"),
        (|web| web.cluster_ips = vec!["fd00::1".parse().expect("an address")], "IPM-09"),
    ] {
        let mut web = web();
        change(&mut web);
        let row = at(&rows(&web, 1, &all), "status");
        assert!(row.reason.as_deref().is_some_and(|why| why.contains(id)), "{id}: {row:?}");
        assert_eq!(row.kube_proxy, Rivalry::default(), "{id}");
    }
}

#[test]
fn a_service_without_a_balancers_address_says_so() {
    let mut web = web();
    let says = |web: &Service| remarks(web, &policy()).join("; ");
    assert_eq!(says(&web), "");
    web.ingress.clear();
    assert!(says(&web).contains("has not given it an address yet"), "{}", says(&web));
    web.host_names = HostNames::Present;
    assert!(says(&web).contains("IPM-06"), "{}", says(&web));
    (web.host_names, web.service_type) = (HostNames::Absent, ServiceType::ClusterIP);
    assert!(says(&web).contains("--services=lb"), "{}", says(&web));
    web.headless = true;
    assert!(says(&web).contains("FLT-03"), "{}", says(&web));
}

#[test]
fn kube_proxy_knows_the_status_and_no_annotation() {
    let acts = |web: &Service, endpoints| {
        let rows = rows(web, endpoints, &policy());
        FIELDS.map(|field| (at(&rows, field).kube_proxy.inside, at(&rows, field).kube_proxy.outside))
    };
    assert_eq!(acts(&web(), 1), [(Act::Translate, Act::Translate); 4]);
    assert_eq!(acts(&web(), 0), [(Act::Refuse, Act::Refuse); 4]);
    let mut local = web();
    local.external_policy = TrafficPolicy::Local;
    let outside = (Act::Translate, Act::Drop);
    assert_eq!(acts(&local, 1), [outside, outside, (Act::Translate, Act::Translate), outside]);
    local.internal_policy = TrafficPolicy::Local;
    assert_eq!(acts(&local, 1)[2], (Act::Drop, Act::Drop));
    let mut proxy = web();
    proxy.ingress[0].ip_mode = Some(IpMode::Proxy);
    proxy.source_ranges = vec![SourceRange::Prefix(Prefix::new(VIP.into(), 8).expect("a prefix"))];
    assert_eq!(at(&rows(&proxy, 1, &policy()), "status").kube_proxy, Rivalry::default(), "IPM-30, IPM-41");
    // IPM-53: an externalIP is served whatever the entry says.
    proxy.external_ips = vec![VIP.into()];
    assert_eq!(acts(&proxy, 0)[0], (Act::Refuse, Act::Refuse));
    proxy.ingress[0].ip_mode = None;
    proxy.external_ips = vec![[8, 8, 8, 8].into()];
    assert_eq!(at(&rows(&proxy, 1, &policy()), "status").kube_proxy.ranges, ["1.0.0.0/8"]);
    assert!(at(&rows(&proxy, 0, &policy()), "status").kube_proxy.ranges.is_empty(), "it refuses first");
}
