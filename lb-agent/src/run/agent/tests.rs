//! The agent with a dataplane in memory: when it attaches, when it is ready, and how it survives failures.

mod drivers;
mod health;
mod log;
mod outlook;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_common::table::Mode;
use lb_common::way::SnatPorts;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::config::{Source, Times};
use crate::dataplane::fake::{FakeDataplane, FakeLinks, Faults};
use crate::dataplane::links::{Ahead, Attachment, Class, LinkHeader};
use crate::dataplane::probe::{AttachedProgram, Neighbour};
use crate::dataplane::{AttachBy, BpfLog, Monitor, Repair, Settings, Sizes, SocketLb, Timeouts, Xdp};
use crate::desired::{
    ExternalIps, Forwarding, HeadersFrom, HealthCheckPorts, NodePortAddresses, Policy, Selection, Services,
    TableLimits, VendorAnnotations,
};
use crate::guard::Guarding;
use crate::interfaces::{BridgeNetfilter, Framing, Globs, InterfaceAddress, Kind as LinkKind, LinkFacts};
use crate::metrics::{Place, Published};
use crate::model::{Kind, Object, WarningKind};
use crate::run::{Inputs, Own, Signals, turn_until_stopped};
use crate::source::claim::Claim;
use crate::source::connection::Connections;
use crate::source::progress::Progress;
use crate::status::TURN_INTERVAL;

fn config() -> Config {
    Config {
        source: Source::Directory { path: "/nowhere".into(), claim: Claim::Unlabelled },
        policy: Policy {
            node_name: "n1".into(),
            services: Services::LoadBalancers,
            default_ip_mode: Mode::VIP,
            proxy_annotations: Vec::new(),
            vendor_annotations: VendorAnnotations::Ignored,
            headers_from: HeadersFrom::Annotation,
            external_ips: ExternalIps::Guarded,
            cluster_ranges: Vec::new(),
            selection: Selection::default(),
            health_checks: HealthCheckPorts::Left,
            node_ports: NodePortAddresses::Primary,
            forwarding: Forwarding::Snat,
        },
        limits: TableLimits::UNLIMITED,
        interfaces: InterfaceRules { workload: Globs::Auto, uplink: Globs::None },
        dataplane: Settings {
            pin_path: "/nowhere".into(),
            sizes: Sizes::default(),
            timeouts: Timeouts::default(),
            rejects_per_sec: 1,
            repair: Repair::Off,
            monitor: Monitor::default(),
            bpf_log: BpfLog::Off,
            sockets: SocketLb::Off,
            attach: AttachBy::Auto,
            xdp: Xdp::Off,
            snat_ports: Some(SnatPorts::DEFAULT),
        },
        times: Times {
            apply_interval: Duration::from_millis(50),
            audit_interval: Duration::from_mins(5),
            gc_interval: Duration::from_mins(10),
            keep_unclaimed: Duration::from_hours(1),
        },
        guard: Guarding::On,
        http: ([127, 0, 0, 1], 0).into(),
        metrics: Published { place: Place::BesideProbes, service_ports_max: None },
        healthz: None,
    }
}

fn agent(node: FakeDataplane) -> (Agent<FakeDataplane>, Instant) {
    agent_with(node, &config())
}

fn agent_with(node: FakeDataplane, config: &Config) -> (Agent<FakeDataplane>, Instant) {
    let now = Instant::now();
    let metrics = Metrics::register(&mut Registry::default());
    let mut agent = Agent::adopt(node, config, metrics, now).unwrap_or_else(|error| panic!("{error}"));
    agent.bridge_netfilter = BridgeNetfilter::default;
    (agent, now)
}

/// An agent with empty complete lists from both the source and netlink.
fn started(node: FakeDataplane) -> (Agent<FakeDataplane>, Instant) {
    let (mut agent, now) = agent(node);
    agent.link_events(everything(&[]), now);
    agent.change(vec![Change::Listed], now);
    assert!(!agent.turn(now));
    (agent, now)
}

fn everything(links: &[u32]) -> Vec<Event> {
    let links = links.iter().map(|ifindex| LinkFacts::pod_veth(*ifindex, &format!("veth{ifindex}"))).collect();
    vec![Event::Everything { links, addresses: Vec::new(), default_routes: BTreeSet::new() }]
}

fn pod(ifindex: u32) -> Event {
    Event::Link(LinkFacts::pod_veth(ifindex, &format!("veth{ifindex}")))
}

fn node(address: &str) -> Change {
    let addresses = vec![address.parse().expect("an address")];
    let node = crate::model::Node { name: "n1".into(), zone: None, addresses, is_leaving: false };
    Change::Apply { object: Object::Node(node), warnings: Vec::new() }
}

fn indexes(agent: &Agent<FakeDataplane>) -> Vec<u32> {
    agent.dataplane.links.attached.iter().map(|(ifindex, ..)| *ifindex).collect()
}

/// Turns until nothing is due for an hour, and returns that time. Audits are left out.
fn settle(agent: &mut Agent<FakeDataplane>, mut now: Instant) -> Instant {
    for _ in 0..100 {
        now = now.max(agent.next_turn());
        if agent.turn(now) {
            return now;
        }
    }
    panic!("always something to do");
}

#[test]
fn attaches_after_the_first_full_state() {
    let (mut agent, now) = agent(FakeDataplane::default());
    agent.link_events(everything(&[2, 3]), now);
    assert!(!agent.turn(now));
    assert!(indexes(&agent).is_empty());
    assert!(agent.status(now).ready().is_err());
    agent.change(vec![Change::Listed], now);
    assert!(!agent.turn(now));
    assert_eq!(indexes(&agent), [2, 3]);
    assert_eq!(agent.status(now).ready(), Ok(()));
}

#[test]
fn ready_waits_for_the_interfaces() {
    let (mut agent, now) = agent(FakeDataplane::default());
    agent.change(vec![Change::Listed], now);
    assert!(!agent.turn(now));
    assert!(agent.status(now).ready().is_err_and(|reason| reason.contains("interfaces")));
    agent.link_events(everything(&[2]), now);
    assert_eq!((indexes(&agent), agent.status(now).ready()), (vec![2], Ok(())));
}

/// NP-11 as well. A restart leaves node ports as they are until it knows the addresses of the interfaces.
#[test]
fn node_ports_wait_for_the_addresses_of_interfaces() {
    let mut config = config();
    config.policy.services = Services::All;
    config.policy.node_ports = NodePortAddresses::All;
    let event = |last: u8| Event::Address { ifindex: 2, addr: InterfaceAddress::new([192, 0, 2, last], 24) };
    let at = |agent: &Agent<FakeDataplane>| {
        let rows = &agent.dataplane.tables.v4.frontends;
        rows.keys().filter(|key| key.port == 30_080).map(|key| key.addr[3]).collect::<Vec<_>>()
    };
    let Change::Apply { object: Object::Service(mut service), .. } = service("shop", "192.0.2.10") else {
        panic!("a Service");
    };
    service.ports[0].node_port = Some(30_080);
    let changes =
        || vec![Change::Apply { object: Object::Service(service.clone()), warnings: Vec::new() }, Change::Listed];
    let (mut agent, now) = agent_with(FakeDataplane::default(), &config);
    agent.link_events([everything(&[2]), vec![event(1)]].concat(), now);
    agent.change(changes(), now);
    let now = settle(&mut agent, now);
    assert_eq!((at(&agent), agent.status(now).ready()), (vec![1], Ok(())));

    let node = std::mem::take(&mut agent.dataplane);
    let (mut agent, now) = agent_with(node, &config);
    agent.change(changes(), now);
    assert!(!agent.turn(now));
    assert!(agent.status(now).ready().is_err_and(|reason| reason.contains("interfaces")));
    let tables = agent.dataplane.tables.clone();
    assert_eq!(at(&agent), [1]);
    agent.link_events([everything(&[2]), vec![event(1)]].concat(), now);
    let now = settle(&mut agent, now);
    assert_eq!((&agent.dataplane.tables, agent.status(now).ready()), (&tables, Ok(())));

    agent.link_events(vec![event(7)], now);
    let now = settle(&mut agent, now);
    assert_eq!(at(&agent), [1, 7]);
    // No flow uses the frontend of the removed address, so the next walk deletes it.
    agent.link_events(vec![Event::AddressGone { ifindex: 2, addr: InterfaceAddress::new([192, 0, 2, 1], 24) }], now);
    settle(&mut agent, now);
    assert_eq!(at(&agent), [7]);
}

fn warnings(agent: &Agent<FakeDataplane>, now: Instant) -> Vec<String> {
    agent.status(now).warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_is_programmed_before_the_list_is_complete() {
    let (mut agent, now) = agent(FakeDataplane::default());
    agent.change(vec![node("192.0.2.1")], now);
    assert!(!agent.turn(now));
    assert!(agent.status(now).ready().is_err_and(|reason| reason.contains("first list")));
    assert_eq!(agent.dataplane.links.activations, 0);
}

#[test]
fn links_come_and_go_without_an_apply() {
    let (mut agent, now) = started(FakeDataplane::default());
    agent.link_events(vec![pod(5)], now);
    assert_eq!(indexes(&agent), [5]);
    agent.link_events(vec![Event::LinkGone(5)], now);
    assert!(indexes(&agent).is_empty());
    // Removed, and the index reused, within one batch: attached again.
    agent.link_events(vec![pod(6)], now);
    agent.dataplane.links.calls.clear();
    agent.link_events(vec![Event::LinkGone(6), pod(6)], now);
    assert_eq!(agent.dataplane.links.calls, ["detach 6", "attach 6"]);
}

#[test]
fn a_relist_looks_after_every_interface() {
    let (mut agent, now) = agent(FakeDataplane::default());
    agent.link_events(everything(&[2, 3]), now);
    agent.change(vec![Change::Listed], now);
    assert!(!agent.turn(now));
    agent.dataplane.links.calls.clear();
    agent.link_events(everything(&[3, 4]), now);
    assert_eq!(agent.dataplane.links.calls, ["detach 2", "attach 3", "attach 4"]);
    // An ordinary event does not cause this.
    agent.dataplane.links.calls.clear();
    agent.link_events(vec![pod(7)], now);
    assert_eq!(agent.dataplane.links.calls, ["attach 7"]);
}

#[test]
fn adopted_attachments_stay_until_the_tables_are_full() {
    let attached = [2, 9].map(|ifindex| (ifindex, Class::Workload, LinkHeader::Ethernet)).into();
    let (mut agent, now) = agent(FakeDataplane::with(FakeLinks { attached, ..FakeLinks::default() }));
    agent.link_events(everything(&[2]), now);
    assert_eq!(indexes(&agent), [2, 9]);
    agent.change(vec![Change::Listed], now);
    assert!(!agent.turn(now));
    assert_eq!(indexes(&agent), [2]);
}

#[test]
fn a_class_that_changes_is_attached_anew() {
    let (mut agent, now) = agent(FakeDataplane::default());
    agent.rules.uplink = Globs::Auto;
    agent.link_events(everything(&[2]), now);
    agent.link_events(vec![Event::Address { ifindex: 2, addr: InterfaceAddress::new([192, 0, 2, 1], 32) }], now);
    agent.change(vec![Change::Listed], now);
    assert!(!agent.turn(now));
    assert_eq!(agent.dataplane.links.attached, [(2, Class::Workload, LinkHeader::Ethernet)].into());
    // The Node object arrives: its address makes the interface an uplink.
    agent.change(vec![node("192.0.2.1")], now);
    let now = settle(&mut agent, now);
    assert_eq!(agent.dataplane.links.attached, [(2, Class::Uplink, LinkHeader::Ethernet)].into());
    assert_eq!(agent.status(now).attached, [Class::Uplink]);
}

/// The bridge of a port is written before its programs are attached, and retried after a failure.
#[test]
fn ports_are_described_first_and_follow_their_bridge() {
    let (mut agent, now) = started(FakeDataplane::default());
    let port = |ifindex, bridge: Option<u32>| {
        Event::Link(LinkFacts {
            controller: bridge,
            mac: Some([2, 0, 0, 0, 0, 7]),
            ..LinkFacts::pod_veth(ifindex, "p")
        })
    };
    let mac = Some([2, 0, 0, 0, 0, 1]);
    let bridge = LinkFacts { kind: LinkKind::Bridge, mac, ..LinkFacts::pod_veth(9, "cni0") };
    agent.link_events(vec![Event::Link(bridge), port(2, Some(9))], now);
    assert_eq!(agent.dataplane.links.bridge(2), Some((9, [2, 0, 0, 0, 0, 1])));
    agent.dataplane.links.refuses_ports = true;
    agent.link_events(vec![port(2, None)], now);
    assert_eq!(agent.dataplane.links.bridge(2), Some((9, [2, 0, 0, 0, 0, 1])));
    agent.dataplane.links.refuses_ports = false;
    let _ = agent.turn(agent.next_turn());
    assert_eq!(agent.dataplane.links.bridge(2), Some((0, [2, 0, 0, 0, 0, 7])));
}

/// There are no events for the namespace-wide setting of bridges.
#[test]
fn netfilter_between_ports_of_a_bridge_is_looked_at_again() {
    let (mut agent, now) = started(FakeDataplane::default());
    let bridge = LinkFacts { kind: LinkKind::Bridge, mac: Some([2, 0, 0, 0, 0, 1]), ..LinkFacts::pod_veth(9, "cni0") };
    let port = LinkFacts { controller: Some(9), ..LinkFacts::pod_veth(2, "veth2") };
    let addr = InterfaceAddress::new([10, 244, 0, 1], 24);
    agent.link_events(vec![Event::Link(bridge), Event::Link(port), Event::Address { ifindex: 9, addr }], now);
    let bits = |agent: &Agent<FakeDataplane>| {
        let port = agent.dataplane.links.ports.iter().find(|port| port.ifindex == 2).expect("it is described");
        port.unfiltered_bits4
    };
    assert_eq!(bits(&agent), 24);
    let shown = |agent: &Agent<FakeDataplane>| agent.status(now).judgements.why[&2].clone();
    assert!(shown(&agent).ends_with("; IPv4 between ports of cni0: bypasses netfilter"), "{}", shown(&agent));
    let told = warnings(&agent, now);
    assert!(told.len() == 1 && told[0].starts_with("interface cni0: IPv4 between ports of cni0 bypasses"), "{told:?}");
    agent.bridge_netfilter = || BridgeNetfilter { v4: true, v6: true };
    let now = now + LOOK_INTERVAL;
    let _ = agent.turn(now);
    assert_eq!((bits(&agent), warnings(&agent, now)), (0, Vec::new()));
    assert!(!shown(&agent).contains("netfilter"));
}

#[test]
fn an_interface_that_refuses_is_retried_and_hurts_no_other() {
    let refusing = [2].into();
    let (mut agent, now) = agent(FakeDataplane::with(FakeLinks { refusing, ..FakeLinks::default() }));
    agent.link_events(everything(&[2, 3]), now);
    agent.change(vec![Change::Listed], now);
    assert!(!agent.turn(now));
    assert_eq!((indexes(&agent), agent.status(now).ready()), (vec![3], Ok(())));
    let next = agent.next_turn();
    assert!(next > now && next < now + Duration::from_secs(1));
    agent.dataplane.links.refusing.clear();
    let _ = agent.turn(next);
    assert_eq!(indexes(&agent), [2, 3]);
}

#[test]
fn a_start_that_fails_is_not_ready_and_says_why() {
    let (mut agent, now) = agent(FakeDataplane::with(FakeLinks { fails_to_activate: true, ..FakeLinks::default() }));
    agent.link_events(everything(&[2]), now);
    agent.change(vec![Change::Listed], now);
    assert!(!agent.turn(now));
    assert!(agent.status(now).ready().is_err_and(|reason| reason.contains("not today")));
    agent.dataplane.links.fails_to_activate = false;
    settle(&mut agent, now);
    assert_eq!((indexes(&agent), agent.status(now).ready()), (vec![2], Ok(())));
}

#[test]
fn write_faults_are_retried_until_in_step() {
    let (mut agent, now) = agent(FakeDataplane::default());
    agent.link_events(everything(&[]), now);
    agent.dataplane.fail(Faults::Always);
    agent.change(vec![service("shop", "192.0.2.10"), Change::Listed], now);
    assert!(!agent.turn(now));
    let status = agent.status(now);
    assert!(status.behind.is_some_and(|behind| behind.rows > 0 && !behind.reason.is_empty()));
    assert!(status.readiness != Readiness::Ready);
    agent.dataplane.fail(Faults::Never);
    let now = agent.next_turn();
    assert!(!agent.turn(now), "only an audit came to repair it");
    let status = agent.status(now);
    assert!(status.behind.is_none() && status.in_step.is_some());
    assert_eq!(status.ready(), Ok(()));
    assert_eq!(agent.dataplane.tables.v4.frontends.len(), 1);
}

#[test]
fn an_audit_repairs_and_asks_for_the_interfaces() {
    let (mut agent, now) = agent(FakeDataplane::default());
    agent.link_events(everything(&[]), now);
    agent.change(vec![service("shop", "192.0.2.10"), Change::Listed], now);
    assert!(!agent.turn(now));
    let programmed = agent.dataplane.tables.clone();
    agent.dataplane.tables.v4.frontends.clear();
    agent.dataplane.tables.scopes.clear();
    let audit_at = now + Duration::from_mins(5);
    assert!(agent.turn(audit_at), "an audit lists the interfaces anew");
    assert_eq!(agent.dataplane.tables, programmed);
    assert!(agent.next_turn() > audit_at);
}

#[test]
fn warnings_are_published() {
    let (mut agent, now) = agent(FakeDataplane::default());
    agent.link_events(everything(&[]), now);
    let warning = Warning::new(WarningKind::BadDocument, "is no object", "write one").in_document("a.yaml", 1);
    let place = Change::Place { place: "a.yaml".into(), warnings: vec![warning.clone()] };
    agent.change(vec![place, Change::Listed], now);
    assert!(!agent.turn(now));
    assert_eq!(*agent.status(now).warnings, [warning]);
    agent.change(vec![Change::Place { place: "a.yaml".into(), warnings: Vec::new() }], now);
    let now = settle(&mut agent, now);
    assert!(agent.status(now).warnings.is_empty());
}

/// A Service in VIP mode without endpoints.
fn service(name: &str, address: &str) -> Change {
    use crate::model::{IngressEntry, ObjectName, Service, ServicePort, ServiceType, TrafficPolicy};
    let port = ServicePort { name: "".into(), proto: lb_common::addr::Proto::TCP, port: 80, node_port: None };
    let service = Service {
        name: ObjectName::new("default", name),
        created_secs: None,
        service_type: ServiceType::LoadBalancer,
        served_elsewhere: false,
        headless: false,
        has_selector: true,
        annotations: std::collections::BTreeMap::new(),
        labels: Box::default(),
        cluster_ips: vec!["10.96.0.1".parse().expect("an address")],
        external_ips: Vec::new(),
        ports: vec![port],
        host_names: crate::model::HostNames::Absent,
        ingress: vec![IngressEntry { index: 0, ip: address.parse().expect("an address"), ip_mode: None }],
        external_policy: TrafficPolicy::Cluster,
        internal_policy: TrafficPolicy::Cluster,
        affinity_secs: None,
        source_ranges: Vec::new(),
        health_check_node_port: None,
    };
    Change::Apply { object: Object::Service(service), warnings: Vec::new() }
}

#[test]
fn flows_are_walked_over_once_in_a_while() {
    let (mut agent, now) = started(FakeDataplane::default());
    let later = now + Duration::from_mins(10);
    assert!(agent.turn(later), "the audit comes first");
    for _ in 0..3 {
        assert!(agent.status.flow_entries.is_empty());
        assert!(!agent.turn(later));
    }
    assert_eq!(agent.status.flow_entries, [("flows4", 14), ("flows6", 2)]);
    assert!(agent.next_turn() > later);
}

/// A drained frontend makes room for a Service that found none. The Service does not wait for the next change.
#[test]
fn room_that_a_reclaim_makes_is_used() {
    let config = Config { limits: TableLimits { frontends_max: 1, ..TableLimits::UNLIMITED }, ..config() };
    let (mut agent, now) = agent_with(FakeDataplane::default(), &config);
    agent.link_events(everything(&[]), now);
    agent.change(vec![service("a", "192.0.2.1"), Change::Listed], now);
    assert!(!agent.turn(now));
    let Change::Apply { object, .. } = service("a", "192.0.2.1") else { panic!("a Service") };
    let mut now = now + Duration::from_secs(1);
    for change in [Change::Remove(object.reference()), service("b", "192.0.2.2")] {
        agent.change(vec![change], now);
        assert!(!agent.turn(now));
        now += Duration::from_secs(1);
    }
    let full = |agent: &Agent<FakeDataplane>| agent.status.warnings.iter().any(|w| w.kind == WarningKind::Capacity);
    assert!(full(&agent), "the old frontend has gone already");
    while full(&agent) {
        now = now.max(agent.next_turn());
        assert!(!agent.turn(now), "an audit came first");
    }
    let served: Vec<_> = agent.dataplane.tables.v4.frontends.keys().map(|key| key.addr).collect();
    assert_eq!(served, [[192, 0, 2, 2]]);
}

/// The loop publishes a change of the source's connections at once, not at its next scheduled turn.
#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_told_at_once() {
    let (agent, now) = started(FakeDataplane::default());
    let connections = Connections::starting(&[Kind::Service]);
    let (_batches, batches) = mpsc::channel(1);
    let (_links, links) = mpsc::channel(1);
    let (_questions, questions) = mpsc::channel(1);
    let signals = Signals::new().expect("signals can be listened to");
    let inputs = Inputs {
        batches,
        connections: connections.subscribe(),
        progress: Progress::default(),
        links,
        questions,
        signals,
    };
    let (status, mut published) = watch::channel(Arc::new(Status::starting(now)));
    let begin = tokio::time::Instant::now();
    connections.change(Kind::Service, crate::source::connection::Phase::Retrying, |connection| {
        connection.failures += 1;
        connection.last_error = Some("it answered 503".into());
    });
    let own = Own { pin_path: "/nowhere".into(), serves_labelled: false };
    tokio::select! {
        _ = turn_until_stopped(agent, inputs, &own, &status) => panic!("nobody stops it"),
        told = published.changed() => told.expect("the loop lives"),
    }
    assert!(begin.elapsed() < TURN_INTERVAL, "it was told after {:?}", begin.elapsed());
    let troubles: Vec<String> = published.borrow().troubles().collect();
    assert!(troubles.len() == 1 && troubles[0].contains("it answered 503"), "{troubles:?}");
}

/// After a restart with unreadable input, unclaimed frontends stay, with a warning, until the time is over.
#[test]
fn what_nobody_claims_stays_for_a_while() {
    let (mut agent, now) = started(FakeDataplane::default());
    agent.change(vec![service("a", "1.2.3.4")], now + Duration::from_secs(1));
    assert!(!agent.turn(now + Duration::from_secs(1)));
    let tables = agent.dataplane.tables;
    assert_eq!(tables.v4.frontends.len(), 1);
    let (mut agent, now) = self::agent(FakeDataplane::holding(tables));
    let warning = Warning::new(WarningKind::BadDocument, "is bad", "make it good").in_file("x.yaml");
    agent.link_events(everything(&[]), now);
    agent.change(vec![Change::Place { place: "x.yaml".into(), warnings: vec![warning] }, Change::Listed], now);
    assert!(!agent.turn(now));
    let active = |agent: &Agent<FakeDataplane>| {
        let frontends = agent.dataplane.tables.v4.frontends.values();
        frontends.filter(|frontend| frontend.state == lb_common::table::FrontendState::Active).count()
    };
    assert_eq!(active(&agent), 1);
    let told = |agent: &Agent<FakeDataplane>| {
        let status = agent.status(now);
        status.warnings.iter().filter(|warning| warning.object.as_deref() == Some("frontend 1.2.3.4:80/tcp")).count()
    };
    assert_eq!(told(&agent), 1);
    // Earlier audits change nothing.
    let mut at = agent.next_turn();
    while at < now + Duration::from_hours(1) {
        assert_eq!((active(&agent), told(&agent)), (1, 1));
        let _ = agent.turn(at);
        at = agent.next_turn();
    }
    for _ in 0..4 {
        let _ = agent.turn(agent.next_turn());
    }
    assert_eq!((active(&agent), told(&agent)), (0, 0));
}
