//! One history on a machine, with the reference beside it.

use lb_agent::dataplane::Tables;
use lb_common::addr::Proto;

use super::wire::{Wire, proto};
use super::world::World;
use super::{Reference, Step};
use crate::cases::Net;
use crate::machine::{Machine, Program};
use crate::packet::{Described, End, Transport};

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    pub packets: u64,
    /// Packets that did not stay as they were.
    pub changed: u64,
    pub tables: u64,
}

impl Compared {
    pub fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.changed += other.changed;
        self.tables += other.tables;
    }
}

/// Plays a history. The machine begins without flows, and both either have or have not seen a pod reach itself.
///
/// # Errors
///
/// Where machine and reference part.
pub fn play(net: Net, machine: &mut dyn Machine, has_hairpins: bool, history: &[Step]) -> Result<Compared, String> {
    let mut play = Play {
        net,
        machine,
        reference: Reference::new(has_hairpins),
        world: World::new(net),
        left: Vec::new(),
        compared: Compared::default(),
    };
    play.set_tables();
    for (index, step) in history.iter().enumerate() {
        play.step(step).map_err(|difference| format!("step {index}, {step:?}: {difference}"))?;
    }
    Ok(play.compared)
}

struct Play<'a> {
    net: Net,
    machine: &'a mut dyn Machine,
    reference: Reference,
    world: World,
    /// Packets that went on, as they were then; the last one last.
    left: Vec<(Program, Vec<u8>)>,
    compared: Compared,
}

impl Play<'_> {
    fn set_tables(&mut self) {
        let tables: Tables = self.world.tables();
        self.machine.set_tables(&tables);
        self.reference.set_tables(&tables);
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Packet { program, transport, ends: (from, to), options_len, payload_len } => {
                let payload = vec![b'x'; *payload_len];
                let packet = Described { payload, options_len: *options_len, ..Described::new(*transport, *from, *to) };
                self.packet(*program, &packet.bytes())
            }
            Step::Answer { program, transport, back, payload_len } => {
                let Some((hook, from, to, protocol)) = self.left(*back) else { return Ok(()) };
                let transport = like(protocol, *transport);
                let packet = Described { payload: vec![b'y'; *payload_len], ..Described::new(transport, to, from) };
                self.packet(program.unwrap_or_else(|| opposite(hook)), &packet.bytes())
            }
            Step::Error { program, kind, back, is_by_receiver } => {
                let Some((hook, from, to, protocol)) = self.left(*back) else { return Ok(()) };
                let about = Described::new(like(protocol, Transport::Tcp(0x10)), from, to);
                let by = if *is_by_receiver { to.0 } else { self.net.host(250) };
                let error = about.icmp(*kind, [0, 0, 5, 0], by, from.0);
                self.packet(program.unwrap_or_else(|| opposite(hook)), &error)
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
            Step::Evict(direction) => {
                self.machine.evict(*direction);
                self.reference.evict(*direction);
                Ok(())
            }
        }
    }

    fn packet(&mut self, program: Program, packet: &[u8]) -> Result<(), String> {
        let given = self.machine.run(program, packet);
        self.reference.set_held(&self.machine.flows());
        let expected = self
            .reference
            .judge(program, packet, &given)
            .map_err(|reason| format!("{program:?} of {}: {reason}", describe_bytes(packet)))?;
        if given != expected {
            let (given, expected) = (describe(&given), describe(&expected));
            return Err(format!("{program:?} of {}\ngave     {given}\nexpected {expected}", describe_bytes(packet)));
        }
        if let Some(disagreement) = self.reference.disagreement() {
            return Err(format!("after {program:?} of {}: {disagreement}", describe_bytes(packet)));
        }
        self.compared.packets += 1;
        if given.1 != packet {
            self.compared.changed += 1;
        }
        self.left.push((program, given.1));
        Ok(())
    }

    /// The ends of the packet that left `back` packets ago, if it had ports.
    fn left(&self, back: usize) -> Option<(Program, End, End, Proto)> {
        let (hook, bytes) = self.left.iter().rev().nth(back)?;
        let wire = Wire::read(bytes);
        let proto = proto(wire.protocol)?;
        let (from, to) = wire.ends();
        Some((*hook, from, to, proto))
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

/// A transport of this protocol: the given one where it fits.
const fn like(proto: Proto, transport: Transport) -> Transport {
    match (proto, transport) {
        (Proto::TCP, Transport::Tcp(flags)) => Transport::Tcp(flags),
        (Proto::TCP, _) => Transport::Tcp(0x12),
        (Proto::UDP, Transport::UdpUnsummed) => Transport::UdpUnsummed,
        (Proto::UDP, _) => Transport::Udp,
        (Proto::SCTP, _) => Transport::Sctp,
    }
}

fn describe((action, bytes): &super::Outcome) -> String {
    format!("{action:?} {}", describe_bytes(bytes))
}

fn describe_bytes(bytes: &[u8]) -> String {
    let wire = Wire::read(bytes);
    let ends = proto(wire.protocol).map(|_| wire.ends());
    format!("{:?} {ends:?} {bytes:02x?}", wire.protocol)
}
