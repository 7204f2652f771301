//! What the packet path itself writes, by family.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

use crate::forward::Work;
use crate::fragment::Parked;
use crate::packet::PARKED_LEN_MAX;
use crate::table::{
    Affinity, AffinityKey, Counter, Dialled, Direction, EmbryoBudget, Flow, FlowKey, Fragment, FragmentKey,
    ProxyHeader, SocketCookie, SocketKey, SocketPeer,
};

/// Entries are leaked. As in the kernel, an entry that the path holds outlives its removal, and the process is
/// short-lived.
type FlowTable<A> = RefCell<BTreeMap<FlowKey<A>, &'static RefCell<Flow<A>>>>;

type NoteTable<A> = RefCell<BTreeMap<FragmentKey<A>, &'static RefCell<Fragment<A>>>>;

/// What the path itself writes, of one family.
pub struct FamilyState<A: 'static> {
    pub(super) flows: FlowTable<A>,
    pub(super) headers: RefCell<BTreeMap<FlowKey<A>, &'static Cell<ProxyHeader>>>,
    pub(super) affinity: RefCell<BTreeMap<AffinityKey<A>, Affinity<A>>>,
    pub(super) notes: RefCell<BTreeMap<SocketCookie, Dialled<A>>>,
    pub(super) sockets: RefCell<BTreeMap<SocketKey<A>, SocketPeer<A>>>,
    pub(super) fragments: NoteTable<A>,
    /// Half-open flows that may still be created, and the latest ones.
    pub(super) embryos: Cell<EmbryoBudget>,
    pub(super) noted: RefCell<VecDeque<FlowKey<A>>>,
    /// The last packet dropped for each reason.
    pub(super) drops: RefCell<BTreeMap<Counter, FlowKey<A>>>,
    /// Spent flows.
    pub(super) spent: RefCell<VecDeque<FlowKey<A>>>,
    /// What the last packet left in the records: the programs in the kernel do not clear theirs either.
    pub(super) work: Cell<Option<Work<A>>>,
}

impl<A> Default for FamilyState<A> {
    fn default() -> Self {
        Self {
            flows: RefCell::default(),
            headers: RefCell::default(),
            affinity: RefCell::default(),
            notes: RefCell::default(),
            sockets: RefCell::default(),
            fragments: RefCell::default(),
            embryos: Cell::new(EmbryoBudget { tokens: 0, refilled_jiffies: 0, noted: 0 }),
            noted: RefCell::default(),
            drops: RefCell::default(),
            spent: RefCell::default(),
            work: Cell::new(None),
        }
    }
}

/// An empty place of the ring.
pub(super) const fn nobodys_place() -> Parked {
    Parked {
        ticket: Cell::new(0),
        previous: Cell::new(0),
        edge: Cell::new(0),
        id: Cell::new(0),
        len: Cell::new(0),
        direction: Cell::new(Direction::Request),
        pad: Cell::new([0; 3]),
        bytes: Cell::new([0; PARKED_LEN_MAX]),
    }
}
