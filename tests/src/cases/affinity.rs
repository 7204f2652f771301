//! Session affinity: a client keeps its backend while the scope may still choose it.

use std::collections::BTreeSet;

use lb_common::table::{MemberSets, ScopeFlags};

use super::scene::{SYN, Scene, UDP};
use super::{Case, Net, maglev};
use crate::machine::Program;
use crate::packet::{End, Transport};

pub const CASES: &[Case] = &[
    ("a_client_keeps_its_backend", a_client_keeps_its_backend),
    ("clients_are_kept_apart", clients_are_kept_apart),
    ("maglev_finds_the_backend_of_a_client_that_is_forgotten", maglev_finds_the_backend_of_a_client_that_is_forgotten),
    ("affinity_slides_and_ends", affinity_slides_and_ends),
    ("a_backend_that_is_gone_is_replaced_for_good", a_backend_that_is_gone_is_replaced_for_good),
    ("affinity_stays_within_the_set_of_the_scope", affinity_stays_within_the_set_of_the_scope),
    ("without_affinity_nothing_is_remembered", without_affinity_nothing_is_remembered),
    ("affinity_ends_with_its_last_second", affinity_ends_with_its_last_second),
    ("services_remember_apart", services_remember_apart),
    ("a_kept_client_leaves_no_trace_for_others", a_kept_client_leaves_no_trace_for_others),
];

const TIMEOUT_SECS: u32 = 100;

fn backends(net: Net) -> Vec<End> {
    (20..28).map(|host| (net.host(host), 8080)).collect()
}

/// The ways to choose a backend for a client without affinity.
const KINDS: [u8; 2] = [0, ScopeFlags::MAGLEV];

/// A frontend of this transport with affinity.
fn service(scene: &mut Scene<'_>, kind: u8, transport: Transport, backends: &[End]) {
    let slots = if kind == ScopeFlags::MAGLEV { maglev::table(backends) } else { backends.to_vec() };
    let scope = scene.pool(1, &slots).with_flags(ScopeFlags::AFFINITY | kind);
    scene.frontend(1, scene.net.vip(), super::scene::proto(transport), scope);
    scene.keep_clients(1, TIMEOUT_SECS);
}

/// The backends of connections from these ports of a host.
fn dial(scene: &mut Scene<'_>, transport: Transport, host: u8, ports: std::ops::Range<u16>) -> BTreeSet<End> {
    let client = scene.net.host(host);
    let vip = scene.net.vip();
    ports.map(|port| scene.through(Program::WorkloadIngress, transport, (client, port), vip).1).collect()
}

/// SA-01, SA-06: from any port, with TCP and with UDP.
fn a_client_keeps_its_backend(scene: &mut Scene<'_>) {
    for kind in KINDS {
        for (transport, host) in [(SYN, 2), (UDP, 3)] {
            let backends = backends(scene.net);
            service(scene, kind, transport, &backends);
            assert_eq!(dial(scene, transport, host + kind, 1000..1050).len(), 1, "{transport:?}");
        }
    }
}

fn clients_are_kept_apart(scene: &mut Scene<'_>) {
    for (kind, port) in [(KINDS[0], 1000), (KINDS[1], 2000)] {
        let backends = backends(scene.net);
        service(scene, kind, SYN, &backends);
        let chosen: BTreeSet<End> = (30..130).flat_map(|host| dial(scene, SYN, host, port..port + 2)).collect();
        // 100 even draws out of eight miss one with a probability below 1e-4, and the host draws the same in each run.
        assert_eq!(chosen.len(), backends.len());
    }
}

/// If the affinity entry of a client is evicted, the hash chooses the same backend again.
fn maglev_finds_the_backend_of_a_client_that_is_forgotten(scene: &mut Scene<'_>) {
    let backends = backends(scene.net);
    service(scene, ScopeFlags::MAGLEV, SYN, &backends);
    for host in 30..50 {
        let first = dial(scene, SYN, host, 1000..1001);
        scene.machine().age_flows(u64::from(TIMEOUT_SECS) + 1);
        assert_eq!(dial(scene, SYN, host, 2000..2010), first);
    }
}

/// SA-02: each new connection restarts the time-out. After the time-out any backend may be chosen.
fn affinity_slides_and_ends(scene: &mut Scene<'_>) {
    let backends = backends(scene.net);
    service(scene, KINDS[0], SYN, &backends);
    let first = dial(scene, SYN, 2, 1000..1001);
    for round in 0..8 {
        scene.machine().age_flows(u64::from(TIMEOUT_SECS) - 10);
        assert_eq!(dial(scene, SYN, 2, 1001 + round..1002 + round), first, "round {round}");
    }
    let mut chosen = BTreeSet::new();
    for round in 0..64 {
        scene.machine().age_flows(u64::from(TIMEOUT_SECS) + 1);
        chosen.extend(dial(scene, SYN, 2, 2000 + round..2001 + round));
    }
    assert!(chosen.len() > 1, "64 draws out of eight are all the same");
}

/// SA-04: a backend that returns does not get its former clients back.
fn a_backend_that_is_gone_is_replaced_for_good(scene: &mut Scene<'_>) {
    for (kind, host) in [(KINDS[0], 2), (KINDS[1], 3)] {
        let backends = backends(scene.net);
        service(scene, kind, SYN, &backends);
        let first = dial(scene, SYN, host, 1000..1001);
        let others: Vec<End> = backends.iter().copied().filter(|end| !first.contains(end)).collect();
        service(scene, kind, SYN, &others);
        let second = dial(scene, SYN, host, 1001..1030);
        assert!(second.len() == 1 && first.is_disjoint(&second), "{first:?}, then {second:?}");
        service(scene, kind, SYN, &backends);
        assert_eq!(dial(scene, SYN, host, 1030..1060), second);
    }
}

/// SA-05: under policy Local a client does not get a remote endpoint that it had as a pod.
fn affinity_stays_within_the_set_of_the_scope(scene: &mut Scene<'_>) {
    let (local, remote) = (scene.net.backend(), scene.net.other_backend());
    let workload = scene.pool(1, &[remote]).with_flags(ScopeFlags::AFFINITY);
    let external = scene.more_pool(1, &[local], MemberSets::CLUSTER | MemberSets::LOCAL);
    let external = external.with_flags(ScopeFlags::AFFINITY | ScopeFlags::POOL_LOCAL);
    scene.frontend_scopes(1, scene.net.vip(), lb_common::addr::Proto::TCP, [workload, workload, external]);
    scene.keep_clients(1, TIMEOUT_SECS);
    assert_eq!(dial(scene, SYN, 2, 1000..1001), [remote].into());
    let client = (scene.net.host(2), 1001);
    assert_eq!(scene.through(Program::UplinkIngress, SYN, client, scene.net.vip()), (client, local));
}

fn without_affinity_nothing_is_remembered(scene: &mut Scene<'_>) {
    let backends = backends(scene.net);
    scene.service(SYN, &backends);
    assert!(dial(scene, SYN, 2, 1000..1100).len() > 1);
    // Backends from before affinity was set do not count either.
    let before: Vec<_> = (30..130).map(|host| dial(scene, SYN, host, 1000..1001)).collect();
    service(scene, 0, SYN, &backends);
    let after: Vec<_> = (30..130).map(|host| dial(scene, SYN, host, 1001..1002)).collect();
    assert_ne!(before, after, "a hundred clients got what they had had");
}

/// At the time-out itself affinity has ended.
fn affinity_ends_with_its_last_second(scene: &mut Scene<'_>) {
    let backends = backends(scene.net);
    service(scene, 0, SYN, &backends);
    let mut chosen = BTreeSet::new();
    for round in 0..64 {
        chosen.extend(dial(scene, SYN, 2, 2000 + round..2001 + round));
        scene.machine().age_flows(u64::from(TIMEOUT_SECS));
    }
    assert!(chosen.len() > 1, "64 draws out of eight are all the same");
}

/// SA-01: a client's backend at one Service does not affect another Service, even one with the same backends.
fn services_remember_apart(scene: &mut Scene<'_>) {
    let backends = backends(scene.net);
    service(scene, 0, SYN, &backends);
    let scope = scene.pool(2, &backends).with_flags(ScopeFlags::AFFINITY);
    scene.frontend(2, scene.net.other_vip(), lb_common::addr::Proto::TCP, scope);
    scene.keep_clients(2, TIMEOUT_SECS);
    let dial_other = |scene: &mut Scene<'_>, host| {
        let (client, vip) = ((scene.net.host(host), 1001), scene.net.other_vip());
        [scene.through(Program::WorkloadIngress, SYN, client, vip).1].into()
    };
    let first: Vec<BTreeSet<End>> = (30..130).map(|host| dial(scene, SYN, host, 1000..1001)).collect();
    let second: Vec<BTreeSet<End>> = (30..130).map(|host| dial_other(scene, host)).collect();
    assert_ne!(first, second, "a hundred clients have the same backend at both");
}

/// The next packet may be for a Service without affinity.
fn a_kept_client_leaves_no_trace_for_others(scene: &mut Scene<'_>) {
    let backends = backends(scene.net);
    service(scene, 0, SYN, &backends);
    let kept = dial(scene, SYN, 2, 1000..1001);
    let other = *backends.iter().find(|end| !kept.contains(end)).expect("the client has one of them");
    let scope = scene.pool(2, &[other]);
    scene.frontend(2, scene.net.other_vip(), lb_common::addr::Proto::TCP, scope);
    for port in 1000..1016 {
        assert_eq!(dial(scene, SYN, 2, 2 * port..2 * port + 2), kept, "what another Service chose is not remembered");
        let client = (scene.net.host(2), port);
        assert_eq!(scene.through(Program::WorkloadIngress, SYN, client, scene.net.other_vip()), (client, other));
    }
}
