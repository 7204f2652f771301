//! Each act of a kube-proxy, in each mode, with and without the guard.

use lb_common::addr::Proto;
use lb_common::table::FrontendKey;

use super::*;
use crate::known::KnownService;

const ADDR: [u8; 4] = [192, 0, 2, 10];

fn to() -> Destination {
    Destination { addr: ADDR.into(), port: 80, proto: Proto::TCP }
}

fn known(rivalry: Rivalry) -> Known {
    let named = Named {
        address: ADDR.into(),
        port: 80,
        service_port: 80,
        port_name: String::new(),
        proto: "tcp".into(),
        field: "status.loadBalancer.ingress[].ip".into(),
        reason: None,
        kube_proxy: rivalry,
    };
    let service = KnownService {
        name: "shop/web".into(),
        served_elsewhere: false,
        remarks: Vec::new(),
        named: vec![named],
        warnings: Vec::new(),
    };
    Known { services: vec![service], ..Known::default() }
}

fn rival(rules: Rules, is_guarded: bool) -> Rival {
    let mut guard = GuardRows { links: [3].into(), ..GuardRows::default() };
    if is_guarded {
        let key = FrontendKey { addr: ADDR, port: 80, proto: Proto::TCP, pad: 0 };
        guard.v4.sets.workload.insert(key);
    }
    Rival { rules: [rules].into(), guard }
}

const HOST: Face = Face { client: Client::Host, addr: None, seen_from: None, is_here: false };

/// A pod behind an interface that the guard knows.
fn pod(addr: [u8; 4]) -> Face {
    Face { client: Client::Workload, addr: Some(addr.into()), seen_from: Some(3), is_here: false }
}

fn does(rivalry: &Rivalry, client: [u8; 4], rival: &Rival) -> Does {
    let known = known(rivalry.clone());
    aftermath(pod(client), &to(), Some(&known), rival).expect("a kube-proxy").does
}

#[test]
fn without_rules_there_is_nothing_to_say() {
    let known = known(Rivalry { inside: Act::Refuse, ..Rivalry::default() });
    assert_eq!(aftermath(HOST, &to(), Some(&known), &Rival::default()), None);
    let unknown = aftermath(HOST, &to(), None, &rival(Rules::Nftables, false)).expect("rules");
    assert_eq!(unknown.does, Does::Unknown);
}

/// kube-proxy ignores the Services of such an agent, and the agent does not know the others.
#[test]
fn with_a_proxy_name_the_rules_for_its_own_services_alone_are_known() {
    let mut known = Known { serves_labelled: true, ..known(Rivalry { inside: Act::Refuse, ..Rivalry::default() }) };
    let told = |known: &Known, to: &Destination| {
        let aftermath = aftermath(HOST, to, Some(known), &rival(Rules::Nftables, false)).expect("rules");
        (aftermath.does, aftermath.sentence.contains("shop/web"), aftermath.sentence.contains("--service-proxy-name"))
    };
    assert_eq!(told(&known, &to()), (Does::Nothing, true, false));
    assert_eq!(told(&known, &Destination { port: 81, ..to() }), (Does::Unknown, false, true), "no Service has it");
    known.services[0].served_elsewhere = true;
    assert_eq!(told(&known, &to()), (Does::Unknown, false, true), "a folder has Services of others too");
}

#[test]
fn the_guard_prevents_translations_but_neither_rejects_nor_drops() {
    let of = |inside, outside| Rivalry { inside, outside, ranges: Vec::new() };
    for rules in [Rules::Nftables, Rules::Iptables, Rules::IptablesLegacy] {
        for (act, guarded, unguarded) in [
            (Act::Nothing, Does::Nothing, Does::Nothing),
            (Act::Translate, Does::Nothing, Does::Translate),
            (Act::Refuse, Does::Refuse, Does::Refuse),
            (Act::Drop, Does::Drop, Does::Drop),
        ] {
            let rivalry = of(act, Act::Nothing);
            assert_eq!(does(&rivalry, [10, 0, 0, 1], &rival(rules, true)), guarded, "{rules:?} {act:?}");
            assert_eq!(does(&rivalry, [10, 0, 0, 1], &rival(rules, false)), unguarded, "{rules:?} {act:?}");
        }
    }
    // Each side has its own.
    let known = known(of(Act::Translate, Act::Drop));
    let outside =
        aftermath(Face { client: Client::External, ..HOST }, &to(), Some(&known), &rival(Rules::Nftables, true));
    assert_eq!(outside.expect("a kube-proxy").does, Does::Drop);
}

/// The guard takes packets by an interface that it does not know for those of the network.
#[test]
fn a_pod_without_programs_is_of_the_network_for_the_guard() {
    let known = known(Rivalry { inside: Act::Translate, ..Rivalry::default() });
    let left_out = Face { seen_from: Some(4), ..pod([10, 0, 0, 1]) };
    let does = aftermath(left_out, &to(), Some(&known), &rival(Rules::Nftables, true)).expect("a kube-proxy").does;
    assert_eq!(does, Does::Translate);
    // Nor does it cover addresses of the node.
    let here = Face { is_here: true, ..pod([10, 0, 0, 1]) };
    let does = aftermath(here, &to(), Some(&known), &rival(Rules::Nftables, true)).expect("a kube-proxy").does;
    assert_eq!(does, Does::Translate);
}

#[test]
fn source_ranges_are_enforced_in_spite_of_the_guard() {
    let rivalry = Rivalry { inside: Act::Translate, outside: Act::Translate, ranges: vec!["10.1.0.0/16".into()] };
    for (rules, is_guarded, allowed, other) in [
        (Rules::Nftables, true, Does::Nothing, Does::Drop),
        (Rules::Nftables, false, Does::Translate, Does::Drop),
        // Its nat rules would mark what is allowed, and the guard precedes them.
        (Rules::Iptables, true, Does::Drop, Does::Drop),
        (Rules::Iptables, false, Does::Translate, Does::Drop),
    ] {
        let rival = rival(rules, is_guarded);
        assert_eq!(does(&rivalry, [10, 1, 2, 3], &rival), allowed, "{rules:?}, guarded: {is_guarded}");
        assert_eq!(does(&rivalry, [10, 2, 2, 3], &rival), other, "{rules:?}, guarded: {is_guarded}");
    }
}
