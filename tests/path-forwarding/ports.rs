//! The ports of the node that forwarded flows use: each has one flow, and goes to another when that one is over or idle.

use std::collections::BTreeSet;

use lb_common::addr::Proto;
use lb_common::table::Counter;
use lb_common::verdict::HookAction;
use lb_common::way::SnatPorts;
use lb_tests::cases::{ACK, FIN, RST, SYN, SYN_ACK, Scene, UDP, proto};
use lb_tests::machine::{HostMachine, Machine as _, Program};
use lb_tests::packet::Described;

use super::{NETS, arrive, forwarding, machine, open, publish, remote};

#[test]
fn a_connection_ends_and_its_tuple_is_free_again() {
    for net in NETS {
        let mut machine = machine(net, SnatPorts { first: 61_000, last: 61_000 });
        publish(net, SYN, &mut machine);
        let (client, vip, next) = (net.client(), net.vip(), (net.host(3), 40_001));
        let source = open(&mut machine, SYN, client, vip);
        for (from, to, flags) in [(remote(net), source, SYN_ACK), (client, vip, ACK), (client, vip, FIN)] {
            arrive(&mut machine, flags, from, to).expect("it is forwarded");
        }
        assert_eq!(arrive(&mut machine, SYN, next, vip), Err(HookAction::Drop), "the only port is taken");
        assert_eq!(machine.counters()[&Counter::DropNoPort], 1);
        arrive(&mut machine, FIN, remote(net), source).expect("it is forwarded");
        assert_eq!(open(&mut machine, SYN, next, vip), source, "both ends have closed");
    }
}

/// As many connections as ports, and no two with the same source.
#[test]
fn no_two_connections_share_a_source() {
    for net in NETS {
        const PORTS: u16 = 64;
        let mut machine = machine(net, SnatPorts { first: 50_000, last: 50_000 + PORTS - 1 });
        publish(net, SYN, &mut machine);
        let dial = |port, machine: &mut HostMachine| arrive(machine, SYN, (net.host(9), port), net.vip());
        let sources: Vec<_> = (1..=PORTS).filter_map(|port| dial(port, &mut machine).ok()).collect();
        let different: BTreeSet<_> = sources.iter().map(|(source, _)| *source).collect();
        assert_eq!(different.len(), sources.len());
        // 32 random ports are tried for each: the last few may find none.
        assert!(sources.len() > 58, "{net:?}: {} of {PORTS}", sources.len());
        let failed = machine.counters().get(&Counter::DropNoPort).copied().unwrap_or(0);
        assert_eq!(failed + sources.len() as u64, u64::from(PORTS));
    }
}

/// A flood of SYNs has taken every port. Each later client gets one of them at once, as soon as they are a second old.
#[test]
fn ports_of_a_flood_go_to_the_clients_behind_it() {
    const PORTS: u16 = 256;
    for net in NETS {
        let mut machine = machine(net, SnatPorts { first: 50_000, last: 50_000 + PORTS - 1 });
        publish(net, SYN, &mut machine);
        let dial = |host, port, machine: &mut HostMachine| arrive(machine, SYN, (net.host(host), port), net.vip());
        while machine.flows().len() < 2 * usize::from(PORTS) {
            let port = 1 + u16::try_from(machine.counters().values().sum::<u64>() % 60_000).expect("a port");
            let _ = dial(9, port, &mut machine);
        }
        let before = machine.counters().get(&Counter::DropNoPort).copied();
        machine.age_flows(2);
        for port in 1..=PORTS / 2 {
            dial(7, port, &mut machine).expect("it is forwarded");
        }
        assert_eq!(machine.counters().get(&Counter::DropNoPort).copied(), before, "{net:?}");
        assert_eq!(machine.flows().len(), 2 * usize::from(PORTS), "each took the place of another");
    }
}

/// The agent was started with other ports: connections keep theirs.
#[test]
fn answers_to_earlier_ports_are_still_known() {
    for net in NETS {
        let mut machine = forwarding(net, SYN);
        let source = open(&mut machine, SYN, net.client(), net.vip());
        machine.host.routes.snat_ports = Some(SnatPorts { first: 30_000, last: 30_100 });
        arrive(&mut machine, SYN_ACK, remote(net), source).expect("it is forwarded");
        let source = open(&mut machine, SYN, (net.host(3), 40_001), net.vip());
        assert!((30_000..=30_100).contains(&source.1));
        arrive(&mut machine, SYN_ACK, remote(net), source).expect("it is forwarded");
    }
}

/// A flood of SYNs leaves no port: a half-open flow goes for a new one after a second.
#[test]
fn half_open_flows_make_room() {
    for net in NETS {
        let mut machine = machine(net, SnatPorts { first: 61_000, last: 61_003 });
        publish(net, SYN, &mut machine);
        let dial = |port, machine: &mut HostMachine| arrive(machine, SYN, (net.host(9), port), net.vip()).is_ok();
        let opened = (1..=20).filter(|port| dial(*port, &mut machine)).count();
        assert_eq!(opened, 4, "{net:?}");
        machine.age_flows(2);
        // Random ports are tried, and those that were taken over are young again.
        let opened = (21..=40).filter(|port| dial(*port, &mut machine)).count();
        assert!((3..=4).contains(&opened), "{net:?}: {opened}");
    }
}

/// An endpoint of this node may listen on a port of the range: its answers are replies.
#[test]
fn an_endpoint_here_may_have_a_port_of_the_range() {
    for net in NETS {
        for transport in [SYN, UDP] {
            let mut machine = forwarding(net, transport);
            let endpoint = (net.other_backend().0, 61_234);
            let mut scene = Scene::new(net, &mut machine);
            let scope = scene.pool(1, &[endpoint]);
            scene.frontend(1, net.vip(), proto(transport), scope);
            scene.through(Program::UplinkIngress, transport, net.client(), net.vip());
            let answer = if transport == SYN { SYN_ACK } else { UDP };
            for _ in 0..2 {
                let ends = scene.through(Program::UplinkEgress, answer, endpoint, net.client());
                assert_eq!(ends, (net.vip(), net.client()), "{net:?} {transport:?}");
            }
            scene.through(Program::UplinkEgress, RST, endpoint, net.client());
        }
    }
}

/// A restart without forwarding: a connection is over, and its client's port gets another flow.
#[test]
fn a_flow_that_may_not_be_forwarded_any_more_blocks_no_other() {
    for net in NETS {
        let mut machine = forwarding(net, SYN);
        open(&mut machine, SYN, net.client(), net.vip());
        machine.host.routes.snat_ports = None;
        let segment = Described::new(ACK, net.client(), net.vip()).bytes();
        assert_eq!(machine.run(Program::UplinkIngress, &segment), (HookAction::Next, segment));
        let mut scene = Scene::new(net, &mut machine);
        let scope = scene.pool(1, &[net.other_backend()]);
        scene.frontend(1, net.vip(), Proto::TCP, scope);
        let ends = scene.through(Program::UplinkIngress, SYN, net.client(), net.vip());
        assert_eq!(ends, (net.client(), net.other_backend()));
    }
}
