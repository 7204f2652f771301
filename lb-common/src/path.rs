//! The path of a packet through one hook: parse, decide, perform. The entry points of `lb-ebpf` call [`ingress`] or
//! [`egress`].

use crate::addr::Family;
use crate::forward::{Edge, Env, Path, Tables, Whose, Work, whose};
use crate::fragment::{self, Datagram, First, Fragments};
use crate::icmp::message;
use crate::packet::{Addressee, Packet, PacketMut};
use crate::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, FirstOf, Headers, Parse, Parsed};
use crate::reject::{Unreachable, port_unreachable};
use crate::rewrite::{translate, turn_round};
use crate::table::{Counter, Direction, Tuple};
use crate::verdict::{Action, Verdict};

/// The IP family of a packet. None if the packet is neither IPv4 nor IPv6.
#[inline(always)]
pub fn family(packet: &impl Packet) -> Option<Family> {
    match packet.ethertype() {
        ETHERTYPE_IPV4 => Some(Family::V4),
        ETHERTYPE_IPV6 => Some(Family::V6),
        _ => None,
    }
}

/// The rate limit of ICMP answers.
pub trait RejectLimit {
    /// Takes a token from the edge's bucket for ICMP answers. False if none is left.
    fn may_reject(&self, edge: u32) -> bool;
}

/// Handles a packet that comes in at `edge`.
#[inline(always)]
pub fn ingress<A: Unreachable, T: Tables<A> + Fragments<A>, E: Env + RejectLimit>(
    packet: &mut impl PacketMut,
    edge: Edge,
    tables: &T,
    env: &E,
    work: &mut Work<A>,
) -> Action {
    // The bridge of the interface is looked up later and only if needed: most frames belong to no flow.
    work.stray = match packet.addressee() {
        Addressee::Interface => 0,
        Addressee::Another => 1,
        Addressee::Group => return Action::Next,
    };
    at_hook(packet, (edge, Direction::Request), tables, env, work)
}

/// Handles a packet that goes out at `edge`.
#[inline(always)]
pub fn egress<A: Unreachable, T: Tables<A> + Fragments<A>, E: Env + RejectLimit>(
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
fn at_hook<A: Unreachable, T: Tables<A> + Fragments<A>, E: Env + RejectLimit>(
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

/// Decides and performs a packet with ports. If later fragments wait for a first fragment, all of them are
/// re-injected, the first fragment ahead; it is decided on that second pass, and the others find its note. A first
/// fragment without ports (too short, RFC 1858, or of another protocol) passes, and so does the rest of its datagram.
#[inline(always)]
fn transport<A: Unreachable, T: Tables<A> + Fragments<A>, E: Env + RejectLimit>(
    packet: &mut impl PacketMut,
    mut headers: Headers,
    (edge, direction): (Edge, Direction),
    tables: &T,
    env: &E,
    work: &mut Work<A>,
) -> Action {
    if headers.first_of != FirstOf::NONE && whose(tables, work) != Whose::Node {
        // A datagram between neighbours on the bridge. A flow changes only its ports, and later fragments have none.
        if headers.first_of.is_stub() {
            return Action::Next;
        }
        headers.first_of = FirstOf::NONE;
    }
    if let Some(id) = headers.first_of.id() {
        let datagram = Datagram::new(headers.proto, id, (edge, direction));
        if fragment::reinject_awaited(packet, datagram, tables, env, work) == First::Reinjected {
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
    let is_first = headers.first_of != FirstOf::NONE;
    if is_first && fragment::remember(packet, verdict, tables, env, work) == First::Reinjected {
        return Action::Drop;
    }
    perform(packet, &headers, verdict, tables, env, work)
}

/// Parses the headers in place. If the linear part of the skb is too short, pulls them into it and parses again. A
/// pull costs ten times as much as a read, and hardly any packet needs one.
#[inline(always)]
fn parse<A: Parse>(packet: &mut impl PacketMut, tuple: &mut Tuple<A>) -> Parsed {
    match A::parse(packet, tuple) {
        Parsed::Short(..) if packet.pull() => A::parse(packet, tuple),
        parsed => parsed,
    }
}

#[inline(always)]
fn perform<A: Unreachable, T: Tables<A>, E: Env + RejectLimit>(
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
            tables.count(reason.counter());
            return Action::Drop;
        }
    };
    if done.is_err() {
        tables.count(Counter::DropRewrite);
        return Action::Drop;
    }
    action
}
