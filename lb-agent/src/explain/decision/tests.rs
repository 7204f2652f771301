//! Explanations over small tables.

use lb_common::addr::Proto;
use lb_common::table::{
    Affinity, AffinityKey, Backend, Direction, EDGE_UPLINK, Flow, FlowKey, FlowState, FrontendKey, FrontendState,
    Member, MemberKey, MemberSets, MemberState, PoolKey, Rule, ScopeFlags, Scopes, SourceRange, SourceRangeKey, Tuple,
    bpf_spin_lock,
};

use super::*;
use crate::explain::Sight;
use crate::question::{Dialled, Said};

const ADDR: [u8; 4] = [192, 0, 2, 10];

fn frontend(id: u32, mode: Mode, decided_by: Rule) -> Frontend {
    let (origin, state) = (Origin::LoadBalancer, FrontendState::Active);
    Frontend { id, mode, decided_by, origin, state, lock: bpf_spin_lock::default() }
}

fn key(port: u16) -> FrontendKey<[u8; 4]> {
    FrontendKey { addr: ADDR, port, proto: Proto::TCP, pad: 0 }
}

/// A frontend with these scopes at port 80, with pool 7 of two backends; a Proxy frontend at port 443.
fn facts(mode: Mode, scopes: Scopes) -> Facts {
    let mut tables = Tables::default();
    tables.v4.frontends.insert(key(80), frontend(1, mode, Rule::IpMode));
    tables.v4.frontends.insert(key(443), frontend(2, Mode::Proxy, Rule::Annotation));
    for slot in 0..2 {
        let backend = Backend { addr: [10, 0, 0, slot as u8 + 1], port: 8080 };
        tables.v4.pools.insert(PoolKey { pool: 7, slot }, backend);
    }
    tables.scopes.insert(1, Scopes { service_port: 1, ..scopes });
    let services = Services { names: [(1, "shop/web:http".to_owned())].into(), ..Services::default() };
    let (tables, address_words) = (Arc::new(tables.derived(1)), 1);
    Facts { tables, address_words, services, seen: PerClient::same(true), ..Facts::default() }
}

fn ask(from: &str, to: &str, facts: &Facts) -> Explanation {
    let from = match from.parse().expect("a caller") {
        Said::Address(addr) => Sender::Pod(Some(addr)),
        Said::Kind(sender) => sender,
    };
    let Dialled::Port(to) = to.parse().expect("a destination") else { panic!("{to} is no port") };
    explain(&from, &to, facts)
}

const VIP: Scopes =
    Scopes { workload: Scope::balance(7, 2), host: Scope::balance(7, 2), external: Scope::DROP, ..Scopes::PASS };

#[test]
fn a_shortcut_names_its_backends() {
    let explanation = ask("10.9.9.9", "192.0.2.10:80/tcp", &facts(Mode::VIP, VIP));
    assert_eq!(explanation.decision, Decision::Balance);
    assert_eq!(explanation.backends, ["10.0.0.1:8080".parse().expect("one"), "10.0.0.2:8080".parse().expect("two")]);
    let frontend = explanation.frontend.expect("a frontend");
    assert_eq!((frontend.mode.as_deref(), frontend.decided_by), (Some("VIP"), "ipMode"));
    assert_eq!(frontend.service.as_deref(), Some("shop/web:http"));
    assert_eq!(frontend.scope, "workload: Balance pool 7 (2)");
    assert!(explanation.sentence.contains("one of 2 backends"));
    assert!(explanation.notes.is_empty());
}

#[test]
fn a_pod_that_may_reach_itself_is_told() {
    let explanation = ask("10.0.0.2", "192.0.2.10:80/tcp", &facts(Mode::VIP, VIP));
    assert!(explanation.notes.iter().any(|note| note.contains("itself")), "{:?}", explanation.notes);
}

#[test]
fn proxy_leaves_the_node() {
    let explanation = ask("pod", "192.0.2.10:443/tcp", &facts(Mode::VIP, VIP));
    assert_eq!(explanation.decision, Decision::Pass);
    assert!(explanation.sentence.contains("external balancer"));
    assert_eq!(explanation.frontend.expect("a frontend").decided_by, "lb-agent.io/ip-mode");
}

#[test]
fn each_client_has_its_scope() {
    let facts = facts(Mode::VIP, VIP);
    assert_eq!(ask("external", "192.0.2.10:80/tcp", &facts).decision, Decision::Drop);
    let host = ask("host", "192.0.2.10:80/tcp", &facts);
    assert_eq!((host.decision, host.backends.len()), (Decision::Balance, 2));
    assert_eq!(host.reply.map(|reply| reply.to_string()).as_deref(), Some("192.0.2.10:80"));
    assert!(host.sentence.contains("the socket is connected to one of 2 backends"), "{}", host.sentence);
    assert_eq!(host.netfilter.sees, Sight::Translated);
    // The programs of sockets know TCP and UDP.
    let unseen =
        ask("host", "192.0.2.10:80/tcp", &Facts { seen: PerClient { host: false, ..PerClient::same(true) }, ..facts });
    assert_eq!(unseen.decision, Decision::NotOurs);
    assert!(unseen.backends.is_empty() && unseen.sentence.contains("--socket-lb"), "{}", unseen.sentence);
}

#[test]
fn nothing_attached_is_said() {
    let facts = Facts { seen: PerClient::same(false), ..facts(Mode::VIP, VIP) };
    for (from, flag) in [("pod", "--workload-interfaces"), ("external", "--uplink-interfaces")] {
        let explanation = ask(from, "192.0.2.10:80/tcp", &facts);
        assert_eq!(explanation.decision, Decision::NotOurs);
        assert!(explanation.sentence.contains(flag), "{}", explanation.sentence);
    }
    // A packet that is left alone anyway needs no interface.
    assert_eq!(ask("pod", "192.0.2.10:443/tcp", &facts).decision, Decision::Pass);
}

#[test]
fn hazards_of_the_service_and_of_the_node_are_noted() {
    let warning = |object: &str, kind| Warning::new(kind, format!("{object} hurts"), "mend it").of(object);
    let warnings = vec![
        warning("Service shop/web", WarningKind::Hazard),
        warning("Service shop/web2", WarningKind::Hazard),
        warning("Service shop/web", WarningKind::BadField),
        warning("Node n1\u{1b}", WarningKind::Hazard),
    ];
    let facts = Facts { warnings, ..facts(Mode::VIP, VIP) };
    let explanation = ask("pod", "192.0.2.10:80/tcp", &facts);
    let noted: Vec<&String> = explanation.notes.iter().filter(|note| note.starts_with("warning: ")).collect();
    assert_eq!(noted.len(), 2, "{noted:?}");
    assert!(noted[0].contains("Service shop/web hurts; mend it") && noted[1].contains("Node n1"), "{noted:?}");
    assert!(!explanation.to_string().contains('\u{1b}'), "{explanation}");
}

/// IPM-12: the key is address, port and protocol.
#[test]
fn another_port_or_protocol_is_not_ours() {
    let facts = facts(Mode::VIP, VIP);
    for to in ["192.0.2.10:81/tcp", "192.0.2.10:80/udp"] {
        let explanation = ask("pod", to, &facts);
        assert_eq!(explanation.decision, Decision::NotOurs);
        assert_eq!(explanation.notes, ["served at this address: 80/tcp (VIP), 443/tcp (Proxy)"]);
    }
    let unknown = ask("pod", "[2001:db8::1]:80/tcp", &facts);
    assert!(unknown.frontend.is_none() && unknown.notes[0].contains("no Service"));
}

#[test]
fn every_reason_to_pass_has_its_words() {
    let passing = |mode| facts(mode, Scopes::PASS);
    for (from, mode, word) in [
        ("pod", Mode::Split, "mode Split"),
        ("external", Mode::Split, "no endpoint is on this node"),
        ("pod", Mode::Router, "follows its route"),
        ("external", Mode::VIP, "no endpoint is on this node"),
        ("pod", Mode::VIP, "show warnings"),
        ("external", Mode::Proxy, "external balancer"),
    ] {
        let explanation = ask(from, "192.0.2.10:80/tcp", &passing(mode));
        assert_eq!(explanation.decision, Decision::Pass);
        assert!(explanation.sentence.contains(word), "{from} {mode:?}: {}", explanation.sentence);
    }
    let mut draining = passing(Mode::VIP);
    let frontend = Arc::make_mut(&mut draining.tables).v4.frontends.get_mut(&key(80)).expect("it is there");
    frontend.state = FrontendState::Draining;
    assert!(ask("pod", "192.0.2.10:80/tcp", &draining).sentence.contains("Service is gone"));
}

/// If no mode applies, the traffic policy of the address decides.
#[test]
fn every_origin_names_what_decided() {
    for (origin, decided_by) in [
        (Origin::ClusterIP, "internalTrafficPolicy"),
        (Origin::NodePort, "externalTrafficPolicy"),
        (Origin::ExternalIP, "externalTrafficPolicy"),
    ] {
        let mut facts = facts(Mode::VIP, VIP);
        let frontend = Arc::make_mut(&mut facts.tables).v4.frontends.get_mut(&key(80)).expect("it is there");
        (frontend.origin, frontend.decided_by) = (origin, Rule::NotApplicable);
        let inside = ask("pod", "192.0.2.10:80/tcp", &facts);
        assert!(!inside.sentence.contains("balancer"), "{}", inside.sentence);
        assert!(inside.to_string().contains("mode      none"), "{inside}");
        let frontend = inside.frontend.expect("a frontend");
        assert_eq!((frontend.mode.as_deref(), frontend.decided_by), (None, decided_by));
        let outside = ask("external", "192.0.2.10:80/tcp", &facts);
        assert!(outside.sentence.starts_with(&format!("{decided_by} is Local")), "{}", outside.sentence);
        let other_port = ask("pod", "192.0.2.10:81/tcp", &facts);
        assert_eq!(other_port.notes, ["served at this address: 80/tcp, 443/tcp (Proxy)"]);
    }
}

#[test]
fn reject_is_said() {
    let explanation = ask("pod", "192.0.2.10:80/tcp", &facts(Mode::VIP, Scopes { workload: Scope::REJECT, ..VIP }));
    assert_eq!(explanation.decision, Decision::Reject);
    assert!(explanation.sentence.contains("ICMP port unreachable"));
}

/// IPM-60: a flow keeps its backend.
#[test]
fn flows_of_the_client_are_mentioned() {
    let mut facts = facts(Mode::Proxy, Scopes::PASS);
    let tuple = Tuple { src: [10, 9, 9, 9], dst: ADDR, sport: 40_000, dport: 80 };
    let to = Tuple { dst: [10, 0, 0, 2], dport: 8080, ..tuple };
    let flow =
        Flow { to, frontend: 1, pool: 7, state: FlowState::Established, marks: 0, seq_high: 0, last_seen_jiffies: 1 };
    facts.flows4.push((FlowKey::new(EDGE_UPLINK, Direction::Request, Proto::TCP, tuple), flow));
    let explanation = ask("10.9.9.9", "192.0.2.10:80/tcp", &facts);
    assert!(explanation.notes.iter().any(|note| note.contains("10.0.0.2:8080")), "{:?}", explanation.notes);
    assert!(ask("10.9.9.8", "192.0.2.10:80/tcp", &facts).notes.is_empty());
}

#[test]
fn text_has_a_line_for_each_fact() {
    let text = ask("10.9.9.9", "192.0.2.10:80/tcp", &facts(Mode::VIP, VIP)).to_string();
    let words: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(
        words,
        ["from", "to", "service", "frontend", "mode", "scope", "backend", "backend", "result", "netfilter"]
    );
}

#[test]
fn the_deciding_key_is_named_where_it_is_not_the_rule() {
    let mut facts = facts(Mode::Proxy, Scopes::PASS);
    let shown = |facts: &Facts| {
        let explanation = ask("10.9.9.9", "192.0.2.10:80/tcp", facts);
        (explanation.to_string(), explanation.frontend.and_then(|frontend| frontend.deciding_key))
    };
    assert_eq!(shown(&facts).1, None, "no agent tells");
    facts.services.deciding_keys = [(1, "kubernetes.io/elb.pass-through".to_owned())].into();
    let (text, key) = shown(&facts);
    assert_eq!(key.as_deref(), Some("kubernetes.io/elb.pass-through"));
    assert!(text.contains(" (kubernetes.io/elb.pass-through)\n"), "{text}");
}

/// A client may arrive by an interface that the programs cannot read.
#[test]
fn refused_interfaces_are_told_where_a_packet_would_be_balanced() {
    let refused = vec!["ib0: its packets have a link header".to_owned()];
    let facts = Facts { refused, ..facts(Mode::VIP, VIP) };
    let is_told = |to| ask("10.9.9.9", to, &facts).notes.iter().any(|note| note.contains("ib0"));
    assert_eq!([is_told("192.0.2.10:80/tcp"), is_told("192.0.2.10:443/tcp")], [true, false]);
}

/// If the question names no client, one within the source ranges is taken.
#[test]
fn source_ranges_are_asked() {
    let scope = Scope::balance(7, 2).with_flags(ScopeFlags::SOURCE_RANGES);
    let mut facts = facts(Mode::VIP, Scopes { workload: scope, source_ranges: 3, ..VIP });
    let range = SourceRangeKey::of_prefix(3, [10, 9, 0, 0], 16);
    Arc::make_mut(&mut facts.tables).v4.source_ranges.insert(range, SourceRange { flags: 0 });
    for (from, decision) in [("10.9.9.9", Decision::Balance), ("10.8.9.9", Decision::Drop), ("pod", Decision::Balance)]
    {
        let explanation = ask(from, "192.0.2.10:80/tcp", &facts);
        assert_eq!(explanation.decision, decision, "{from}");
        assert_eq!(explanation.notes, ["only clients of these ranges are allowed: 10.9.0.0/16"], "{from}");
        assert_eq!(explanation.sentence.contains("loadBalancerSourceRanges"), decision == Decision::Drop, "{from}");
    }
}

/// The rows that let in what the node sends from the balancer's address are in no Service.
#[test]
fn source_ranges_are_told_as_they_are_written() {
    let scope = Scope::balance(7, 2).with_flags(ScopeFlags::SOURCE_RANGES);
    let mut facts = facts(Mode::VIP, Scopes { workload: scope, source_ranges: 3, ..VIP });
    let ranges = [([0; 4], 32), ([192, 0, 2, 10], 32), ([10, 9, 9, 9], 32), ([10, 9, 0, 0], 16)];
    for (addr, length) in ranges {
        let key = SourceRangeKey::of_prefix(3, addr, length);
        Arc::make_mut(&mut facts.tables).v4.source_ranges.insert(key, SourceRange { flags: 0 });
    }
    let note = "only clients of these ranges are allowed: 10.9.0.0/16, 10.9.9.9/32, which include this node";
    assert_eq!(ask("10.9.9.9", "192.0.2.10:80/tcp", &facts).notes, [note]);
    Arc::make_mut(&mut facts.tables).v4.source_ranges.retain(|key, _| key.addr != [0; 4]);
    let note = "only clients of these ranges are allowed: 10.9.0.0/16, 10.9.9.9/32, 192.0.2.10/32";
    assert_eq!(ask("10.9.9.9", "192.0.2.10:80/tcp", &facts).notes, [note], "without the node, it is the Service's own");
}

/// A packet that meets an empty slot is dropped, whatever the scope says.
#[test]
fn a_pool_that_is_being_replaced_is_said() {
    let mut facts = facts(Mode::VIP, VIP);
    Arc::make_mut(&mut facts.tables).v4.pools.remove(&PoolKey { pool: 7, slot: 0 });
    let partly = ask("10.9.9.9", "192.0.2.10:80/tcp", &facts);
    assert_eq!((partly.decision, partly.backends.len()), (Decision::Balance, 1));
    assert!(partly.notes[0].contains("empty slot"), "{:?}", partly.notes);
    Arc::make_mut(&mut facts.tables).v4.pools.clear();
    let empty = ask("10.9.9.9", "192.0.2.10:80/tcp", &facts);
    assert_eq!((empty.decision, empty.backends.len()), (Decision::Drop, 0));
    assert!(empty.sentence.contains("being replaced"), "{}", empty.sentence);
}

/// SCTP keeps its ports, so it is not DNATed to the target port.
#[test]
fn backends_are_where_the_packet_goes() {
    let mut facts = facts(Mode::VIP, VIP);
    let sctp = FrontendKey { proto: Proto::SCTP, ..key(80) };
    Arc::make_mut(&mut facts.tables).v4.frontends.insert(sctp, frontend(1, Mode::VIP, Rule::IpMode));
    let explanation = ask("pod", "192.0.2.10:80/sctp", &facts);
    assert_eq!(explanation.backends, ["10.0.0.1:80".parse().expect("one"), "10.0.0.2:80".parse().expect("two")]);
}

#[test]
fn replies_get_their_source_back() {
    let facts = facts(Mode::VIP, Scopes { external: Scope::balance(7, 2), ..VIP });
    let dialled = "192.0.2.10:80".parse().expect("the frontend");
    for (from, place) in [("10.9.9.9", "the pod's interface"), ("10.0.0.1", "the pod's"), ("external", "the uplink")] {
        let explanation = ask(from, "192.0.2.10:80/tcp", &facts);
        assert_eq!(explanation.reply, Some(dialled), "{from}");
        assert!(explanation.sentence.contains(&format!("192.0.2.10:80 back at {place}")), "{}", explanation.sentence);
    }
    // Only a pod on this node can reach itself.
    assert!(ask("external:10.0.0.2", "192.0.2.10:80/tcp", &facts).notes.is_empty());
    assert_eq!(ask("pod", "192.0.2.10:443/tcp", &facts).reply, None);
}

/// For datagrams of a known flow, the frontend's current state decides.
#[test]
fn flows_that_are_not_kept_are_not_mentioned() {
    let to_udp = FrontendKey { proto: Proto::UDP, ..key(80) };
    let tuple = Tuple { src: [10, 9, 9, 9], dst: ADDR, sport: 40_000, dport: 80 };
    let to = Tuple { dst: [10, 0, 0, 2], dport: 8080, ..tuple };
    let (state, marks) = (FlowState::Established, 0);
    let flow = Flow { to, frontend: 1, pool: 7, state, marks, seq_high: 0, last_seen_jiffies: 1 };
    for (workload, is_kept) in [(Scope::balance(7, 2), true), (Scope::PASS, true), (Scope::REJECT, false)] {
        let mut facts = facts(Mode::VIP, Scopes { workload, ..VIP });
        Arc::make_mut(&mut facts.tables).v4.frontends.insert(to_udp, frontend(1, Mode::VIP, Rule::IpMode));
        facts.flows4.push((FlowKey::new(5, Direction::Request, Proto::UDP, tuple), flow));
        let explanation = ask("10.9.9.9", "192.0.2.10:80/udp", &facts);
        let notes = &explanation.notes;
        assert_eq!(notes.iter().any(|note| note.contains("10.0.0.2:8080")), is_kept, "{workload:?}: {notes:?}");
    }
}

/// SA-01 to SA-03: a client that session affinity remembers goes to its last backend, with every algorithm, until the
/// timeout or until the backend leaves.
#[test]
fn a_client_that_affinity_remembers_has_one_backend() {
    let (known, other) = ("10.9.9.9", "10.9.9.8");
    // With Maglev and affinity, the hash is that of the client alone: its ports do not matter.
    for (flags, possible) in [(ScopeFlags::AFFINITY, 2), (ScopeFlags::AFFINITY | ScopeFlags::MAGLEV, 1)] {
        let workload = Scope::balance(7, 2).with_flags(flags);
        let mut facts = facts(Mode::VIP, Scopes { workload, affinity_secs: 600, ..VIP });
        let member = Member { state: MemberState::Active, sets: MemberSets::CLUSTER, pad: [0; 2] };
        for last in [1, 2] {
            let key = MemberKey { service_port: 1, addr: [10, 0, 0, last], port: 8080, pad: 0 };
            Arc::make_mut(&mut facts.tables).v4.members.insert(key, member);
        }
        let row = Affinity { addr: [10, 0, 0, 2], port: 8080, pad: 0, last_seen_secs: 1_000 };
        facts.affinity4 = vec![(AffinityKey { service_port: 1, client: [10, 9, 9, 9] }, row)];
        let asked = |facts: &Facts, from| {
            let explanation = ask(from, "192.0.2.10:80/tcp", facts);
            (explanation.backends.len(), explanation.sentence.contains("remembers"))
        };
        facts.now_secs = 1_599;
        assert_eq!(ask(known, "192.0.2.10:80/tcp", &facts).backends, ["10.0.0.2:8080".parse().expect("the last one")]);
        assert_eq!((asked(&facts, known), asked(&facts, other)), ((1, true), (possible, false)));
        // A question without a client tells of every client.
        assert_eq!(asked(&facts, "pod"), (2, false));
        facts.now_secs = 1_600;
        assert_eq!(asked(&facts, known), (possible, false), "the timeout has passed");
        facts.now_secs = 1_599;
        let v4 = &mut Arc::make_mut(&mut facts.tables).v4;
        v4.members.retain(|key, _| key.addr != [10, 0, 0, 2]);
        v4.pools.insert(PoolKey { pool: 7, slot: 1 }, Backend { addr: [10, 0, 0, 3], port: 8080 });
        assert_eq!(asked(&facts, known), (possible, false), "it is no endpoint any more");
    }
}

#[test]
fn netfilter_sees_what_the_programs_leave() {
    let own = Scopes { external: Scope::balance(7, 2), ..VIP };
    for (from, to, scopes, sees, word) in [
        ("10.9.9.9", 80, own, Sight::Translated, "from 10.9.9.9 to the chosen backend"),
        ("external:10.9.9.9", 80, own, Sight::Translated, "after them, both at the uplink"),
        ("10.9.9.9", 443, own, Sight::Unchanged, "as the client sent it"),
        ("10.9.9.9", 81, own, Sight::Unchanged, "as the client sent it"),
        ("host", 80, own, Sight::Translated, "from its first packet on"),
        ("host", 443, own, Sight::Unchanged, "as the client sent it"),
        ("host", 80, Scopes { host: Scope::REJECT, ..VIP }, Sight::Never, "the dial fails"),
        ("host", 80, Scopes { host: Scope::DROP, ..VIP }, Sight::Never, "the dial fails"),
        ("10.9.9.9", 80, Scopes { workload: Scope::REJECT, ..VIP }, Sight::Never, "answered at the pod's interface"),
        ("external", 80, VIP, Sight::Never, "dropped at the uplink"),
    ] {
        let netfilter = ask(from, &format!("192.0.2.10:{to}/tcp"), &facts(Mode::VIP, scopes)).netfilter;
        assert_eq!(netfilter.sees, sees, "{from} {to}: {netfilter:?}");
        assert!(netfilter.sentence.contains(word), "{from} {to}: {netfilter:?}");
    }
    // A pod that is one of two backends.
    let two = ask("10.0.0.1", "192.0.2.10:80/tcp", &facts(Mode::VIP, own)).netfilter;
    assert_eq!(two.sees, Sight::Translated, "{two:?}");
    assert!(two.sentence.ends_with("a connection to the pod itself comes back at once, unseen"), "{two:?}");
    // A pod that is its own only backend gets the packet back before netfilter.
    let mut alone = facts(Mode::VIP, Scopes { workload: Scope::balance(7, 1), ..VIP });
    Arc::make_mut(&mut alone.tables).v4.pools.retain(|key, _| key.slot == 0);
    assert_eq!(ask("10.0.0.1", "192.0.2.10:80/tcp", &alone).netfilter.sees, Sight::Never);
    let other = ask("10.0.0.2", "192.0.2.10:80/tcp", &alone).netfilter;
    assert!(other.sentence.starts_with("sees a connection from 10.0.0.2 to 10.0.0.1:8080"), "{other:?}");
}
