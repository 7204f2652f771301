//! The packet path compiled for the host, for conditions that the kernel does not let a test set: two CPUs at once, a
//! clock that is behind, a full table, old flows. No privilege.

use lb_common::addr::Proto;
use lb_common::host::Repairs;
use lb_common::table::{Counter, Direction, FlowState, ScopeFlags};
use lb_common::verdict::HookAction;
use lb_tests::cases::{ACK, FIN, Net, RST, SYN, SYN_ACK, Scene};
use lb_tests::machine::{Flows, HostMachine, Machine as _, Program};
use lb_tests::packet::{Described, End, Transport, read};

/// A pod at its share loses a connection that it has closed in favour of a new one; without a closed one the new one is
/// refused. If the agent has not checked the tables for long, none is refused.
#[test]
fn a_pod_keeps_to_its_share_while_somebody_looks() {
    for net in [Net::V4, Net::V6] {
        let mut machine = HostMachine::with_flow_entries(40);
        let mut scene = Scene::new(net, &mut machine);
        scene.service(SYN, &[net.backend()]);
        let mut send = |program, transport, port| {
            let client = (net.client().0, port);
            let (from, to) =
                if program == Program::WorkloadEgress { (net.backend(), client) } else { (client, net.vip()) };
            scene.run(program, &Described::new(transport, from, to)).0
        };
        let (request, reply) = (Program::WorkloadIngress, Program::WorkloadEgress);
        let opened = |send: &mut dyn FnMut(_, _, _) -> _, port| {
            [(request, SYN), (reply, SYN_ACK), (request, ACK)].map(|(program, flags)| send(program, flags, port))[0]
        };
        // The network has ten entries; the pod gets half of the other thirty.
        (1..=5).for_each(|port| assert_eq!(send(Program::UplinkIngress, SYN, port), HookAction::Next));
        for port in 1..=7 {
            assert_eq!(opened(&mut send, port), HookAction::Next, "{net:?} {port}");
        }
        assert_eq!(send(request, SYN, 8), HookAction::Drop, "{net:?}");
        assert_eq!(send(Program::UplinkIngress, SYN, 6), HookAction::Next, "{net:?}");
        assert_eq!([send(request, FIN, 3), send(reply, FIN, 3)], [HookAction::Next; 2]);
        assert_eq!(opened(&mut send, 9), HookAction::Next, "{net:?}: one was closed");
        assert_eq!(send(request, SYN, 10), HookAction::Drop, "{net:?}");
        assert_eq!(machine.counters()[&Counter::EdgeFlowEvicted], 1, "{net:?}");
        assert_eq!(machine.flows().len(), 2 * (6 + 7), "{net:?}");
        machine.age_flows(601);
        let syn = Described::new(SYN, (net.client().0, 11), net.vip()).bytes();
        assert_eq!(machine.run(request, &syn).0, HookAction::Next, "{net:?}: nobody looks after the table");
    }
}

/// Two CPUs make flows that want the same reply tuple, one between the two inserts of the other: each gets a complete
/// flow.
#[test]
fn a_reservation_of_another_cpu_is_left_alone() {
    for net in [Net::V4, Net::V6] {
        let (client, backend, vips) = (net.client(), net.backend(), [net.vip(), net.other_vip()]);
        let mut machine = HostMachine::default();
        let mut scene = Scene::new(net, &mut machine);
        for (id, vip) in (1..).zip(vips) {
            let scope = scene.pool(id, &[backend]);
            scene.frontend(id, vip, Proto::TCP, scope);
        }
        machine.meanwhile(Program::WorkloadIngress, &Described::new(SYN, client, vips[1]).bytes());
        let (action, bytes) = machine.run(Program::WorkloadIngress, &Described::new(SYN, client, vips[0]).bytes());
        assert_eq!((action, machine.outcome_meanwhile()), (HookAction::Next, Some(HookAction::Next)));
        assert_eq!(read(&bytes).ends(), Some((client, backend)));
        assert_eq!(whole_entries(&mut machine), 4, "{net:?}");
    }
}

/// The same SYN on two CPUs, as with a retransmission: one flow, which both packets use.
#[test]
fn the_same_packet_on_two_cpus_makes_one_flow() {
    for net in [Net::V4, Net::V6] {
        let mut machine = HostMachine::default();
        let mut scene = Scene::new(net, &mut machine);
        scene.service(SYN, &[net.backend()]);
        let syn = Described::new(SYN, net.client(), net.vip()).bytes();
        machine.meanwhile(Program::WorkloadIngress, &syn);
        let first = machine.run(Program::WorkloadIngress, &syn);
        assert_eq!((first.0, machine.outcome_meanwhile()), (HookAction::Next, Some(HookAction::Next)));
        assert_eq!(whole_entries(&mut machine), 2, "{net:?}");
        assert_eq!(machine.run(Program::WorkloadIngress, &syn), first, "the next one goes the same way");
    }
}

/// The number of entries; each must have its other half.
fn whole_entries(machine: &mut HostMachine) -> usize {
    let Flows { v4, v6 } = machine.flows();
    for (key, flow) in &v4 {
        assert!(v4.contains_key(&key.partner(&flow.to)), "{key:?} has no other half");
    }
    for (key, flow) in &v6 {
        assert!(v6.contains_key(&key.partner(&flow.to)), "{key:?} has no other half");
    }
    v4.len() + v6.len()
}

/// Affinity is measured in whole seconds of a clock that another CPU may have read later.
#[test]
fn a_clock_that_is_behind_forgets_nobody() {
    let net = Net::V4;
    let mut machine = HostMachine::default();
    let backends: Vec<End> = (20..28).map(|host| (net.host(host), 8080)).collect();
    let mut scene = Scene::new(net, &mut machine);
    let scope = scene.pool(1, &backends).with_flags(ScopeFlags::AFFINITY);
    scene.frontend(1, net.vip(), Proto::TCP, scope);
    scene.keep_clients(1, 100);
    let (_, kept) = scene.request(SYN);
    for port in 1..30 {
        machine.fall_behind(100);
        let syn = Described::new(SYN, (net.client().0, port), net.vip()).bytes();
        let (_, bytes) = machine.run(Program::WorkloadIngress, &syn);
        assert_eq!(read(&bytes).ends().map(|(_, to)| to), Some(kept));
    }
}

/// A machine whose flow table is full, and on which everything is old enough.
fn repairing() -> HostMachine {
    let mut machine = HostMachine::default();
    machine.age_flows(90_000);
    machine.host.settings.repairs =
        Some(Repairs { evictions_until_jiffies: u64::MAX, attached_jiffies: 1, balanced_jiffies: 1 });
    machine
}

/// A Maglev frontend over these backends.
fn maglev(scene: &mut Scene<'_>, slots: &[End]) {
    let scope = scene.pool(1, slots).with_flags(ScopeFlags::MAGLEV);
    scene.frontend(1, scene.net.vip(), Proto::TCP, scope);
}

fn two_backends(net: Net) -> [End; 7] {
    let (one, other) = (net.backend(), net.other_backend());
    [one, other, one, other, one, one, other]
}

/// A segment of the client without a flow; returns its ends afterwards, if they changed.
fn segment(scene: &mut Scene<'_>, transport: Transport, client: End) -> Option<(End, End)> {
    let vip = scene.net.vip();
    let ends = scene.through(Program::WorkloadIngress, transport, client, vip);
    (ends != (client, vip)).then_some(ends)
}

#[test]
fn an_evicted_flow_is_repaired_where_its_hash_leads() {
    for net in [Net::V4, Net::V6] {
        let mut machine = repairing();
        let mut scene = Scene::new(net, &mut machine);
        maglev(&mut scene, &two_backends(net));
        for port in 1..50 {
            let client = (net.host(2), port);
            let opened = scene.through(Program::WorkloadIngress, SYN, client, net.vip());
            scene.through(Program::WorkloadEgress, SYN_ACK, opened.1, client);
            for lost in [&[Direction::Request, Direction::Reply][..], &[Direction::Request]] {
                for direction in lost {
                    scene.machine().evict(*direction);
                }
                assert_eq!(segment(&mut scene, ACK, client), Some(opened), "{net:?}, lost {lost:?}");
                // The backend knows the connection: one answer establishes the flow.
                assert_eq!(scene.through(Program::WorkloadEgress, ACK, opened.1, client), (net.vip(), client));
                let flows = scene.machine().flows();
                let states: Vec<_> = flows.v4.values().map(|flow| flow.state).collect();
                let states6: Vec<_> = flows.v6.values().map(|flow| flow.state).collect();
                assert!([states, states6].concat().iter().all(|state| *state == FlowState::Established));
            }
            scene.machine().evict(Direction::Request);
            scene.machine().evict(Direction::Reply);
        }
        assert_eq!(scene.counters()[&Counter::FlowRepaired], 98);
    }
}

#[test]
fn what_may_never_have_had_a_flow_is_not_repaired() {
    let net = Net::V4;
    let client = net.client();
    let old = repairing().host.settings.repairs.expect("it repairs");
    for (repairs, what) in [
        (None, "it is off"),
        (Some(Repairs { evictions_until_jiffies: 0, ..old }), "nothing was evicted"),
        (Some(Repairs { attached_jiffies: 0, ..old }), "nobody knows since when the interface is attached"),
        (Some(Repairs { attached_jiffies: 9_000_000, ..old }), "the interface is new"),
        (Some(Repairs { balanced_jiffies: 0, ..old }), "nobody knows since when the frontend balances"),
        (Some(Repairs { balanced_jiffies: 9_000_000, ..old }), "the frontend is new"),
    ] {
        let mut machine = repairing();
        machine.host.settings.repairs = repairs;
        let mut scene = Scene::new(net, &mut machine);
        maglev(&mut scene, &two_backends(net));
        lose_a_flow(&mut scene, client);
        assert_eq!(segment(&mut scene, ACK, client), None, "{what}");
        assert!(scene.machine().flows().is_empty(), "{what}");
    }
    let mut machine = repairing();
    let mut scene = Scene::new(net, &mut machine);
    scene.service(SYN, &two_backends(net));
    assert_eq!(segment(&mut scene, ACK, client), None, "no connection has had such a port");
    lose_a_flow(&mut scene, client);
    assert_eq!(segment(&mut scene, ACK, client), None, "chance chose, nobody knows whom");
    maglev(&mut scene, &two_backends(net));
    for transport in [RST, SYN_ACK] {
        assert_eq!(segment(&mut scene, transport, client), None, "{transport:?}");
    }
    scene.restrict(1, &[(net.host(9), 32)]);
    assert_eq!(segment(&mut scene, ACK, client), None, "the client is not let in");
    assert!(scene.machine().flows().is_empty());
    scene.restrict(1, &[(client.0, 32)]);
    assert!(segment(&mut scene, ACK, client).is_some());
}

/// Opens a connection, and evicts its flow.
fn lose_a_flow(scene: &mut Scene<'_>, client: End) {
    scene.through(Program::WorkloadIngress, SYN, client, scene.net.vip());
    scene.machine().evict(Direction::Request);
    scene.machine().evict(Direction::Reply);
}

/// Another connection has had the tuple since: this one cannot have had it.
#[test]
fn a_repair_takes_no_other_port() {
    let net = Net::V4;
    let mut machine = repairing();
    let mut scene = Scene::new(net, &mut machine);
    maglev(&mut scene, &[net.backend(); 7]);
    let scope = scene.pool(2, &[net.backend()]);
    scene.frontend(2, net.other_vip(), Proto::TCP, scope);
    scene.through(Program::WorkloadIngress, SYN, net.client(), net.other_vip());
    assert_eq!(segment(&mut scene, ACK, net.client()), None);
    assert_eq!(scene.machine().flows().len(), 2);
}
