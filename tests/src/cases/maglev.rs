//! Selection by the hash of the flow: the same backend each time, without any state.

use std::collections::BTreeMap;

use lb_common::table::{Direction, ScopeFlags};
use lb_common::verdict::HookAction;

use super::scene::{SYN, Scene, UDP, proto};
use super::{Case, Net};
use crate::machine::Program;
use crate::packet::{Described, End, Transport};
use crate::reference::slot;

pub const CASES: &[Case] = &[
    ("a_flow_goes_where_its_hash_says", a_flow_goes_where_its_hash_says),
    ("a_forgotten_flow_finds_its_backend_again", a_forgotten_flow_finds_its_backend_again),
    ("a_taken_tuple_costs_the_port_and_not_the_backend", a_taken_tuple_costs_the_port_and_not_the_backend),
    ("sctp_leaves_the_backend_of_its_hash_where_it_must", sctp_leaves_the_backend_of_its_hash_where_it_must),
    ("an_empty_slot_is_told", an_empty_slot_is_told),
];

fn backends(net: Net) -> Vec<End> {
    (20..28).map(|host| (net.host(host), 8080)).collect()
}

/// A table with many slots for each backend. Their order is the agent's task and does not matter here.
pub fn table(backends: &[End]) -> Vec<End> {
    (0..61).map(|slot| backends[slot * 7 % backends.len()]).collect()
}

/// A frontend of this transport that uses Maglev.
fn service(scene: &mut Scene<'_>, transport: Transport, slots: &[End]) {
    let scope = scene.pool(1, slots).with_flags(ScopeFlags::MAGLEV);
    scene.frontend(1, scene.net.vip(), proto(transport), scope);
}

fn dial(scene: &mut Scene<'_>, transport: Transport, client: End) -> (End, End) {
    let vip = scene.net.vip();
    scene.through(Program::WorkloadIngress, transport, client, vip)
}

fn a_flow_goes_where_its_hash_says(scene: &mut Scene<'_>) {
    let slots = table(&backends(scene.net));
    for transport in [SYN, UDP, Transport::Sctp] {
        service(scene, transport, &slots);
        for number in 0..200 {
            let client = (scene.net.host(number % 10 + 30), 1000 + u16::from(number));
            let slot = slot(client, scene.net.vip(), proto(transport), slots.len());
            let (from, to) = dial(scene, transport, client);
            assert_eq!((from, to.0), (client, slots[slot].0), "{transport:?}");
        }
    }
}

fn a_forgotten_flow_finds_its_backend_again(scene: &mut Scene<'_>) {
    let slots = table(&backends(scene.net));
    service(scene, UDP, &slots);
    let clients: Vec<End> = (1..100).map(|port| (scene.net.host(2), port)).collect();
    let first: Vec<End> = clients.iter().map(|client| dial(scene, UDP, *client).1).collect();
    assert!(first.iter().collect::<std::collections::BTreeSet<_>>().len() > 1);
    for direction in [Direction::Request, Direction::Reply] {
        scene.machine().evict(direction);
    }
    let second: Vec<End> = clients.iter().map(|client| dial(scene, UDP, *client).1).collect();
    assert_eq!(first, second);
}

/// Two frontends with the same backends: the same client port must not collide with itself, and both follow their
/// tables.
fn a_taken_tuple_costs_the_port_and_not_the_backend(scene: &mut Scene<'_>) {
    let slots = [scene.net.backend(); 61];
    let scope = scene.pool(1, &slots).with_flags(ScopeFlags::MAGLEV);
    let (client, vips) = (scene.net.client(), [scene.net.vip(), scene.net.other_vip()]);
    let mut ports = BTreeMap::new();
    for (id, vip) in (1..).zip(vips) {
        scene.frontend(id, vip, lb_common::addr::Proto::TCP, scope);
        let (from, to) = scene.through(Program::WorkloadIngress, SYN, client, vip);
        assert_eq!((from.0, to), (client.0, scene.net.backend()));
        ports.insert(from.1, vip);
    }
    assert_eq!(ports.len(), 2, "each has a source port of its own");
    assert_eq!(ports[&client.1], vips[0], "who came first keeps its port");
}

/// SCTP cannot change its port. If its tuple at the backend of the hash is taken, it moves to another backend. With
/// affinity it has no other.
fn sctp_leaves_the_backend_of_its_hash_where_it_must(scene: &mut Scene<'_>) {
    let (client, vips) = (scene.net.client(), [scene.net.vip(), scene.net.other_vip()]);
    let (backend, other) = ((scene.net.backend().0, 80), (scene.net.other_backend().0, 80));
    let scope = scene.pool(1, &[backend]);
    scene.frontend(1, vips[0], lb_common::addr::Proto::SCTP, scope);
    assert_eq!(scene.through(Program::WorkloadIngress, Transport::Sctp, client, vips[0]), (client, backend));
    let mut moved = 0;
    for round in 0..40 {
        let mut slots = vec![backend; 61];
        let hashed = slot(client, vips[1], lb_common::addr::Proto::SCTP, slots.len());
        for at in 1..=30 {
            slots[(hashed + at) % 61] = other;
        }
        let scope = scene.pool(2, &slots).with_flags(ScopeFlags::MAGLEV);
        scene.frontend(2, vips[1], lb_common::addr::Proto::SCTP, scope);
        let packet = Described::new(Transport::Sctp, client, vips[1]);
        let (action, after) = scene.run(Program::WorkloadIngress, &packet);
        if action == HookAction::Next {
            assert_eq!(after.ends(), Some((client, other)), "round {round}");
            moved += 1;
        }
        // The next round begins with a new flow.
        scene.machine().age_flows(60);
        scene.through(Program::WorkloadIngress, Transport::Sctp, client, vips[0]);
        scene.machine().age_flows(61);
        scene.through(Program::WorkloadIngress, Transport::Sctp, client, vips[0]);
    }
    assert!(moved > 30, "{moved} of 40 found the other backend, which has half of the slots, in six draws");
}

/// A torn view of the tables: the packet is dropped and counted, as with random selection.
fn an_empty_slot_is_told(scene: &mut Scene<'_>) {
    let scope = scene.pool(1, &[scene.net.backend()]);
    let missing = lb_common::table::Scope { pool: scope.pool + 1, ..scope }.with_flags(ScopeFlags::MAGLEV);
    scene.frontend(1, scene.net.vip(), lb_common::addr::Proto::TCP, missing);
    let packet = Described::new(SYN, scene.net.client(), scene.net.vip());
    assert_eq!(scene.run(Program::WorkloadIngress, &packet).0, HookAction::Drop);
    assert_eq!(scene.counters()[&lb_common::table::Counter::DropNoBackend], 1);
}
