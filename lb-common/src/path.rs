//! The whole path of a packet at one hook: parse, decide, perform. One expression per entry point of `lb-ebpf`.

use crate::addr::Family;
use crate::forward::{Edge, Env, Path, Tables, Whose, Work, whose};
use crate::fragment::{self, Datagram, Fragments};
use crate::icmp::message;
use crate::packet::{Addressee, Packet, PacketMut};
use crate::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, FirstOf, Headers, Parse, Parsed};
use crate::reject::{Unreachable, port_unreachable};
use crate::rewrite::{translate, turn_round};
use crate::table::{Counter, Direction, Tuple};
use crate::verdict::{Action, Verdict};

/// The family of a packet, if it has one.
#[inline(always)]
pub fn family(packet: &impl Packet) -> Option<Family> {
    match packet.ethertype() {
        ETHERTYPE_IPV4 => Some(Family::V4),
        ETHERTYPE_IPV6 => Some(Family::V6),
        _ => None,
    }
}

/// What the path needs beside the tables: the tick, chance, and the right to answer.
pub trait Limits {
    /// Takes a token of an edge's rate limit of ICMP answers.
    fn may_reject(&self, edge: u32) -> bool;
}

/// A packet that comes in at `edge`.
#[inline(always)]
pub fn ingress<A: Unreachable, T: Tables<A> + Fragments<A>, E: Env + Limits>(
    packet: &mut impl PacketMut,
    edge: Edge,
    tables: &T,
    env: &E,
    work: &mut Work<A>,
) -> Action {
    // Whether an interface is a port, and of what, is asked where it matters: most frames are of no interest.
    work.stray = match packet.addressee() {
        Addressee::Interface => 0,
        Addressee::Another => 1,
        Addressee::Group => return Action::Next,
    };
    at_hook(packet, (edge, Direction::Request), tables, env, work)
}

/// A packet that goes out at `edge`.
#[inline(always)]
pub fn egress<A: Unreachable, T: Tables<A> + Fragments<A>, E: Env + Limits>(
    packet: &mut impl PacketMut,
    edge: Edge,
    tables: &T,
    env: &E,
    work: &mut Work<A>,
) -> Action {
    work.stray = 0;
    at_hook(packet, (edge, Direction::Reply), tables, env, work)
}

#[inline(always)]
fn at_hook<A: Unreachable, T: Tables<A> + Fragments<A>, E: Env + Limits>(
    packet: &mut impl PacketMut,
    hook: (Edge, Direction),
    tables: &T,
    env: &E,
    work: &mut Work<A>,
) -> Action {
    let headers = match parse(packet, &mut work.key.tuple) {
        Parsed::Transport(headers) => headers,
        Parsed::Short(proto, first_of) if first_of != FirstOf::NONE => Headers::stub(proto, first_of),
        Parsed::Icmp(l4) => return message(packet, l4, hook, tables, work),
        Parsed::Fragment(proto, id) => {
            return fragment::follow(packet, Datagram::new(proto, id, hook), tables, env, work);
        }
        Parsed::Short(..) | Parsed::Other => return Action::Next,
    };
    transport(packet, headers, hook, tables, env, work)
}

/// A packet with ports. A first fragment that others wait for goes through the hook once more with them behind it, and is
/// decided then, so that they find a note. One without ports, as it is too short for them (RFC 1858) or has none, is left
/// alone, with the others.
#[inline(always)]
fn transport<A: Unreachable, T: Tables<A> + Fragments<A>, E: Env + Limits>(
    packet: &mut impl PacketMut,
    mut headers: Headers,
    (edge, direction): (Edge, Direction),
    tables: &T,
    env: &E,
    work: &mut Work<A>,
) -> Action {
    if headers.first_of != FirstOf::NONE && whose(tables, work) != Whose::Node {
        // A datagram between neighbours: where it has a flow, only ports change, which no other fragment has.
        if headers.first_of.is_stub() {
            return Action::Next;
        }
        headers.first_of = FirstOf::NONE;
    }
    if let Some(id) = headers.first_of.id() {
        let datagram = Datagram::new(headers.proto, id, (edge, direction));
        if fragment::goes_round(packet, datagram, tables, env, work) {
            return Action::Drop;
        }
        if headers.first_of.is_stub() {
            return fragment::leave(packet, tables, env, work);
        }
    }
    headers.first_of = headers.first_of.forgotten(packet);
    let mut path = Path { transport: headers.transport(), edge, tables, env, work };
    let verdict = match direction {
        Direction::Request => path.request(),
        Direction::Reply => path.leave(),
    };
    if headers.first_of != FirstOf::NONE && fragment::remember(packet, verdict, tables, env, work) {
        return Action::Drop;
    }
    perform(packet, &headers, verdict, tables, env, work)
}

/// Parses the headers where they are, and once more behind the linear part of an skb: pulling them costs ten times what
/// looking costs, and nearly no packet needs it.
#[inline(always)]
fn parse<A: Parse>(packet: &mut impl PacketMut, tuple: &mut Tuple<A>) -> Parsed {
    match A::parse(packet, tuple) {
        Parsed::Short(..) if packet.pull() => A::parse(packet, tuple),
        parsed => parsed,
    }
}

#[inline(always)]
fn perform<A: Unreachable, T: Tables<A>, E: Env + Limits>(
    packet: &mut impl PacketMut,
    headers: &Headers,
    verdict: Verdict,
    tables: &T,
    env: &E,
    work: &mut Work<A>,
) -> Action {
    let from = &work.key.tuple;
    let (done, action) = match verdict {
        Verdict::Pass => return Action::Next,
        Verdict::Translate => (translate(packet, headers, from, work.to()), work.translated(work.key.direction)),
        Verdict::Hairpin => {
            (turn_round(packet).and_then(|()| translate(packet, headers, from, work.to())), Action::SendBack)
        }
        Verdict::Reject => {
            if !env.may_reject(work.key.edge) {
                tables.count(Counter::DropRejectLimit);
                return Action::Drop;
            }
            tables.count(Counter::Rejected);
            (port_unreachable(packet, headers, work), Action::SendBack)
        }
        Verdict::Drop(reason) => {
            tables.count(reason);
            return Action::Drop;
        }
    };
    if done.is_err() {
        tables.count(Counter::DropRewrite);
        return Action::Drop;
    }
    action
}
