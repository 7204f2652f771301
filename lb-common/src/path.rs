//! The path of a packet through one hook: parse, decide, perform. The entry points of `lb-ebpf` call [`run`].

use crate::addr::{Addr, Family, Proto};
use crate::forward::{Hook, Maps, Path, Whose, Work, whose};
use crate::fragment::{self, Datagram, First, Fragments};
use crate::icmp::message;
use crate::packet::{Addressee, Packet, PacketMut};
use crate::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Headers, Parse, Parsed};
use crate::reject::{Unreachable, port_unreachable};
use crate::rewrite::{translate, turn_round};
use crate::table::{Counter, Direction, Tuple};
use crate::verdict::{HookAction, Verdict};

/// The IP family of a packet. None if the packet is neither IPv4 nor IPv6.
#[inline(always)]
pub fn family(packet: &impl Packet) -> Option<Family> {
    match packet.ethertype() {
        ETHERTYPE_IPV4 => Some(Family::V4),
        ETHERTYPE_IPV6 => Some(Family::V6),
        _ => None,
    }
}

/// Handles a packet at a hook.
#[inline(always)]
pub fn run<A: Unreachable, K: Fragments<A>>(
    packet: &mut impl PacketMut,
    hook: Hook,
    kernel: &K,
    work: &mut Work<A>,
) -> HookAction {
    work.stray = match hook.direction {
        Direction::Reply => 0,
        // The bridge of the interface is looked up later and only if needed: most frames belong to no flow.
        Direction::Request => match packet.addressee() {
            Addressee::Interface => 0,
            Addressee::Another => 1,
            Addressee::Group => return HookAction::Next,
        },
    };
    let headers = match parse(packet, &mut work.key.tuple) {
        Parsed::Transport(headers) => headers,
        Parsed::Short(proto, first_of) if first_of.is_some() => Headers::without_ports(proto, first_of),
        Parsed::Icmp(l4) => return message(packet, l4, hook, kernel, work),
        Parsed::Fragment(proto, id) => {
            return fragment::follow(packet, Datagram::new(proto, id, hook), kernel, work);
        }
        Parsed::Short(..) | Parsed::Other => return HookAction::Next,
    };
    transport(packet, headers, hook, kernel, work)
}

/// Decides and performs a packet with ports. If later fragments wait for a first fragment, all of them are
/// re-injected, the first fragment ahead; it is decided on that second pass, and the others find its note. A first
/// fragment without ports (too short, RFC 1858, or of another protocol) passes, and so does the rest of its datagram.
#[inline(always)]
fn transport<A: Unreachable, K: Fragments<A>>(
    packet: &mut impl PacketMut,
    mut headers: Headers,
    hook: Hook,
    kernel: &K,
    work: &mut Work<A>,
) -> HookAction {
    if headers.first_of.is_some() && whose(kernel, work) != Whose::Node {
        // A datagram between neighbours on the bridge. A flow changes only its ports, and later fragments have none.
        if !headers.has_ports {
            return HookAction::Next;
        }
        headers.first_of = None;
    }
    if let Some(id) = headers.first_of {
        let datagram = Datagram::new(headers.proto, id.get(), hook);
        if fragment::reinject_awaited(packet, datagram, kernel, work) == First::Reinjected {
            return HookAction::Drop;
        }
        if !headers.has_ports {
            return fragment::leave(packet, kernel, work);
        }
    }
    headers.first_of = packet.forget_datagram(headers.first_of);
    let mut path = Path { transport: headers.transport(), edge: hook.edge, kernel, work };
    let verdict = match hook.direction {
        Direction::Request => path.request(),
        Direction::Reply => path.leave(),
    };
    if headers.first_of.is_some() && fragment::remember(packet, verdict, kernel, work) == First::Reinjected {
        return HookAction::Drop;
    }
    perform(packet, &headers, (hook, verdict), kernel, work)
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
fn perform<A: Unreachable, K: Maps<A>>(
    packet: &mut impl PacketMut,
    headers: &Headers,
    (hook, verdict): (Hook, Verdict),
    kernel: &K,
    work: &mut Work<A>,
) -> HookAction {
    let from = &work.key.tuple;
    let (done, action) = match verdict {
        Verdict::Pass => return HookAction::Next,
        Verdict::Translate => (translate(packet, headers, from, work.to()), work.translated(work.key.direction)),
        Verdict::Hairpin => {
            (turn_round(packet).and_then(|()| translate(packet, headers, from, work.to())), HookAction::SendBack)
        }
        Verdict::Reject => {
            if !kernel.may_reject(work.key.edge) {
                return refused(Counter::DropRejectLimit, headers.proto, hook, kernel, work);
            }
            refused(Counter::Rejected, headers.proto, hook, kernel, work);
            (port_unreachable(packet, headers, work), HookAction::SendBack)
        }
        Verdict::Drop(reason) => return refused(reason.counter(), headers.proto, hook, kernel, work),
    };
    if done.is_err() {
        kernel.count(Counter::DropRewrite);
        return HookAction::Drop;
    }
    action
}

/// Counts and notes a packet that is rejected or dropped. The decision may have ended before the key was complete.
#[inline(always)]
fn refused<A: Addr, K: Maps<A>>(
    reason: Counter,
    proto: Proto,
    Hook { edge, direction }: Hook,
    kernel: &K,
    work: &mut Work<A>,
) -> HookAction {
    let key = &mut work.key;
    (key.edge, key.proto, key.direction, key.pad) = (edge.id, proto, direction, 0);
    kernel.count(reason);
    kernel.note_drop(reason, key);
    HookAction::Drop
}
