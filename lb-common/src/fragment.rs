//! Fragments: the first fragment has the ports and is decided like a whole packet; the later ones follow it.
//!
//! Only the addresses of later fragments change: the transport checksum is in the first fragment and covers the whole
//! change. A fragment that overtakes the first one is *parked* if its datagram may be a Service's. Once the first one
//! arrives, the parked ones are *replayed*: re-injected at the same hook, behind it.

use core::cell::Cell;

use crate::addr::{Addr, Family, Proto};
use crate::flow::quiet_jiffies;
use crate::forward::{Env, Hook, Maps, Whose, Work, whose};
use crate::packet::{PARKED_LEN_MAX, PacketMut};
use crate::parse::{ANY_PROTO, Parse};
use crate::rewrite::turn_round;
use crate::run::Run;
use crate::table::{Counter, Direction, EDGE_UPLINK, Fate, Fragment, FragmentKey, Role, Tuple};
use crate::verdict::{HookAction, Verdict};

/// How long fragments wait for their first one, and how long a quiet datagram is remembered. Short, because a busy
/// client reuses an identification after 65,536 datagrams (RFC 6864), and nothing of the earlier datagram may be left
/// by then.
pub const FRAGMENT_SECS: u64 = 2;

/// Most fragments of a datagram that are replayed. The longest datagram has 54 over links of 1,280 bytes (RFC 8200
/// section 5).
const REPLAYED_MAX: u32 = 64;

/// A place in the ring of parked fragments. Places have no owner: any CPU fills the next one, and any CPU may read it.
/// A reader copies the bytes and then checks that the ticket has not changed.
#[repr(C)]
pub struct Parked {
    /// The ticket of the fragment that is parked here; 0: none, or already replayed.
    pub ticket: Cell<u32>,
    /// The ticket of the fragment of the same datagram that was parked before; 0: none.
    pub previous: Cell<u32>,
    /// Edge, identification and direction must match those of the first fragment.
    pub edge: Cell<u32>,
    pub id: Cell<u32>,
    pub len: Cell<u32>,
    pub direction: Cell<Direction>,
    pub pad: Cell<[u8; 3]>,
    pub bytes: Cell<[u8; PARKED_LEN_MAX]>,
}

/// The note of a datagram, read field by field and changed in place.
pub trait Note<A>: Copy {
    fn fate(self) -> Fate;
    fn since_jiffies(self) -> u64;
    fn touch(self, now_jiffies: u64);
    /// Copies the addresses.
    fn read_to(self, to: &mut Tuple<A>);
    /// [`Fragment::parked`].
    fn parked(self) -> u32;
    /// Exchanges the ticket atomically.
    fn swap_parked(self, ticket: u32) -> u32;
}

/// The maps as fragments use them.
pub trait Fragments<A: Addr>: Maps<A> {
    type Note: Note<A>;

    fn note(&self, key: &FragmentKey<A>) -> Option<Self::Note>;
    /// Writes a note, in place of an existing one.
    fn write_note(&self, key: &FragmentKey<A>, fragment: &Fragment<A>);
    /// False if a note exists.
    fn add_note(&self, key: &FragmentKey<A>, fragment: &Fragment<A>) -> bool;
    fn forget_note(&self, key: &FragmentKey<A>);
    /// Draws the next ticket of the ring. One draw in 2^32 gives 0, which is no ticket.
    fn next_ticket(&self) -> u32;
    /// The place of a ticket. Earlier and later tickets share it.
    fn place(&self, ticket: u32) -> Option<&Parked>;
    /// Exchanges a word of a place atomically.
    fn swap(&self, word: &Cell<u32>, value: u32) -> u32;
    /// The same, only if the word has the expected value.
    fn swap_if(&self, word: &Cell<u32>, expected: u32, value: u32) -> bool;
}

/// The fragments of one datagram at one hook.
#[derive(Clone, Copy)]
pub struct Datagram {
    pub edge: u32,
    pub direction: Direction,
    pub proto: Proto,
    pub id: u32,
}

impl Datagram {
    #[inline(always)]
    pub const fn new(proto: Proto, id: u32, Hook { edge, direction }: Hook) -> Self {
        Self { edge: edge.id, direction, proto, id }
    }

    /// Fills in the keys. `work` must hold the packet's addresses.
    #[inline(always)]
    fn set_keys<A: Addr>(&self, work: &mut Work<A>) {
        let Work { key, fragment_key, .. } = work;
        let (src, dst) = (key.tuple.src, key.tuple.dst);
        (fragment_key.edge, fragment_key.src, fragment_key.dst, fragment_key.id) = (self.edge, src, dst, self.id);
        fragment_key.proto = match A::FAMILY {
            Family::V4 => self.proto,
            // The header does not count: a later fragment may name an extension header, and only the first fragment
            // holds what follows it.
            Family::V6 => ANY_PROTO,
        };
        (fragment_key.direction, fragment_key.pad) = (self.direction, 0);
    }
}

/// What happened to a first fragment.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// No fragment waits for it: its way is decided now.
    Kept,
    /// It was re-injected, followed by the fragments that waited for it: the caller drops the original.
    Reinjected,
}

impl<A: Parse, P: PacketMut, K: Fragments<A>> Run<'_, A, P, K> {
    /// Fills in the keys. If later fragments are parked, re-injects this first fragment followed by them.
    #[inline(always)]
    pub(crate) fn reinject_awaited(&mut self, datagram: Datagram) -> First {
        datagram.set_keys(self.work);
        self.reinject()
    }

    #[inline(never)]
    fn reinject(&mut self) -> First {
        let ticket = awaited(self.kernel, self.work).map_or(0, |note| note.swap_parked(0));
        if ticket == 0 {
            return First::Kept;
        }
        self.replay(ticket);
        First::Reinjected
    }

    /// Notes the fate of the datagram whose first fragment `work` describes. If another CPU has parked fragments in
    /// the meantime, re-injects this first fragment, so that its way is decided again.
    #[inline(always)]
    pub(crate) fn note_verdict(&mut self, verdict: Verdict) -> First {
        self.note_fate(match verdict {
            Verdict::Pass => Fate::Passed,
            Verdict::Translate => Fate::Translated,
            Verdict::Hairpin => Fate::SentBack,
            Verdict::Forward => Fate::Forwarded,
            Verdict::Reject | Verdict::Drop(_) => Fate::Dropped,
        })
    }

    #[inline(never)]
    fn note_fate(&mut self, fate: Fate) -> First {
        let (kernel, work) = (self.kernel, &mut *self.work);
        if fate == Fate::Passed && !may_be_ours(kernel, &work.fragment_key) {
            // No fragment of this datagram is ever parked, and the later ones pass without a note.
            kernel.forget_note(&work.fragment_key);
            return First::Kept;
        }
        if awaited(kernel, work).is_some_and(|note| note.parked() != 0) {
            send_again(self.packet, work.fragment_key.direction, kernel);
            return First::Reinjected;
        }
        set_note(fate, 0, kernel, work);
        kernel.write_note(&work.fragment_key, &work.fragment);
        First::Kept
    }

    /// A first fragment without ports, for which none are parked, passes. So do the later ones.
    #[inline(always)]
    pub(crate) fn pass_datagram(&mut self) -> HookAction {
        if self.note_fate(Fate::Passed) == First::Reinjected {
            return HookAction::Drop;
        }
        self.kernel.count(Counter::PassedFragment);
        HookAction::Next
    }

    /// Decides a fragment without ports. `work` holds its addresses.
    #[inline(never)]
    pub(crate) fn follow_first(&mut self, datagram: Datagram) -> HookAction {
        if whose(self.kernel, self.work) != Whose::Node {
            return HookAction::Next;
        }
        datagram.set_keys(self.work);
        let mut fate = known_fate(self.kernel, self.work);
        if fate == Fate::Awaited {
            if !self.park() {
                self.kernel.count(Counter::PassedFragment);
                return HookAction::Next;
            }
            // The first fragment may have arrived on another CPU in the meantime and found nothing parked.
            fate = known_fate(self.kernel, self.work);
        }
        self.readdress(fate)
    }

    #[inline(never)]
    fn readdress(&mut self, fate: Fate) -> HookAction {
        let (packet, kernel, work) = (&mut *self.packet, self.kernel, &mut *self.work);
        match fate {
            Fate::Translated | Fate::SentBack | Fate::Forwarded => {}
            Fate::Passed => {
                kernel.count(Counter::PassedFragment);
                return HookAction::Next;
            }
            Fate::Dropped => {
                kernel.count(Counter::DropFragment);
                return HookAction::Drop;
            }
            Fate::Awaited => {
                kernel.count(Counter::FragmentParked);
                return HookAction::Drop;
            }
        }
        let turned = if fate == Fate::SentBack { turn_round(packet) } else { Ok(()) };
        let l3 = packet.l3();
        if turned.and_then(|()| A::write_addresses(packet, l3, &work.key.tuple, &work.to)).is_err() {
            kernel.count(Counter::DropRewrite);
            return HookAction::Drop;
        }
        kernel.count(Counter::FragmentTranslated);
        match fate {
            Fate::SentBack => HookAction::SendBack,
            Fate::Forwarded => {
                // Of an earlier packet: a fragment has none.
                (work.to.sport, work.to.dport) = (0, 0);
                work.forward_translated()
            }
            _ => work.translated(work.fragment_key.direction),
        }
    }

    /// Parks a fragment whose first one is unknown, if it may be a Service's. False if the fragment is to pass.
    #[inline(never)]
    fn park(&mut self) -> bool {
        let (packet, kernel, work) = (&*self.packet, self.kernel, &mut *self.work);
        if !may_be_ours(kernel, &work.fragment_key) {
            return false;
        }
        let ticket = kernel.next_ticket();
        if ticket == 0 {
            return false;
        }
        let Some(place) = kernel.place(ticket) else { return false };
        // The ticket first: a CPU that is copying the old bytes then sees that the place has changed.
        if kernel.swap(&place.ticket, ticket) != 0 {
            kernel.count(Counter::DropParked);
        }
        let Some(len) = packet.save(packet.l3(), &place.bytes) else {
            place.ticket.set(0);
            return false;
        };
        let key = &work.fragment_key;
        place.len.set(len);
        place.previous.set(0);
        place.edge.set(key.edge);
        place.id.set(key.id);
        place.direction.set(key.direction);
        set_note(Fate::Awaited, ticket, kernel, work);
        let key = &work.fragment_key;
        if kernel.note(key).is_some_and(|note| !is_fresh(note, kernel)) {
            kernel.forget_note(key);
        }
        if !kernel.add_note(key, &work.fragment)
            && let Some(note) = kernel.note(key)
            && note.fate() == Fate::Awaited
        {
            place.previous.set(note.swap_parked(ticket));
        }
        true
    }

    /// Re-injects a first fragment unchanged, then the parked ones of its datagram, the latest first, for senders that
    /// begin at the end. They all travel in the skb of the first one, which is used up then.
    ///
    /// If the kernel runs the hook at once, that nested run overwrites `work`. So `work` is not read after the first
    /// re-injection.
    #[inline(never)]
    fn replay(&mut self, ticket: u32) {
        let FragmentKey { edge, id, direction, .. } = self.work.fragment_key;
        let (packet, kernel) = (&mut *self.packet, self.kernel);
        let mut ticket = ticket;
        send_again(packet, direction, kernel);
        for _ in 0..REPLAYED_MAX {
            let Some(place) = kernel.place(ticket) else { break };
            let is_its = place.edge.get() == edge && place.id.get() == id && place.direction.get() == direction;
            if ticket == 0 || place.ticket.get() != ticket || !is_its {
                break;
            }
            let previous = place.previous.get();
            let restored = packet.restore(packet.l3(), &place.bytes, place.len.get());
            if !kernel.swap_if(&place.ticket, ticket, 0) {
                // Another fragment was parked here during the copy.
                break;
            }
            if restored.is_ok() {
                send_again(packet, direction, kernel);
            } else {
                kernel.count(Counter::DropRewrite);
            }
            ticket = previous;
        }
    }
}

/// Whether the datagram may be a Service's, judged by its addresses alone.
#[inline(never)]
fn may_be_ours<A: Addr, K: Fragments<A>>(kernel: &K, key: &FragmentKey<A>) -> bool {
    // The answer of another node's endpoint enters by the hook of requests.
    let is_request = matches!(key.direction, Direction::Request);
    if is_request && kernel.may_be_ours(&key.dst, Role::Frontend) {
        return true;
    }
    let may_be_reply = !is_request || (key.edge == EDGE_UPLINK && kernel.edge_state(EDGE_UPLINK).has_hairpins());
    may_be_reply && kernel.may_be_ours(&key.src, Role::Endpoint)
}

/// The note of a datagram whose first fragment has not been decided yet.
#[inline(always)]
fn awaited<A: Parse, K: Fragments<A>>(kernel: &K, work: &Work<A>) -> Option<K::Note> {
    kernel.note(&work.fragment_key).filter(|note| note.fate() == Fate::Awaited && is_fresh(*note, kernel))
}

#[inline(always)]
fn set_note<A: Addr>(fate: Fate, parked: u32, env: &impl Env, work: &mut Work<A>) {
    let Work { fragment, to, .. } = work;
    (fragment.src, fragment.dst) = (to.src, to.dst);
    (fragment.fate, fragment.pad, fragment.parked) = (fate, [0; 3], parked);
    fragment.since_jiffies = env.now_jiffies();
}

#[inline(always)]
fn is_fresh<A>(note: impl Note<A>, env: &impl Env) -> bool {
    quiet_jiffies(note.since_jiffies(), env.now_jiffies()) < FRAGMENT_SECS * env.second_jiffies()
}

/// The fate of a datagram's fragments. Their new addresses go to `work.to`.
#[inline(never)]
fn known_fate<A: Parse, K: Fragments<A>>(kernel: &K, work: &mut Work<A>) -> Fate {
    let Some(note) = kernel.note(&work.fragment_key) else { return Fate::Awaited };
    let fate = note.fate();
    if fate == Fate::Awaited || !is_fresh(note, kernel) {
        return Fate::Awaited;
    }
    note.touch(kernel.now_jiffies());
    note.read_to(&mut work.to);
    fate
}

#[inline(always)]
fn send_again<A: Addr, K: Maps<A>>(packet: &mut impl PacketMut, direction: Direction, kernel: &K) {
    let counter = match packet.send_again(direction) {
        Ok(()) => Counter::FragmentReplayed,
        Err(_) => Counter::DropRewrite,
    };
    kernel.count(counter);
}
