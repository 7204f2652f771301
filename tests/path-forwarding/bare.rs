//! The same on interfaces whose packets have no link header.

use lb_common::verdict::HookAction;
use lb_common::way::SnatPorts;
use lb_tests::cases::UDP;
use lb_tests::machine::{HostMachine, Machine as _, Program};
use lb_tests::packet::Described;

use crate::{NETS, lower_hops, node, publish, remote, routes};

/// Tunnels: the packets, and the errors about them, are the same without a link header.
#[test]
fn packets_without_a_link_header_are_forwarded_alike() {
    for net in NETS {
        let steps = |mut machine: HostMachine| {
            machine.host.routes = routes(net, SnatPorts { first: 61_000, last: 61_000 });
            publish(net, UDP, &mut machine);
            let source = (node(net), 61_000);
            let mut last = Described::new(UDP, net.client(), net.vip()).bytes();
            lower_hops(net, &mut last);
            let mut seen = Vec::new();
            for packet in [
                Described::new(UDP, net.client(), net.vip()).bytes(),
                Described::new(UDP, remote(net), source).bytes(),
                Described { payload: vec![7; 600], ..Described::new(UDP, net.client(), net.vip()) }.bytes(),
                last,
            ] {
                machine.host.routes.mtu_bytes = 600;
                seen.push(machine.run(Program::UplinkIngress, &packet));
            }
            (seen, machine.counters())
        };
        let (framed, bare) = (steps(HostMachine::default()), steps(HostMachine::without_link_headers()));
        let actions: Vec<_> = framed.0.iter().map(|(action, _)| *action).collect();
        assert_eq!(actions, [HookAction::SendOut, HookAction::SendOut, HookAction::SendBack, HookAction::SendBack]);
        assert_eq!(framed, bare, "{net:?}");
    }
}
