//! Plays one history on a machine and compares each step with the reference.

use etherparse::IpNumber;
use lb_common::addr::Proto;
use lb_common::verdict::HookAction;
use proptest::strategy::{BoxedStrategy, Strategy as _};

use super::history::{Cut, Quote, Shape, Then, forwarding_history, history};
use super::rule::Hits;
use super::transit::{FEW_PORTS, NODE};
use super::wire::{Part, Wire, proto};
use super::world::World;
use super::{Outcome, Reference, Step};
use crate::cases::Net;
use crate::machine::{BRIDGED, HostMachine, Machine, Program};
use crate::packet::{Described, End, FIRST_LEN, Transport, cut, icmp_about, lengthened};

/// The IP protocol number of AH.
const AUTHENTICATION: u8 = 51;

/// Pauses last a second each. With so few, their sum with waits, which are multiples of seven, never comes close to a
/// time-out.
const PAUSES_MAX: usize = 3;

/// What was compared.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    pub packets: u64,
    /// Packets that did not pass unchanged.
    pub changed: u64,
    /// Packets that were left out: none such can be.
    pub impossible: u64,
    /// Fragments that were parked and then re-injected.
    pub replayed: u64,
    pub tables: u64,
    pub hits: Hits,
}

impl Compared {
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.changed += other.changed;
        self.impossible += other.impossible;
        self.replayed += other.replayed;
        self.tables += other.tables;
        self.hits.add(&other.hits);
    }
}

/// The initial state of machine and reference, beside empty tables.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Whether a pod has reached itself.
    pub has_hairpins: bool,
    /// How many half-open connections may be made.
    pub embryos_max: usize,
    pub clock: Clock,
    /// Whether the node forwards to other nodes, and has done so before.
    pub forwards: bool,
}

impl Start {
    /// Random histories from this state on.
    pub fn history(self, net: Net) -> BoxedStrategy<Vec<Step>> {
        if self.forwards { forwarding_history(net).boxed() } else { history(net).boxed() }
    }

    /// A machine on the host in this state.
    pub fn host(self, net: Net) -> HostMachine {
        let machine = HostMachine::with_embryos(self.embryos_max);
        if !self.forwards {
            return machine;
        }
        let endpoints = World::hosts().map(|host| net.host(host));
        machine.forwarding(net.host(NODE), endpoints, FEW_PORTS)
    }
}

/// How the machine's time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Only when a step says so.
    Told,
    /// In real time as well: less than a second for the reference may be longer for the machine.
    Runs,
}

/// Plays a history.
///
/// # Errors
///
/// The first difference between machine and reference.
pub fn play(net: Net, machine: &mut dyn Machine, start: Start, history: &[Step]) -> Result<Compared, String> {
    let mut play = Play {
        net,
        machine,
        reference: Reference::new(net, start),
        world: World::new(net, start.forwards),
        came: Vec::new(),
        left: Vec::new(),
        datagrams: Vec::new(),
        pauses: 0,
        compared: Compared::default(),
    };
    play.set_tables();
    play.machine.set_port(BRIDGED);
    play.machine.set_came_by(BRIDGED.bridge);
    for (index, step) in history.iter().enumerate() {
        play.step(step).map_err(|difference| format!("step {index}, {step:?}: {difference}"))?;
    }
    play.compared.hits = play.reference.hits().clone();
    Ok(play.compared)
}

/// A fragment, and the rest of its datagram if it is the first.
#[derive(Clone, Debug)]
struct Fragment {
    bytes: Vec<u8>,
    beyond: Vec<u8>,
}

struct Play<'a> {
    net: Net,
    machine: &'a mut dyn Machine,
    reference: Reference,
    world: World,
    /// Packets as they arrived and as they left, the last one last.
    came: Vec<(Program, Vec<u8>)>,
    left: Vec<(Program, Vec<u8>)>,
    /// The fragments still to be sent, by datagram, the next one last.
    datagrams: Vec<(Program, Vec<Fragment>)>,
    /// How many pauses there were.
    pauses: usize,
    compared: Compared,
}

impl Play<'_> {
    fn set_tables(&mut self) {
        self.machine.set_tables(&self.world.tables());
        self.reference.set_policy(self.world.policy());
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Packet { program, transport, ends, shape } => {
                self.packet(*program, &self.described(*transport, *ends, *shape), &[])
            }
            Step::Datagram { program, transport, ends, shape, cut } => {
                self.datagram(*program, &self.described(*transport, *ends, shape.whole()), *cut)
            }
            Step::Fragment { program, back, then } => {
                let Some((hook, rest)) = self.datagrams.iter_mut().rev().nth(*back) else { return Ok(()) };
                let (hook, fragment) = (program.unwrap_or(*hook), rest.last().cloned());
                let Some(Fragment { bytes, beyond }) = fragment else { return Ok(()) };
                if *then != Then::Again {
                    rest.pop();
                }
                let is_long = *then == Then::Long && beyond.is_empty();
                self.packet(hook, &if is_long { lengthened(&bytes) } else { bytes }, &beyond)
            }
            Step::Again { transport, back, shape } => {
                let Some((hook, from, to, protocol)) = ends_of(&self.came, *back) else { return Ok(()) };
                self.packet(hook, &self.described(like(protocol, *transport), (from, to), *shape), &[])
            }
            Step::Answer { program, transport, back, shape, cut } => {
                let Some((hook, from, to, protocol)) = ends_of(&self.left, *back) else { return Ok(()) };
                let (program, transport) = (program.unwrap_or_else(|| opposite(hook)), like(protocol, *transport));
                match cut {
                    Some(cut) => self.datagram(program, &self.described(transport, (to, from), shape.whole()), *cut),
                    None => self.packet(program, &self.described(transport, (to, from), *shape), &[]),
                }
            }
            Step::Home { transport, back, shape } => {
                let Some((hook, from, to, protocol)) = ends_of(&self.left, *back) else { return Ok(()) };
                self.packet(opposite(hook), &self.described(like(protocol, *transport), (from, to), *shape), &[])
            }
            Step::Error { program, kind, back, is_by_receiver, quote } => {
                let Some((hook, from, to, protocol)) = ends_of(&self.left, *back) else { return Ok(()) };
                let quoted = self.quoted(like(protocol, Transport::Tcp(0x10)), (from, to), *quote);
                let by = if *is_by_receiver { to.0 } else { self.net.host(250) };
                let mut error = icmp_about(&quoted, *kind, [0, 0, 5, 0], by, from.0);
                error[..6].copy_from_slice(&quote.shape.mac);
                self.packet(program.unwrap_or_else(|| opposite(hook)), &error, &[])
            }
            Step::Tables(change) => {
                self.world.change(change);
                self.set_tables();
                self.compared.tables += 1;
                Ok(())
            }
            Step::Wait { secs } => {
                self.machine.age_flows(*secs);
                self.reference.wait(*secs);
                Ok(())
            }
            Step::Pause => {
                if self.pauses < PAUSES_MAX {
                    self.pauses += 1;
                    self.machine.age_flows(1);
                    self.reference.wait(1);
                }
                Ok(())
            }
            Step::Evict(direction) => {
                self.machine.evict(*direction);
                self.reference.evict(*direction);
                Ok(())
            }
        }
    }

    fn described(&self, transport: Transport, (from, to): (End, End), shape: Shape) -> Vec<u8> {
        let options_len = match (self.net, shape.options) {
            (_, 0) => 0,
            (Net::V4, words) => words * 4,
            // AH has at least twelve bytes (RFC 4302), and IPv6 requires a multiple of eight.
            (Net::V6, units) => units.max(if shape.extension == AUTHENTICATION { 2 } else { 1 }) * 8 - 2,
        };
        let fragment = (self.net == Net::V6 && shape.is_atomic).then_some((0, false));
        let packet = Described {
            payload: (0..=u8::MAX).cycle().skip(shape.payload_len).take(shape.payload_len).collect(),
            options_len,
            extension: shape.extension,
            to_mac: shape.mac,
            hops: shape.hops,
            fragment,
            seq: shape.seq,
            ..Described::new(transport, from, to)
        };
        let mut bytes = packet.bytes();
        if (self.net, transport) == (Net::V6, Transport::UdpUnsummed) {
            // As tunnels may send it (RFC 6935).
            let l4 = Wire::read(&bytes).l4;
            bytes[l4 + 6..l4 + 8].fill(0);
        }
        bytes
    }

    /// The packet that an ICMP error quotes, from its network header on.
    fn quoted(&self, transport: Transport, (from, to): (End, End), quote: Quote) -> Vec<u8> {
        let bytes = match quote.fragment {
            None => self.described(transport, (from, to), quote.shape),
            fragment => Described { fragment, ..Described::new(transport, from, to) }.bytes(),
        };
        let l4 = Wire::read(&bytes).l4;
        let end = if quote.is_short { l4 + 8 } else { bytes.len() };
        bytes[14..end].to_vec()
    }

    /// Sends the fragment of a datagram that comes first, and keeps the others.
    fn datagram(
        &mut self,
        program: Program,
        whole: &[u8],
        Cut { id, overtaking, first_len }: Cut,
    ) -> Result<(), String> {
        let Wire { l4, protocol, .. } = Wire::read(whole);
        // Of other protocols, any fragment holds the smallest header.
        let first_len = if protocol == IpNumber::TCP { first_len } else { FIRST_LEN };
        let mut fragments: Vec<_> =
            cut(whole, l4, id, first_len).into_iter().map(|bytes| Fragment { bytes, beyond: Vec::new() }).collect();
        let first = &mut fragments[0];
        let first_len = first.bytes.len() - Wire::read(&first.bytes).l4;
        first.beyond = whole[l4 + first_len..].to_vec();
        let overtaking = overtaking.min(fragments.len() - 1);
        fragments[..=overtaking].rotate_left(1);
        fragments.reverse();
        self.datagrams.push((program, fragments));
        self.step(&Step::Fragment { program: None, back: 0, then: Then::Next })
    }

    fn packet(&mut self, program: Program, packet: &[u8], beyond: &[u8]) -> Result<(), String> {
        if self.reference.is_impossible(program, packet) {
            self.compared.impossible += 1;
            return Ok(());
        }
        let tells_sent_on = self.machine.tells_sent_on();
        let is_same = |one: &Outcome, other: &Outcome| is_same(one, other, tells_sent_on);
        let given = self.machine.run(program, packet);
        let replayed = self.machine.replayed();
        self.reference.set_held(&self.machine.flows());
        let expected = self.reference.judge(program, (packet, beyond), &given).map_err(|reason| {
            format!("{program:?} of {}: {reason}, {:?}", describe_bytes(packet), self.machine.counters())
        })?;
        if !is_same(&given, &expected) {
            let (given, expected) = (describe(&given), describe(&expected));
            return Err(format!("{program:?} of {}\ngave     {given}\nexpected {expected}", describe_bytes(packet)));
        }
        let is_gone = expected.0 == HookAction::SendOut;
        let expected = self.reference.replayed();
        if replayed.len() != expected.len() || !replayed.iter().zip(expected).all(|(one, other)| is_same(one, other)) {
            let [gave, expected] = [&replayed[..], expected].map(|them| them.iter().map(describe).collect::<Vec<_>>());
            let packet = describe_bytes(packet);
            return Err(format!("behind {program:?} of {packet}\ngave     {gave:#?}\nexpected {expected:#?}"));
        }
        if let Some(disagreement) = self.reference.disagreement() {
            return Err(format!("after {program:?} of {}: {disagreement}", describe_bytes(packet)));
        }
        self.compared.packets += 1;
        self.compared.replayed += replayed.len() as u64;
        if given.1 != packet {
            self.compared.changed += 1;
        }
        self.came.push((program, packet.to_vec()));
        // What is sent on is answered where it entered.
        self.left.push((if is_gone { Program::UplinkEgress } else { program }, given.1));
        Ok(())
    }
}

/// Whether two outcomes are the same, as far as a machine tells. A packet that is dropped may be translated already.
fn is_same((action, bytes): &Outcome, expected: &Outcome, tells_sent_on: bool) -> bool {
    match (action, expected.0) {
        (HookAction::Drop, HookAction::Drop) => true,
        (HookAction::SendBack, HookAction::SendOut) if !tells_sent_on => *bytes == expected.1,
        (one, other) => *one == other && *bytes == expected.1,
    }
}

/// The ends of the packet that was seen `back` packets ago, if it had ports.
fn ends_of(seen: &[(Program, Vec<u8>)], back: usize) -> Option<(Program, End, End, Proto)> {
    let (hook, bytes) = seen.iter().rev().nth(back)?;
    let wire = Wire::read(bytes);
    if matches!(wire.part, Part::Later(_)) {
        return None;
    }
    let proto = proto(wire.protocol)?;
    let (from, to) = wire.ends();
    Some((*hook, from, to, proto))
}

impl Shape {
    /// A shape that is long enough to be cut, and is not a fragment yet.
    fn whole(self) -> Self {
        Self { payload_len: self.payload_len + 64, is_atomic: false, ..self }
    }
}

/// The other hook of the same edge.
const fn opposite(program: Program) -> Program {
    match program {
        Program::WorkloadIngress => Program::WorkloadEgress,
        Program::WorkloadEgress => Program::WorkloadIngress,
        Program::UplinkIngress => Program::UplinkEgress,
        Program::UplinkEgress => Program::UplinkIngress,
    }
}

/// A transport of this protocol: the given one if it fits.
const fn like(proto: Proto, transport: Transport) -> Transport {
    match (proto, transport) {
        (Proto::TCP, Transport::Tcp(flags)) => Transport::Tcp(flags),
        (Proto::TCP, _) => Transport::Tcp(0x12),
        (Proto::UDP, Transport::UdpUnsummed) => Transport::UdpUnsummed,
        (Proto::UDP, _) => Transport::Udp,
        (Proto::SCTP, _) => Transport::Sctp,
    }
}

fn describe((action, bytes): &Outcome) -> String {
    format!("{action:?} {}", describe_bytes(bytes))
}

fn describe_bytes(bytes: &[u8]) -> String {
    let wire = Wire::read(bytes);
    let ends = proto(wire.protocol).map(|_| wire.ends());
    format!("{:?} {ends:?} {bytes:02x?}", wire.protocol)
}
