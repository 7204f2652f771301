//! Forwarding to endpoints of other nodes, by the packet path compiled for the host: which tuple a packet gets, when it
//! leaves, and which ICMP error its sender gets if it does not. No privilege.

mod bare;
mod ports;

use std::net::IpAddr;
use std::sync::Arc;

use lb_common::addr::Proto;
use lb_common::host::{Repairs, Routes};
use lb_common::table::{Counter, Direction, MemberSets, ScopeFlags};
use lb_common::verdict::HookAction;
use lb_common::way::SnatPorts;
use lb_tests::cases::{ACK, Net, RST, SYN, SYN_ACK, Scene, UDP, proto};
use lb_tests::machine::{HostMachine, Machine as _, Program};
use lb_tests::packet::{Answer, Described, End, Transport, read};

const NETS: [Net; 2] = [Net::V4, Net::V6];
/// An MTU of 1280, in the second word as in both families.
const MTU: [u8; 4] = [0, 0, 5, 0];

/// The node's address on the way to other nodes.
fn node(net: Net) -> IpAddr {
    net.host(1)
}

/// The endpoint on another node.
fn remote(net: Net) -> End {
    net.backend()
}

/// A node that forwards from these ports, and its frontend with endpoints on other nodes.
fn machine(net: Net, ports: SnatPorts) -> HostMachine {
    let mut machine = HostMachine::default();
    machine.host.routes = routes(net, ports);
    machine
}

fn routes(net: Net, ports: SnatPorts) -> Routes {
    let remote = [remote(net), net.other_backend()].map(|(endpoint, _)| (endpoint, node(net)));
    Routes { snat_ports: Some(ports), remote: remote.into(), ..Routes::default() }
}

fn publish(net: Net, transport: Transport, machine: &mut HostMachine) {
    publish_with(net, transport, 0, machine);
}

fn publish_with(net: Net, transport: Transport, flags: u8, machine: &mut HostMachine) {
    let mut scene = Scene::new(net, machine);
    let scope = scene.pool(1, &[remote(net)]).with_flags(ScopeFlags::MASQUERADE | flags);
    scene.frontend(1, net.vip(), proto(transport), scope);
    scene.keep_clients(1, 100);
}

/// The usual node.
fn forwarding(net: Net, transport: Transport) -> HostMachine {
    let mut machine = machine(net, SnatPorts::DEFAULT);
    publish(net, transport, &mut machine);
    machine
}

/// Runs a packet of the network; returns its ends if it leaves.
fn arrive(machine: &mut HostMachine, transport: Transport, from: End, to: End) -> Result<(End, End), HookAction> {
    let (action, bytes) = machine.run(Program::UplinkIngress, &Described::new(transport, from, to).bytes());
    if action == HookAction::SendOut { Ok(read(&bytes).ends().expect("ports")) } else { Err(action) }
}

/// Opens a flow; returns the source that the endpoint sees.
fn open(machine: &mut HostMachine, transport: Transport, client: End, vip: End) -> End {
    let (source, _) = arrive(machine, transport, client, vip).expect("it is forwarded");
    source
}

#[test]
fn a_request_leaves_with_the_nodes_address_and_its_answer_with_the_frontends() {
    for net in NETS {
        for transport in [SYN, UDP, Transport::UdpUnsummed, Transport::Sctp] {
            let mut machine = forwarding(net, transport);
            let (client, vip) = (net.client(), net.vip());
            // SCTP keeps its ports.
            let target = if transport == Transport::Sctp { (remote(net).0, vip.1) } else { remote(net) };
            let answer = if transport == SYN { SYN_ACK } else { transport };
            let (source, to) = arrive(&mut machine, transport, client, vip).expect("it is forwarded");
            assert_eq!((source.0, to), (node(net), target), "{net:?} {transport:?}");
            assert_eq!((61_000..=65_535).contains(&source.1), transport != Transport::Sctp);
            for _ in 0..2 {
                assert_eq!(arrive(&mut machine, answer, target, source), Ok((vip, client)), "{net:?} {transport:?}");
                assert_eq!(arrive(&mut machine, transport, client, vip), Ok((source, target)), "the same flow");
            }
            assert_eq!(machine.counters()[&Counter::Forwarded], 5);
            assert_eq!(machine.counters()[&Counter::FlowCreated], 1);
        }
    }
}

#[test]
fn an_endpoint_on_this_node_sees_its_client() {
    for net in NETS {
        let mut machine = machine(net, SnatPorts::DEFAULT);
        publish(net, SYN, &mut machine);
        let tables = Arc::make_mut(&mut machine.host.tables);
        tables.v4.members.values_mut().for_each(|member| member.sets |= MemberSets::NEAR);
        tables.v6.members.values_mut().for_each(|member| member.sets |= MemberSets::NEAR);
        let packet = Described::new(SYN, net.client(), net.vip()).bytes();
        let (action, bytes) = machine.run(Program::UplinkIngress, &packet);
        assert_eq!((action, read(&bytes).ends()), (HookAction::Next, Some((net.client(), remote(net)))));
    }
}

#[test]
fn nothing_is_sent_where_no_route_leads() {
    for net in NETS {
        let mut machine = machine(net, SnatPorts::DEFAULT);
        machine.host.routes.unreachable = [remote(net).0].into();
        publish(net, SYN, &mut machine);
        // The packet is left to the stack.
        let syn = Described::new(SYN, net.client(), net.vip()).bytes();
        assert_eq!(machine.run(Program::UplinkIngress, &syn), (HookAction::Next, syn));
        assert_eq!(machine.counters()[&Counter::PassedNoRoute], 1);
        assert!(machine.flows().is_empty());
        // The other endpoint of the pool is reached, also by a client that the first one is chosen for.
        for flags in [0, ScopeFlags::MAGLEV, ScopeFlags::AFFINITY] {
            let mut scene = Scene::new(net, &mut machine);
            let backends = [remote(net), net.other_backend()];
            let scope = scene.pool(1, &backends).with_flags(ScopeFlags::MASQUERADE | flags);
            scene.frontend(1, net.vip(), Proto::TCP, scope);
            scene.keep_clients(1, 100);
            for port in 1..20 {
                let client = (net.host(7 + flags), port);
                let (_, to) = arrive(&mut machine, SYN, client, net.vip()).expect("it is forwarded");
                assert_eq!(to, net.other_backend());
            }
        }
    }
}

/// RFC 1812 section 5.3.7: no answer could arrive there.
#[test]
fn a_source_that_no_client_has_gets_no_flow() {
    for (net, sources) in
        [(Net::V4, &["0.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255"][..]), (Net::V6, &["::", "::1", "ff02::1"])]
    {
        let mut machine = forwarding(net, SYN);
        for source in sources {
            let client = (source.parse().expect("an address"), 40_000);
            // The stack drops such a packet.
            assert_eq!(arrive(&mut machine, SYN, client, net.vip()), Err(HookAction::Next), "{source}");
        }
        assert!(machine.flows().is_empty());
    }
}

/// A packet with a VLAN tag is seen again, without the tag, by the interface of that VLAN.
#[test]
fn a_tagged_packet_is_left_to_the_interface_of_its_vlan() {
    for net in NETS {
        let mut machine = forwarding(net, SYN);
        let source = open(&mut machine, SYN, net.client(), net.vip());
        machine.host.routes.is_tagged = true;
        let client = (net.host(3), 40_001);
        for (transport, from, to) in
            [(SYN, client, net.vip()), (SYN, net.client(), net.vip()), (SYN_ACK, remote(net), source)]
        {
            let packet = Described::new(transport, from, to).bytes();
            assert_eq!(machine.run(Program::UplinkIngress, &packet), (HookAction::Next, packet), "{net:?}");
        }
        machine.host.routes.is_tagged = false;
        arrive(&mut machine, SYN_ACK, remote(net), source).expect("it is forwarded");
    }
}

/// Only answers of other nodes enter by an uplink. An endpoint on this node has no reply that does.
#[test]
fn no_host_of_the_network_answers_for_an_endpoint_of_this_node() {
    for net in NETS {
        let mut machine = forwarding(net, SYN);
        open(&mut machine, SYN, net.client(), net.vip());
        let mut scene = Scene::new(net, &mut machine);
        let scope = scene.pool(1, &[net.other_backend()]);
        scene.frontend(1, net.other_vip(), Proto::TCP, scope);
        let client = (net.host(3), 61_234);
        scene.through(Program::UplinkIngress, SYN, client, net.other_vip());
        let forged = Described::new(SYN_ACK, net.other_backend(), client);
        scene.untouched(Program::UplinkIngress, &forged);
    }
}

/// A client that keeps sending must not keep a flow whose way is gone.
#[test]
fn datagrams_find_another_endpoint_when_the_way_to_theirs_is_gone() {
    for net in NETS {
        let mut machine = forwarding(net, UDP);
        open(&mut machine, UDP, net.client(), net.vip());
        let mut scene = Scene::new(net, &mut machine);
        let scope = scene.pool(1, &[remote(net), net.other_backend()]).with_flags(ScopeFlags::MASQUERADE);
        scene.frontend(1, net.vip(), Proto::UDP, scope);
        machine.host.routes.unreachable = [remote(net).0].into();
        assert_eq!(arrive(&mut machine, UDP, net.client(), net.vip()), Err(HookAction::Drop));
        let (_, to) = arrive(&mut machine, UDP, net.client(), net.vip()).expect("it is forwarded");
        assert_eq!(to, net.other_backend());
    }
}

/// Half of a flow was evicted, and its port has gone to another flow since: that one stays when the route goes.
#[test]
fn a_flow_that_is_forgotten_takes_no_half_of_another() {
    for net in NETS {
        let mut machine = machine(net, SnatPorts { first: 61_000, last: 61_000 });
        publish(net, UDP, &mut machine);
        let (client, other) = (net.client(), (net.host(3), 40_001));
        let source = open(&mut machine, UDP, client, net.vip());
        machine.evict(Direction::Reply);
        assert_eq!(open(&mut machine, UDP, other, net.vip()), source, "the port is free");
        machine.host.routes.unreachable = [remote(net).0].into();
        assert_eq!(arrive(&mut machine, UDP, client, net.vip()), Err(HookAction::Drop));
        machine.host.routes.unreachable.clear();
        assert_eq!(arrive(&mut machine, UDP, remote(net), source), Ok((net.vip(), other)), "{net:?}");
    }
}

/// Packets that the node sends by its uplink, as netfilter's MASQUERADE or a socket of the node made them.
fn leave(machine: &mut HostMachine, transport: Transport, from: End, to: End) -> (End, End) {
    let (action, bytes) = machine.run(Program::UplinkEgress, &Described::new(transport, from, to).bytes());
    assert_eq!(action, HookAction::Next);
    read(&bytes).ends().expect("ports")
}

/// The tuple of a connection of the node itself is reserved: no forwarded flow gets it, and its answers reach the node.
#[test]
fn a_connection_of_the_node_keeps_its_port() {
    for net in NETS {
        let own = (node(net), 61_000);
        let mut machine = machine(net, SnatPorts { first: 61_000, last: 61_001 });
        publish(net, SYN, &mut machine);
        let endpoints = machine.host.tables.clone();
        assert!(!endpoints.v4.members.is_empty() || !endpoints.v6.members.is_empty());
        assert_eq!(leave(&mut machine, SYN, own, remote(net)), (own, remote(net)));
        let answer = Described::new(SYN_ACK, remote(net), own).bytes();
        assert_eq!(machine.run(Program::UplinkIngress, &answer), (HookAction::Next, answer));
        assert_eq!(leave(&mut machine, ACK, own, remote(net)), (own, remote(net)));
        // Of two ports, the other one is left.
        assert_eq!(open(&mut machine, SYN, net.client(), net.vip()), (node(net), 61_001));
        assert_eq!(arrive(&mut machine, SYN, (net.host(3), 1), net.vip()), Err(HookAction::Drop));
        let answer = Described::new(ACK, remote(net), own).bytes();
        assert_eq!(machine.run(Program::UplinkIngress, &answer), (HookAction::Next, answer), "{net:?}");
    }
}

/// A forwarded flow has the tuple already: the connection of the node gets another port, and never notices.
#[test]
fn a_connection_of_the_node_gives_way_to_a_forwarded_one() {
    for net in NETS {
        for transport in [SYN, UDP] {
            let answer = if transport == SYN { SYN_ACK } else { UDP };
            let mut machine = machine(net, SnatPorts { first: 61_000, last: 61_063 });
            publish(net, transport, &mut machine);
            let taken = open(&mut machine, transport, net.client(), net.vip());
            let (source, to) = leave(&mut machine, transport, taken, remote(net));
            assert!(source != taken && to == remote(net), "{net:?} {transport:?}: {source:?}");
            let answered = Described::new(answer, remote(net), source).bytes();
            let (action, bytes) = machine.run(Program::UplinkIngress, &answered);
            assert_eq!((action, read(&bytes).ends()), (HookAction::Next, Some((remote(net), taken))), "{net:?}");
            let next = if transport == SYN { ACK } else { UDP };
            assert_eq!(leave(&mut machine, next, taken, remote(net)), (source, remote(net)));
            let forwarded = arrive(&mut machine, answer, remote(net), taken);
            assert_eq!(forwarded, Ok((net.vip(), net.client())), "the forwarded one goes on");
        }
    }
}

/// Forwarded packets pass the hook at egress of the uplink as well.
#[test]
fn a_forwarded_packet_is_not_taken_for_the_nodes_own() {
    for net in NETS {
        let mut machine = forwarding(net, SYN);
        let source = open(&mut machine, SYN, net.client(), net.vip());
        machine.host.routes.is_forwarded = true;
        assert_eq!(leave(&mut machine, SYN, source, remote(net)), (source, remote(net)));
        assert_eq!(machine.flows().len(), 2, "{net:?}");
    }
}

/// A client keeps its endpoint of another node (SA-01), and Maglev chooses it by the client's own tuple.
#[test]
fn affinity_and_maglev_know_the_client_and_not_the_node() {
    for net in NETS {
        for flags in [ScopeFlags::AFFINITY, ScopeFlags::MAGLEV] {
            let mut machine = machine(net, SnatPorts::DEFAULT);
            publish_with(net, SYN, flags, &mut machine);
            let ends = arrive(&mut machine, SYN, net.client(), net.vip()).expect("it is forwarded");
            assert_eq!((ends.0.0, ends.1), (node(net), remote(net)), "{flags}");
        }
    }
}

/// The port by which the endpoint knows the connection is lost with the flow: nothing is guessed.
#[test]
fn an_evicted_flow_is_not_repaired() {
    for net in NETS {
        let mut machine = machine(net, SnatPorts::DEFAULT);
        machine.host.settings.repairs =
            Some(Repairs { evictions_until_jiffies: u64::MAX, attached_jiffies: 1, balanced_jiffies: 1 });
        publish_with(net, SYN, ScopeFlags::MAGLEV, &mut machine);
        machine.age_flows(100_000);
        let packet = Described::new(ACK, net.client(), net.vip()).bytes();
        assert_eq!(machine.run(Program::UplinkIngress, &packet), (HookAction::Next, packet));
        assert!(machine.flows().is_empty());
    }
}

fn hops_exceeded(net: Net) -> (u8, u8) {
    if net == Net::V4 { (11, 0) } else { (3, 0) }
}

fn too_big(net: Net) -> (u8, u8) {
    if net == Net::V4 { (3, 4) } else { (2, 0) }
}

/// The node is a router: RFC 1812 section 5.3.1, RFC 8200 section 3. Each packet says the frontend to its sender.
#[test]
fn a_hop_is_spent_and_the_last_one_is_told() {
    for net in NETS {
        let mut machine = forwarding(net, SYN);
        let hops_at = if net == Net::V4 { 14 + 8 } else { 14 + 7 };
        let syn = Described::new(SYN, net.client(), net.vip()).bytes();
        let (_, bytes) = machine.run(Program::UplinkIngress, &syn);
        assert_eq!(bytes[hops_at], syn[hops_at] - 1);
        let mut last = syn;
        lower_hops(net, &mut last);
        let (action, answer) = machine.run(Program::UplinkIngress, &last);
        let (from, to) = (net.vip().0, net.client().0);
        let about = (net.client(), net.vip());
        let expected = Answer::Icmp { kind: hops_exceeded(net), word: [0; 4], from, to, about };
        assert_eq!((action, read(&answer).answer), (HookAction::SendBack, expected), "{net:?}");
        assert_eq!(machine.counters()[&Counter::HopsExceeded], 1);
    }
}

/// Sets TTL or hop limit to one, with a valid checksum.
fn lower_hops(net: Net, packet: &mut [u8]) {
    if net == Net::V6 {
        packet[14 + 7] = 1;
        return;
    }
    packet[14 + 8] = 1;
    packet[24..26].fill(0);
    let sum: u32 = packet[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[24..26].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}

#[test]
fn what_is_too_long_for_the_way_is_told_in_both_directions() {
    for net in NETS {
        let mut machine = forwarding(net, SYN);
        let source = open(&mut machine, SYN, net.client(), net.vip());
        arrive(&mut machine, SYN_ACK, remote(net), source).expect("it is forwarded");
        machine.host.routes.mtu_bytes = 30;
        for (from, to) in [(net.client(), net.vip()), (remote(net), source)] {
            let (action, answer) = machine.run(Program::UplinkIngress, &Described::new(ACK, from, to).bytes());
            let word = [0, 0, 0, 30];
            let expected = Answer::Icmp { kind: too_big(net), word, from: to.0, to: from.0, about: (from, to) };
            assert_eq!((action, read(&answer).answer), (HookAction::SendBack, expected), "{net:?}");
        }
        assert_eq!(machine.counters()[&Counter::TooLong], 2);
    }
}

/// PR-02, PR-03: errors about what the node forwards, from each place in the network.
#[test]
fn errors_reach_the_socket_that_they_are_about() {
    for net in NETS {
        let mut machine = forwarding(net, SYN);
        let (client, vip, router) = (net.client(), net.vip(), net.host(250));
        let source = open(&mut machine, SYN, client, vip);
        arrive(&mut machine, SYN_ACK, remote(net), source).expect("it is forwarded");
        let (request, reply) = (Described::new(SYN, source, remote(net)), Described::new(SYN_ACK, vip, client));
        for (error, from, to, about) in [
            // A router between the node and the endpoint, and the endpoint itself.
            (request.icmp(too_big(net), MTU, router, source.0), router, client.0, (client, vip)),
            (request.icmp(too_big(net), MTU, remote(net).0, source.0), vip.0, client.0, (client, vip)),
            // A router beyond the client's network, and the client itself.
            (reply.icmp(too_big(net), MTU, router, vip.0), source.0, remote(net).0, (remote(net), source)),
            (reply.icmp(too_big(net), MTU, client.0, vip.0), source.0, remote(net).0, (remote(net), source)),
        ] {
            let (action, bytes) = machine.run(Program::UplinkIngress, &error);
            let expected = Answer::Icmp { kind: too_big(net), word: MTU, from, to, about };
            assert_eq!((action, read(&bytes).answer), (HookAction::SendOut, expected), "{net:?}");
        }
        assert_eq!(machine.counters()[&Counter::IcmpTranslated], 4);
        // No error about an error (RFC 1122 section 3.2.2).
        let mut last = request.icmp(too_big(net), MTU, router, source.0);
        lower_hops(net, &mut last);
        assert_eq!(machine.run(Program::UplinkIngress, &last).0, HookAction::Drop);
    }
}

/// A later fragment has no ports: it follows the first one, whichever arrives first.
#[test]
fn fragments_follow_their_first_one() {
    for net in NETS {
        for overtaking in [false, true] {
            let mut machine = forwarding(net, UDP);
            let source = open(&mut machine, UDP, net.client(), net.vip());
            for (from, to, target) in
                [(net.client(), net.vip(), (source, remote(net))), (remote(net), source, (net.vip(), net.client()))]
            {
                let packet = |offset, more| Described::new(UDP, from, to).fragment(offset, more).bytes();
                let (first, second) = (packet(0, true), packet(8, false));
                let order = if overtaking { [second, first] } else { [first, second] };
                let mut outcomes = Vec::new();
                for packet in order {
                    outcomes.push(machine.run(Program::UplinkIngress, &packet));
                    outcomes.extend(machine.replayed());
                }
                // The one that overtook was parked, which drops it.
                outcomes.retain(|(action, _)| *action != HookAction::Drop);
                assert_eq!(outcomes.len(), 2, "{net:?}, overtaking: {overtaking}");
                for (action, bytes) in outcomes {
                    let (src, dst) = addresses(net, &bytes);
                    assert_eq!((action, src, dst), (HookAction::SendOut, target.0.0, target.1.0), "{net:?}");
                }
            }
        }
    }
}

fn addresses(net: Net, bytes: &[u8]) -> (IpAddr, IpAddr) {
    match net {
        Net::V4 => {
            let at = |start: usize| IpAddr::from(<[u8; 4]>::try_from(&bytes[start..start + 4]).expect("4 bytes"));
            (at(26), at(30))
        }
        Net::V6 => {
            let at = |start: usize| IpAddr::from(<[u8; 16]>::try_from(&bytes[start..start + 16]).expect("16 bytes"));
            (at(22), at(38))
        }
    }
}

/// What belongs to no flow is the stack's: the node may use these ports itself.
#[test]
fn packets_of_the_node_itself_pass() {
    for net in NETS {
        let mut machine = forwarding(net, SYN);
        open(&mut machine, SYN, net.client(), net.vip());
        for (transport, from) in
            [(SYN_ACK, remote(net)), (ACK, remote(net)), (RST, net.other_backend()), (SYN, remote(net))]
        {
            let packet = Described::new(transport, from, (node(net), 60_999)).bytes();
            assert_eq!(machine.run(Program::UplinkIngress, &packet), (HookAction::Next, packet));
            let packet = Described::new(transport, from, (net.host(77), 65_000)).bytes();
            assert_eq!(machine.run(Program::UplinkIngress, &packet), (HookAction::Next, packet), "another address");
        }
        let frame = Described::new(SYN, net.client(), net.vip()).to_mac([2, 0, 0, 0, 0, 9]).bytes();
        assert_eq!(machine.run(Program::UplinkIngress, &frame), (HookAction::Next, frame), "another machine's frame");
    }
}

/// A flow to an endpoint of this node that has moved, or a table that was cut: the other half is made again.
#[test]
fn half_a_flow_is_completed() {
    for net in NETS {
        for direction in [Direction::Request, Direction::Reply] {
            let mut machine = forwarding(net, SYN);
            let source = open(&mut machine, SYN, net.client(), net.vip());
            arrive(&mut machine, SYN_ACK, remote(net), source).expect("it is forwarded");
            arrive(&mut machine, ACK, net.client(), net.vip()).expect("it is forwarded");
            machine.evict(direction);
            machine.age_flows(2);
            let other = match direction {
                Direction::Request => (remote(net), source),
                Direction::Reply => (net.client(), net.vip()),
            };
            arrive(&mut machine, ACK, other.0, other.1).expect("its own half is left");
            assert_eq!(machine.flows().len(), 2, "{net:?} {direction:?}");
            arrive(&mut machine, ACK, net.client(), net.vip()).expect("it is forwarded");
            arrive(&mut machine, ACK, remote(net), source).expect("it is forwarded");
        }
    }
}
