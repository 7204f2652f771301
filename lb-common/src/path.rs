//! The whole path of a packet at one hook: parse, decide, perform. One expression per entry point of `lb-ebpf`.

use crate::addr::Family;
use crate::forward::{Edge, Env, Path, Tables, Work};
use crate::fragment;
use crate::icmp::message;
use crate::packet::{Packet, PacketMut};
use crate::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Headers, Parse, Parsed};
use crate::reject::{Unreachable, port_unreachable};
use crate::rewrite::{swap_macs, translate};
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
    /// Takes a token of the rate limit of ICMP answers.
    fn may_reject(&self) -> bool;
}

/// A packet that comes in at `edge`.
#[inline(always)]
pub fn ingress<A: Unreachable, T: Tables<A>, E: Env + Limits>(
    packet: &mut impl PacketMut,
    edge: Edge,
    tables: &T,
    env: &E,
    work: &mut Work<A>,
) -> Action {
    match parse(packet, &mut work.key.tuple) {
        Parsed::Transport(headers) => {
            let verdict = Path { headers, edge, tables, env, work }.request();
            if let Some(id) = headers.first_of.id() {
                fragment::remember((headers.proto, id), (edge, Direction::Request), verdict, tables, work);
            }
            perform(packet, &headers, verdict, tables, env, work)
        }
        Parsed::Icmp(l4) => message(packet, l4, (edge, Direction::Request), tables, work),
        Parsed::Fragment(proto, id) => fragment::follow(packet, (proto, id), (edge, Direction::Request), tables, work),
        Parsed::Short | Parsed::Other => Action::Next,
    }
}

/// A packet that goes out at `edge`.
#[inline(always)]
pub fn egress<A: Unreachable, T: Tables<A>, E: Env + Limits>(
    packet: &mut impl PacketMut,
    edge: Edge,
    tables: &T,
    env: &E,
    work: &mut Work<A>,
) -> Action {
    match parse(packet, &mut work.key.tuple) {
        Parsed::Transport(headers) => {
            let verdict = Path { headers, edge, tables, env, work }.reply();
            if let Some(id) = headers.first_of.id() {
                fragment::remember((headers.proto, id), (edge, Direction::Reply), verdict, tables, work);
            }
            perform(packet, &headers, verdict, tables, env, work)
        }
        Parsed::Icmp(l4) => message(packet, l4, (edge, Direction::Reply), tables, work),
        Parsed::Fragment(proto, id) => fragment::follow(packet, (proto, id), (edge, Direction::Reply), tables, work),
        Parsed::Short | Parsed::Other => Action::Next,
    }
}

/// Parses the headers where they are, and once more behind the linear part of an skb: pulling them costs ten times what
/// looking costs, and nearly no packet needs it.
#[inline(always)]
fn parse<A: Parse>(packet: &mut impl PacketMut, tuple: &mut Tuple<A>) -> Parsed {
    match A::parse(packet, tuple) {
        Parsed::Short if packet.pull() => A::parse(packet, tuple),
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
    work: &Work<A>,
) -> Action {
    let from = &work.key.tuple;
    let (done, action) = match verdict {
        Verdict::Pass => return Action::Next,
        Verdict::Translate => (translate(packet, headers, from, work.to()), Action::Next),
        Verdict::Hairpin => {
            (swap_macs(packet).and_then(|()| translate(packet, headers, from, work.to())), Action::SendBack)
        }
        Verdict::Reject => {
            if !env.may_reject() {
                tables.count(Counter::DropRejectLimit);
                return Action::Drop;
            }
            tables.count(Counter::Rejected);
            (port_unreachable(packet, headers, from), Action::SendBack)
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
