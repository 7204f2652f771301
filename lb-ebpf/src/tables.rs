//! [`Maps`] of the kernel. No decision is made here.

use core::arch::asm;
use core::intrinsics::{self, AtomicOrdering};
use core::mem::MaybeUninit;
use core::ptr::{addr_of, addr_of_mut};

use lb_common::forward::{Env as _, FlowRef, HeaderRef, InsertError, Maps, Part, Path, Whose, Work};
use lb_common::packet::{PacketMut, Refused};
use lb_common::sequence::Sequence;
use lb_common::share::Occupancy;
use lb_common::table::{
    Counter, EDGE_UPLINK, EdgeFlows, EdgeState, EndpointKey, Flow, FlowKey, FlowMarks, FlowState, ProxyHeader,
    SPENT_RING_LEN, Tuple, edge_index, spent_ring,
};
use lb_common::way::{Reach, Way};

use crate::kernel::{Kernel, embryos_max, looks_back};
use crate::linear::copy_words;
use crate::maps;

const BPF_NOEXIST: u64 = 1;
const EEXIST: i32 = 17;

/// The records of this program run.
#[inline(always)]
pub fn work<A: FamilyTables>() -> Option<&'static mut Work<A>> {
    // SAFETY: the element of this CPU. A program run has one such reference at a time, and no run interrupts another on
    // the same CPU (bottom halves are off at both hooks).
    A::work().get_ptr_mut(0).map(|work| unsafe { &mut *work })
}

/// An element of a flow table, as a lookup in this program run found it.
#[derive(Clone, Copy)]
pub struct FlowElement<A>(*mut Flow<A>);

/// Reads or writes one field of the element.
macro_rules! field {
    ($element:expr, $field:ident) => {
        // SAFETY: the pointer comes from a lookup in this program run; the bytes are a field that this program or an
        // earlier one wrote. Another CPU may write it meanwhile: each access is one aligned word or byte.
        unsafe { addr_of!((*$element.0).$field).read_volatile() }
    };
    ($element:expr, $field:ident = $value:expr) => {
        // SAFETY: see above.
        unsafe { addr_of_mut!((*$element.0).$field).write_volatile($value) }
    };
}

mod fragments;
mod known;
mod parts;
mod ports;
mod services;
mod told;

pub use parts::FamilyTables;

impl<A: Copy> FlowRef<A> for FlowElement<A> {
    #[inline(always)]
    fn read_to(self, to: &mut Tuple<A>) {
        // SAFETY: as in `field`; `to` never changes during the element's life, so it may be read piecewise. Both are a
        // `Tuple`.
        unsafe { copy_words::<Tuple<A>>(addr_of!((*self.0).to).cast(), addr_of_mut!(*to).cast()) };
    }

    #[inline(always)]
    fn to(self) -> Tuple<A> {
        let mut to = MaybeUninit::<Tuple<A>>::uninit();
        // SAFETY: as above. All of `to` is written.
        unsafe {
            copy_words::<Tuple<A>>(addr_of!((*self.0).to).cast(), to.as_mut_ptr().cast());
            to.assume_init()
        }
    }

    #[inline(always)]
    fn frontend(self) -> u32 {
        field!(self, frontend)
    }

    #[inline(always)]
    fn pool(self) -> u32 {
        field!(self, pool)
    }

    #[inline(always)]
    fn state(self) -> FlowState {
        field!(self, state)
    }

    #[inline(always)]
    fn last_seen_jiffies(self) -> u64 {
        field!(self, last_seen_jiffies)
    }

    #[inline(always)]
    fn touch(self, now_jiffies: u64) {
        field!(self, last_seen_jiffies = now_jiffies);
    }

    #[inline(always)]
    fn set_state(self, state: FlowState) {
        field!(self, state = state);
    }

    #[inline(always)]
    fn set_pool(self, pool: u32) {
        field!(self, pool = pool);
    }

    #[inline(always)]
    fn sequence(self) -> Sequence {
        if field!(self, marks) & FlowMarks::HEARD == 0 { Sequence::NONE } else { Sequence::of(field!(self, seq_high)) }
    }

    #[inline(always)]
    fn set_sequence(self, sequence: Sequence) {
        field!(self, seq_high = sequence.high());
        let marks = field!(self, marks);
        // Written once: the other direction may clear another mark at the same time.
        if FlowMarks::heard(marks, sequence) != marks {
            field!(self, marks = FlowMarks::heard(marks, sequence));
        }
    }

    #[inline(always)]
    fn has_header(self) -> bool {
        field!(self, marks) & FlowMarks::HEADER != 0
    }

    #[inline(always)]
    fn set_header(self, is_due: bool) {
        let marks = field!(self, marks);
        field!(self, marks = FlowMarks::header(marks, is_due));
    }
}

/// A row of the headers, as a lookup in this program run found it.
#[derive(Clone, Copy)]
pub struct HeaderElement(*mut ProxyHeader);

impl HeaderRef for HeaderElement {
    #[inline(always)]
    fn read(self) -> ProxyHeader {
        ProxyHeader {
            len_bytes: field!(self, len_bytes),
            flags: field!(self, flags),
            answered: field!(self, answered),
            wanted: field!(self, wanted),
            isn: field!(self, isn),
            next_isn: field!(self, next_isn),
            sent_jiffies: field!(self, sent_jiffies),
            snd_max: field!(self, snd_max),
        }
    }

    #[inline(always)]
    fn write_request(self, row: &ProxyHeader) {
        field!(self, next_isn = row.next_isn);
        field!(self, snd_max = row.snd_max);
        field!(self, sent_jiffies = row.sent_jiffies);
        field!(self, flags = row.flags);
        field!(self, wanted = row.wanted);
    }

    #[inline(always)]
    fn write_reply(self, row: &ProxyHeader) {
        if field!(self, isn) != row.isn || field!(self, answered) != row.answered {
            field!(self, isn = row.isn);
            field!(self, snd_max = row.snd_max);
            field!(self, flags = row.flags);
            field!(self, answered = row.answered);
        }
        field!(self, wanted = row.wanted);
    }
}

/// Counts an entry that was added to a flow table, or removed from it.
#[inline(always)]
fn count_entry<A: FamilyTables>(edge: u32, change: i32) {
    let add = |flows: *mut EdgeFlows| {
        // SAFETY: array elements live as long as the map; an aligned word. Atomic, so that no CPU undoes what another
        // counts; for the ordering see `note_spent`.
        unsafe {
            let entries = flows.cast::<u32>().add(A::FAMILY as usize);
            intrinsics::atomic_xadd::<u32, u32, { AtomicOrdering::AcqRel }>(entries, change.cast_unsigned());
        }
    };
    if let Some(flows) = maps::edge_flows.get_ptr_mut(edge_index(edge)) {
        add(flows);
    }
    if let Some(totals) = maps::flow_totals.get_ptr_mut(0) {
        // SAFETY: as above.
        add(unsafe { addr_of_mut!((*totals).entries) });
    }
}

/// Sets bits of a word. Atomic, so that no CPU undoes what another sets.
///
/// # Safety
///
/// The pointer is an aligned word of a map element.
#[inline(always)]
unsafe fn set_bits(word: *mut u64, bits: u64) {
    // SAFETY: see above.
    unsafe { asm!("lock *(u64 *)({word} + 0) |= {bits}", word = in(reg) word, bits = in(reg) bits) }
}

/// The place of the ring of half-open flows where the next note goes, after so many.
#[inline(always)]
fn embryo_place<A: FamilyTables>(noted: u64) -> Option<*mut FlowKey<A>> {
    A::embryo_ring().get_ptr_mut(noted.checked_rem(embryos_max()).unwrap_or(0) as u32)
}

impl<A: FamilyTables> Maps<A> for Kernel {
    type Header = HeaderElement;

    #[inline(always)]
    fn evictions_until_jiffies(&self) -> u64 {
        maps::evictions.get(A::FAMILY as u32).map_or(0, |evictions| evictions.until_jiffies)
    }

    #[inline(always)]
    fn attached_jiffies(&self, edge: u32) -> u64 {
        maps::edge_ages.get(edge_index(edge)).map_or(0, |age| age.attached_jiffies)
    }

    #[inline(always)]
    fn balanced_jiffies(&self, frontend: u32) -> u64 {
        maps::frontend_ages.get(frontend).map_or(0, |age| age.balanced_jiffies)
    }

    #[inline(always)]
    fn is_endpoint(&self, key: &EndpointKey<A>) -> bool {
        A::endpoints().get_ptr(key).is_some()
    }

    #[inline(always)]
    fn insert_flow(&self, key: &FlowKey<A>, flow: &Flow<A>) -> Result<(), InsertError> {
        if looks_back() && A::previous().get_ptr(key).is_some() {
            return Err(InsertError::Exists);
        }
        A::flows().insert(key, flow, BPF_NOEXIST).map_err(|error| match -error {
            EEXIST => InsertError::Exists,
            _ => InsertError::Refused,
        })?;
        count_entry::<A>(key.edge, 1);
        Ok(())
    }

    #[inline(always)]
    fn remove_flow(&self, key: &FlowKey<A>) {
        if looks_back() {
            // Usually no such entry exists.
            let _ = A::previous().remove(key);
        }
        // On an error another CPU has removed the entry, which is as good.
        if A::flows().remove(key).is_ok() {
            count_entry::<A>(key.edge, -1);
        }
    }

    #[inline(always)]
    fn header(&self, key: &FlowKey<A>) -> Option<HeaderElement> {
        A::headers().get_ptr_mut(key).map(HeaderElement)
    }

    #[inline(always)]
    fn write_header(&self, key: &FlowKey<A>, row: &ProxyHeader) -> bool {
        A::headers().insert(key, row, 0).is_ok()
    }

    #[inline(always)]
    fn remove_header(&self, key: &FlowKey<A>) {
        // On an error another CPU has removed the row, which is as good.
        let _ = A::headers().remove(key);
    }

    #[inline(always)]
    fn occupancy(&self, edge: u32) -> Occupancy {
        // SAFETY: array elements live as long as the map; two aligned words are read.
        let read = |flows: *const EdgeFlows| unsafe { flows.read_volatile() }.entries(A::FAMILY);
        let edge = maps::edge_flows.get_ptr(edge_index(edge)).map_or(0, read);
        // SAFETY: as above.
        let all = maps::flow_totals.get_ptr(0).map_or(0, |totals| read(unsafe { addr_of!((*totals).entries) }));
        Occupancy { edge, all }
    }

    #[inline(always)]
    fn walked_jiffies(&self) -> u64 {
        // SAFETY: as above.
        maps::flow_totals.get_ptr(0).map_or(0, |totals| unsafe { addr_of!((*totals).walked_jiffies).read_volatile() })
    }

    #[inline(always)]
    fn note_spent(&self, key: &FlowKey<A>) {
        let number = spent_ring(key.edge);
        let Some(ring) = maps::spent_rings.get_ptr_mut(number) else { return };
        // SAFETY: array elements live as long as the map. Ordered, like every atomic whose result is used: LLVM 22
        // compiles a relaxed one to another operation.
        let noted = unsafe {
            let noted = addr_of_mut!((*ring).noted).cast::<u32>().add(A::FAMILY as usize);
            intrinsics::atomic_xadd::<u32, u32, { AtomicOrdering::AcqRel }>(noted, 1)
        };
        let Some(place) = A::spent().get_ptr_mut(number * SPENT_RING_LEN + noted % SPENT_RING_LEN) else { return };
        // SAFETY: as above. A reader of a half-written key finds no flow, or one that has ended as well.
        unsafe { copy_words::<FlowKey<A>>(addr_of!(*key).cast(), place.cast()) };
    }

    #[inline(always)]
    fn take_spent(&self, edge: u32, key: &mut FlowKey<A>) -> bool {
        let number = spent_ring(edge);
        let Some(ring) = maps::spent_rings.get_ptr_mut(number) else { return false };
        // SAFETY: array elements live as long as the map; aligned words are read and written. Two CPUs may take the
        // same flow; only one of them finds it.
        let taken = unsafe {
            let noted = addr_of!((*ring).noted).cast::<u32>().add(A::FAMILY as usize).read_volatile();
            let place = addr_of_mut!((*ring).taken).cast::<u32>().add(A::FAMILY as usize);
            let mut taken = place.read_volatile();
            if noted == taken {
                return false;
            }
            if noted.wrapping_sub(taken) > SPENT_RING_LEN {
                // Older notes were overwritten.
                taken = noted.wrapping_sub(SPENT_RING_LEN);
            }
            place.write_volatile(taken.wrapping_add(1));
            taken
        };
        let Some(place) = A::spent().get_ptr_mut(number * SPENT_RING_LEN + taken % SPENT_RING_LEN) else {
            return false;
        };
        // SAFETY: as above.
        unsafe { copy_words::<FlowKey<A>>(place.cast(), addr_of_mut!(*key).cast()) };
        true
    }

    #[inline(always)]
    fn take_embryo(&self) -> bool {
        let Some(budget) = A::embryos().get_ptr_mut(0) else { return true };
        // SAFETY: the element of this CPU; the program runs without migration.
        unsafe { (*budget).take(self.now_jiffies(), embryos_max(), self.timeouts().tcp_syn_jiffies) }
    }

    #[inline(always)]
    fn give_embryo(&self) {
        if let Some(budget) = A::embryos().get_ptr_mut(0) {
            // SAFETY: see `take_embryo`.
            unsafe { (*budget).give(embryos_max()) }
        }
    }

    #[inline(always)]
    fn read_oldest_embryo(&self, oldest: &mut FlowKey<A>) -> bool {
        let Some(budget) = A::embryos().get_ptr_mut(0) else { return false };
        // SAFETY: see `take_embryo`.
        let noted = unsafe { (*budget).noted };
        let Some(place) = embryo_place::<A>(noted) else { return false };
        // SAFETY: the element of this CPU. A place that was never written holds zeroes, which are copied as words and
        // not used.
        unsafe { copy_words::<FlowKey<A>>(place.cast(), addr_of_mut!(*oldest).cast()) };
        noted >= embryos_max()
    }

    #[inline(always)]
    fn note_embryo(&self, key: &FlowKey<A>) {
        let Some(budget) = A::embryos().get_ptr_mut(0) else { return };
        // SAFETY: see `take_embryo`.
        let noted = unsafe { (*budget).noted };
        let Some(place) = embryo_place::<A>(noted) else { return };
        // SAFETY: the elements of this CPU.
        unsafe {
            (*budget).noted = noted + 1;
            copy_words::<FlowKey<A>>(addr_of!(*key).cast(), place.cast());
        }
    }

    #[inline(always)]
    fn note_hairpin(&self, edge: u32) {
        if let Some(state) = maps::edges.get_ptr_mut(edge_index(edge)) {
            // SAFETY: array elements live as long as the map. A lost increment does no harm: only zero or not zero
            // matters.
            unsafe { (*state).hairpins += 1 }
        }
    }

    #[inline(always)]
    fn note_client_ports(&self, edge: u32, bits: u64) {
        if let Some(state) = maps::edges.get_ptr_mut(edge_index(edge)) {
            // SAFETY: array elements live as long as the map.
            unsafe { set_bits(addr_of_mut!((*state).client_ports), bits) }
        }
    }

    #[inline(always)]
    fn has_come_back(&self, _: u32) -> bool {
        ports::has_come_back(self.subject.skb)
    }

    #[inline(always)]
    fn whose_frame(&self) -> Whose {
        ports::whose_frame(self.subject.skb)
    }

    #[inline(always)]
    fn is_source_of_uplink(&self, addr: &A) -> bool {
        let Some(uplink) = maps::uplinks.get_ptr(self.subject.skb.ifindex()) else { return false };
        // SAFETY: the agent replaces elements whole, and the kernel frees them only after this program run.
        unsafe { A::on_uplink(&*uplink) }.is(addr)
    }

    #[inline(always)]
    fn note_node_port(&self, port: u16) {
        let bit = EdgeState::client_port_bit(port);
        let Some(state) = maps::edges.get_ptr_mut(EDGE_UPLINK) else { return };
        // SAFETY: array elements live as long as the map.
        unsafe {
            let word = addr_of_mut!((*state).hairpins);
            if word.read() & bit == 0 {
                set_bits(word, bit);
            }
        }
    }

    #[inline(always)]
    fn reach(&self, work: &mut Work<A>) -> Reach {
        A::reach_apart(self.subject.skb, work)
    }

    #[inline(always)]
    fn way(&self, work: &mut Work<A>, len_bytes: u16) -> Way {
        A::way_apart(self.subject.skb, work, len_bytes)
    }

    #[inline(always)]
    fn note_drop(&self, reason: Counter, key: &FlowKey<A>) {
        if let Some(dropped) = A::drops().get_ptr_mut(reason as u32) {
            // SAFETY: the element of this CPU; the program runs without migration.
            unsafe {
                copy_words::<FlowKey<A>>(addr_of!(*key).cast(), addr_of_mut!((*dropped).key).cast());
                addr_of_mut!((*dropped).at_jiffies).write(self.now_jiffies());
            }
        }
    }

    #[inline(always)]
    fn spell(&self, work: &mut Work<A>) {
        A::spell_apart(self.subject.skb, work);
    }

    #[inline(always)]
    fn replace_payload(&self, _: &mut impl PacketMut, work: &mut Work<A>) -> Result<(), Refused> {
        A::replace_apart(self.subject.skb, work)
    }

    #[inline(always)]
    fn run_apart(path: &mut Path<'_, A, Self>, part: Part) -> bool {
        A::run_apart(path.kernel.subject.skb, path.work, part)
    }
}
