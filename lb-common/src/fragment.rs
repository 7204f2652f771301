//! Fragments: the first one has the ports and is decided like a whole packet; the others go where it went.
//!
//! Only their addresses change: the transport checksum stands in the first fragment, and covers what changed of all.

use crate::addr::Proto;
use crate::forward::{Edge, Tables, Work};
use crate::packet::PacketMut;
use crate::parse::{L3, Parse};
use crate::rewrite::swap_macs;
use crate::table::{Counter, Direction, Fate, FragmentKey};
use crate::verdict::{Action, Verdict};

/// Notes what becomes of a datagram whose first fragment `work` is about. One that passes leaves no note, not even that of
/// an earlier datagram: its other fragments pass, too. The key is made here: where a packet passes early, or is a pod's
/// answer to itself, `work` holds that of another packet, or of the other direction.
#[inline(always)]
pub fn remember<A: Parse, T: Tables<A>>(
    (proto, id): (Proto, u32),
    (edge, direction): (Edge, Direction),
    verdict: Verdict,
    tables: &T,
    work: &mut Work<A>,
) {
    let fate = match verdict {
        Verdict::Pass => None,
        Verdict::Translate => Some(Fate::Translated),
        Verdict::Hairpin => Some(Fate::SentBack),
        Verdict::Reject | Verdict::Drop(_) => Some(Fate::Dropped),
    };
    let tuple = &work.key.tuple;
    set_key(&mut work.fragment_key, (tuple.src, tuple.dst), (edge.id, proto, direction, id));
    note(fate, tables, work);
}

#[inline(never)]
fn note<A: Parse, T: Tables<A>>(fate: Option<Fate>, tables: &T, work: &mut Work<A>) {
    let Some(fate) = fate else { return tables.forget_fragment(&work.fragment_key) };
    let fragment = &mut work.fragment;
    (fragment.src, fragment.dst) = (work.to.src, work.to.dst);
    (fragment.fate, fragment.pad) = (fate, [0; 3]);
    tables.remember_fragment(&work.fragment_key, fragment);
}

/// What becomes of a fragment without ports. `work` holds its addresses.
#[inline(always)]
pub fn follow<A: Parse, T: Tables<A>>(
    packet: &mut impl PacketMut,
    (proto, id): (Proto, u32),
    (edge, direction): (Edge, Direction),
    tables: &T,
    work: &mut Work<A>,
) -> Action {
    let tuple = &work.key.tuple;
    set_key(&mut work.fragment_key, (tuple.src, tuple.dst), (edge.id, proto, direction, id));
    readdress(packet, tables, work)
}

#[inline(never)]
fn readdress<A: Parse, T: Tables<A>>(packet: &mut impl PacketMut, tables: &T, work: &mut Work<A>) -> Action {
    let Some(fate) = tables.fragment(&work.fragment_key, &mut work.to) else {
        tables.count(Counter::PassedFragment);
        return Action::Next;
    };
    if fate == Fate::Dropped {
        tables.count(Counter::DropFragment);
        return Action::Drop;
    }
    let turned = if fate == Fate::SentBack { swap_macs(packet) } else { Ok(()) };
    if turned.and_then(|()| A::write_addresses(packet, L3, &work.key.tuple, &work.to)).is_err() {
        tables.count(Counter::DropRewrite);
        return Action::Drop;
    }
    tables.count(Counter::FragmentTranslated);
    if fate == Fate::SentBack { Action::SendBack } else { Action::Next }
}

#[inline(always)]
fn set_key<A: Parse>(
    key: &mut FragmentKey<A>,
    (src, dst): (A, A),
    (edge, proto, direction, id): (u32, Proto, Direction, u32),
) {
    (key.edge, key.src, key.dst, key.id) = (edge, src, dst, id);
    (key.proto, key.direction, key.pad) = (proto, direction, 0);
}
