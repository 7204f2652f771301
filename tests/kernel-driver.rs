//! Which packets the program of a driver deals with, and that the kernel then treats them as the host does, byte for byte.
//! Needs root.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_common::table::{Direction, ScopeFlags};
use lb_common::verdict::HookAction;
use lb_common::way::SnatPorts;
use lb_tests::cases::{ACK, FIN, Net, RST, SYN, SYN_ACK, Scene, UDP, proto};
use lb_tests::machine::{BRIDGED, HostMachine, KernelMachine, Machine, Program, UNBRIDGED};
use lb_tests::packet::{BROADCAST_MAC, Described, End, MULTICAST_MAC, NEIGHBOUR_MAC, NODE_MAC, SEQ, Transport, read};

use lb_tests::random::config;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

const NETS: [Net; 2] = [Net::V4, Net::V6];
/// The node's port for what it forwards. With one, no port is drawn.
const PORTS: SnatPorts = SnatPorts { first: 61_000, last: 61_000 };

/// Offset of the checksum in a datagram of IPv4.
const SUM: usize = 14 + 20 + 6;

/// What deals with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Driver,
    Tc,
}

/// The same packets on the host and in the kernel.
struct Both {
    net: Net,
    host: HostMachine,
    kernel: KernelMachine,
    /// Whether the endpoint is on another node.
    is_remote: bool,
}

impl Both {
    /// One Service of each transport with an endpoint on this node.
    fn local(net: Net, name: &str) -> Self {
        let kernel = KernelMachine::load(name).behind_driver();
        let mut both = Self { net, host: HostMachine::default(), kernel, is_remote: false };
        both.publish(0);
        both
    }

    /// The same with the endpoint on another node.
    fn remote(net: Net, name: &str) -> Self {
        let node = net.host(1);
        let host = HostMachine::default().forwarding(node, [net.backend().0], PORTS);
        let mut kernel = KernelMachine::load_forwarding(name, 1 << 10, PORTS).behind_driver();
        kernel.lead_out([Net::V4, Net::V6].map(|net| net.host(1)));
        let mut both = Self { net, host, kernel, is_remote: true };
        both.publish(ScopeFlags::MASQUERADE);
        both
    }

    fn publish(&mut self, flags: u8) {
        self.kernel.reset();
        for machine in [&mut self.host as &mut dyn Machine, &mut self.kernel] {
            let mut scene = Scene::new(self.net, machine);
            for (id, transport) in [(1, SYN), (2, UDP)] {
                let scope = scene.pool(id, &[self.net.backend()]).with_flags(flags);
                scene.frontend(id, self.net.vip(), proto(transport), scope);
            }
        }
    }

    /// Forgets all flows.
    fn begin_anew(&mut self) {
        self.host.forget();
        self.kernel.forget_flows();
    }

    /// Returns what dealt with the packet, if any arrived.
    fn step(&mut self, step: &Step) -> Option<By> {
        let (net, client) = (self.net, |client: u16| (self.net.client().0, self.net.client().1 + client));
        match *step {
            Step::Request { client: number, transport, ahead, payload_len } => {
                let packet = Described::new(transport, client(number), net.vip()).payload(&vec![7; payload_len]);
                let packet = packet.seq(SEQ.wrapping_add(ahead << 16));
                Some(self.run(Program::UplinkIngress, &packet.bytes()).2)
            }
            Step::Answer { client: number, transport, payload_len } => {
                let (program, to) = if self.is_remote {
                    (Program::UplinkIngress, (net.host(1), PORTS.first))
                } else {
                    (Program::UplinkEgress, client(number))
                };
                let packet = Described::new(transport, net.backend(), to).payload(&vec![7; payload_len]);
                Some(self.run(program, &packet.bytes()).2)
            }
            Step::Wait(secs) => {
                self.each(|machine| machine.age_flows(secs));
                None
            }
        }
    }

    /// Both count the same and know the same of the flows. Their clocks differ.
    fn compare_what_is_left(&mut self) {
        assert_eq!(self.host.counters(), self.kernel.counters());
        let (mut host, mut kernel) = (self.host.flows(), self.kernel.flows());
        for flows in [&mut host, &mut kernel] {
            flows.v4.values_mut().for_each(|flow| flow.last_seen_jiffies = 0);
            flows.v6.values_mut().for_each(|flow| flow.last_seen_jiffies = 0);
        }
        assert_eq!((host.v4, host.v6), (kernel.v4, kernel.v6));
    }

    /// Does the same to both.
    fn each(&mut self, change: impl Fn(&mut dyn Machine)) {
        change(&mut self.host);
        change(&mut self.kernel);
    }

    /// Runs a packet on both; returns what becomes of it, and what dealt with it.
    fn run(&mut self, program: Program, packet: &[u8]) -> (HookAction, Vec<u8>, By) {
        let before = self.kernel.driven();
        let (action, bytes) = self.kernel.run(program, packet);
        let by = if self.kernel.driven() == before { By::Tc } else { By::Driver };
        let (on_host, expected) = self.host.run(program, packet);
        let on_host = if on_host == HookAction::SendOut { HookAction::SendBack } else { on_host };
        assert_eq!((action, &bytes), (on_host, &expected), "{:?}: {program:?} by {by:?}", self.net);
        (action, bytes, by)
    }

    /// A packet of the network to the Service; returns what dealt with it.
    fn arrives(&mut self, transport: Transport) -> By {
        self.run(Program::UplinkIngress, &self.request(transport).bytes()).2
    }

    fn request(&self, transport: Transport) -> Described {
        Described::new(transport, self.net.client(), self.net.vip())
    }

    /// A packet of the endpoint to the client leaves.
    fn leaves(&mut self, transport: Transport) {
        let packet = Described::new(transport, self.net.backend(), self.net.client()).bytes();
        self.run(Program::UplinkEgress, &packet);
    }

    /// A packet of the endpoint on another node to this node; returns what dealt with it.
    fn returns(&mut self, transport: Transport) -> By {
        let packet = Described::new(transport, self.net.backend(), (self.net.host(1), PORTS.first));
        self.run(Program::UplinkIngress, &packet.bytes()).2
    }

    /// A segment so many bytes behind the first one; returns what dealt with it.
    fn arrives_at(&mut self, behind: u32) -> By {
        let segment = self.request(ACK).seq(SEQ.wrapping_add(behind)).bytes();
        self.run(Program::UplinkIngress, &segment).2
    }

    /// Opens a connection to an endpoint on this node.
    fn connect(&mut self) {
        assert_eq!(self.arrives(SYN), By::Tc, "a new flow");
        self.leaves(SYN_ACK);
        assert_eq!(self.arrives(ACK), By::Tc, "a new state");
    }
}

/// A step of a random history.
#[derive(Clone, Debug)]
enum Step {
    /// The client sends. Numbers advance by steps of 64 KiB, so that some are too far off.
    Request { client: u16, transport: Transport, ahead: u32, payload_len: usize },
    /// The endpoint answers.
    Answer { client: u16, transport: Transport, payload_len: usize },
    /// So many seconds pass.
    Wait(u64),
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        8 => Just(ACK),
        2 => Just(Transport::Tcp(0x18)),
        2 => prop_oneof![Just(SYN), Just(SYN_ACK), Just(FIN), Just(RST), Just(Transport::Tcp(0x14))],
        6 => Just(UDP),
    ]
}

/// Histories of few clients, which begin by opening connections.
fn history(clients: u16) -> impl Strategy<Value = Vec<Step>> {
    let request = (0..clients, transport(), 0_u32..20, 0_usize..40);
    let answer = (0..clients, transport(), 0_usize..40);
    let step = prop_oneof![
        12 => request.prop_map(|(client, transport, ahead, payload_len)| Step::Request { client, transport, ahead, payload_len }),
        6 => answer.prop_map(|(client, transport, payload_len)| Step::Answer { client, transport, payload_len }),
        1 => prop_oneof![Just(2), Just(130)].prop_map(Step::Wait),
    ];
    let open = move |client: u16| {
        let request = |transport| Step::Request { client, transport, ahead: 0, payload_len: 0 };
        let answer = |transport| Step::Answer { client, transport, payload_len: 0 };
        [request(SYN), answer(SYN_ACK), request(ACK), request(UDP), answer(UDP), request(UDP)]
    };
    vec(step, 0..60).prop_map(move |steps| (0..clients).flat_map(open).chain(steps).collect())
}

#[test]
fn random_histories_are_those_of_the_host() {
    let mut runner = TestRunner::new(config(1));
    let mut counts = BTreeMap::from([(By::Driver, 0_u32), (By::Tc, 0)]);
    for net in NETS {
        for (mut both, clients) in [(Both::local(net, "driver-random"), 3), (Both::remote(net, "driver-remote"), 1)] {
            for _ in 0..150 {
                both.begin_anew();
                let steps = history(clients).new_tree(&mut runner).expect("a history").current();
                for step in &steps {
                    if let Some(by) = both.step(step) {
                        *counts.entry(by).or_default() += 1;
                    }
                }
                both.compare_what_is_left();
            }
        }
    }
    println!("{counts:?}");
    assert!(counts[&By::Driver] > 2_000 && counts[&By::Tc] > 2_000, "{counts:?}");
}

#[test]
fn data_of_a_connection_is_for_the_driver_and_its_ends_are_for_tc() {
    for net in NETS {
        let mut both = Both::local(net, "driver-tcp");
        both.connect();
        assert_eq!([both.arrives(ACK), both.arrives(ACK)], [By::Driver; 2]);
        both.each(|machine| machine.age_flows(2));
        assert_eq!(both.arrives(ACK), By::Driver, "after a rest");
        both.kernel.evict(Direction::Reply);
        both.host.evict(Direction::Reply);
        both.each(|machine| machine.age_flows(2));
        assert_eq!([both.arrives(ACK), both.arrives(ACK)], [By::Tc, By::Driver], "tc restores the other half");
        both.compare_what_is_left();
        assert_eq!([both.arrives(FIN), both.arrives(ACK)], [By::Tc, By::Driver], "the endpoint may still send");
        assert_eq!(both.arrives(RST), By::Tc);
        assert_eq!(both.arrives(SYN), By::Tc, "another connection");
    }
}

#[test]
fn answered_datagrams_are_for_the_driver() {
    for net in NETS {
        for transport in [UDP, Transport::UdpUnsummed] {
            if transport == Transport::UdpUnsummed && net == Net::V6 {
                continue;
            }
            let mut both = Both::local(net, "driver-udp");
            assert_eq!([both.arrives(transport), both.arrives(transport)], [By::Tc; 2], "nothing was answered");
            both.leaves(transport);
            assert_eq!(both.arrives(transport), By::Driver, "{transport:?}");
        }
    }
}

/// A sum of zero means none (RFC 768), so a driver must not write one.
#[test]
fn a_sum_that_becomes_zero_is_written_as_ones() {
    let mut both = Both::local(Net::V4, "driver-zero");
    assert_eq!(both.arrives(UDP), By::Tc);
    both.leaves(UDP);
    let ones = (0..=u16::MAX).filter(|payload| {
        let packet = both.request(UDP).payload(&payload.to_be_bytes()).bytes();
        let (_, after, by) = both.run(Program::UplinkIngress, &packet);
        read(&after);
        by == By::Driver && after[SUM..SUM + 2] == [0xff, 0xff]
    });
    assert!(ones.count() > 0, "one of 65,536 payloads has this sum");
}

#[test]
fn whatever_is_not_plain_is_for_tc() {
    for net in NETS {
        let mut both = Both::local(net, "driver-other");
        both.connect();
        let plain = both.request(ACK);
        let (options_len, l4) = if net == Net::V4 { (4, 14 + 20) } else { (6, 14 + 40) };
        for packet in [
            plain.clone().options_len(options_len).bytes(),
            plain.clone().to_mac(NEIGHBOUR_MAC).bytes(),
            plain.clone().to_mac(BROADCAST_MAC).bytes(),
            plain.clone().to_mac(MULTICAST_MAC).bytes(),
            // Of the client to another address.
            Described::new(ACK, net.client(), (net.host(77), 80)).bytes(),
            // The packet ends in its transport header.
            plain.bytes()[..l4 + 12].to_vec(),
        ] {
            assert_eq!(both.run(Program::UplinkIngress, &packet).2, By::Tc, "{packet:02x?}");
        }
        assert_eq!(both.arrives(ACK), By::Driver, "the flow is still known");
        both.each(|machine| machine.set_port(BRIDGED));
        assert_eq!(both.arrives(ACK), By::Tc, "the uplink is a port of a bridge");
        both.each(|machine| machine.set_port(UNBRIDGED));
        assert_eq!(both.arrives(ACK), By::Driver);
        assert_eq!(UNBRIDGED.mac, NODE_MAC);
    }
}

#[test]
fn what_passes_through_the_node_is_sent_on_by_the_driver() {
    for net in NETS {
        let mut both = Both::remote(net, "driver-transit");
        assert_eq!(both.arrives(SYN), By::Tc);
        assert_eq!(both.returns(SYN_ACK), By::Tc, "a new state");
        assert_eq!(both.arrives(ACK), By::Tc, "a new state");
        // The redirect of tc makes the kernel ask whether the next hop, which both directions share, has its MAC.
        assert_eq!([both.arrives(ACK), both.arrives(ACK)], [By::Tc, By::Driver], "the first one to the next hop");
        assert_eq!([both.returns(ACK), both.returns(ACK)], [By::Driver; 2]);
        std::thread::sleep(Duration::from_millis(1_100));
        assert_eq!(both.returns(ACK), By::Tc, "one in a second");
        // On a slow machine the flow has paused, which is a reason of its own.
        assert!((0..3).any(|_| both.returns(ACK) == By::Driver));
        let last_hop = Described { hops: 1, ..both.request(ACK) };
        assert_eq!(both.run(Program::UplinkIngress, &last_hop.bytes()).2, By::Tc, "tc answers that its time is up");
        both.kernel.stop_sending_frames();
        assert_eq!([both.arrives(ACK), both.returns(ACK)], [By::Tc; 2], "no driver sends frames of another");
    }
}

/// A number far ahead may be forged. Neither world notes it.
#[test]
fn numbers_are_followed_by_the_driver() {
    let mut both = Both::local(Net::V4, "driver-numbers");
    both.connect();
    for step in 0..20_u32 {
        let segment = both.request(ACK).seq(SEQ.wrapping_add(step * 0x8_0000)).bytes();
        assert_eq!(both.run(Program::UplinkIngress, &segment).2, By::Driver);
    }
    let end = both.request(FIN).seq(SEQ.wrapping_add(0x4000_0000)).bytes();
    both.run(Program::UplinkIngress, &end);
    assert_eq!(both.arrives_at(19 * 0x8_0000), By::Driver, "a guessed end ended nothing");
}

/// Ends of a packet that the driver translated, as the endpoint sees them.
#[test]
fn the_endpoint_sees_the_client() {
    for net in NETS {
        let mut both = Both::local(net, "driver-ends");
        both.connect();
        let packet = both.request(ACK).bytes();
        let (action, after, by) = both.run(Program::UplinkIngress, &packet);
        let ends: (End, End) = read(&after).ends().expect("ports");
        assert_eq!((action, by, ends), (HookAction::Next, By::Driver, (net.client(), net.backend())));
    }
}
