//! What the packet path itself writes, by family.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

use crate::forward::Work;
use crate::fragment::Parked;
use crate::packet::PARKED_LEN_MAX;
use crate::table::{Affinity, AffinityKey, Direction, EmbryoBudget, Flow, FlowKey, Fragment, FragmentKey};

/// Entries are leaked: one that the path holds outlives its removal, as in the kernel, and the process is short-lived.
type FlowTable<A> = RefCell<BTreeMap<FlowKey<A>, &'static RefCell<Flow<A>>>>;

type NoteTable<A> = RefCell<BTreeMap<FragmentKey<A>, &'static RefCell<Fragment<A>>>>;

/// What the path itself writes, of one family.
pub struct FamilyState<A: 'static> {
    pub(super) flows: FlowTable<A>,
    pub(super) affinity: RefCell<BTreeMap<AffinityKey<A>, Affinity<A>>>,
    pub(super) fragments: NoteTable<A>,
    /// Half-open flows that may still be made, and the latest ones.
    pub(super) embryos: Cell<EmbryoBudget>,
    pub(super) noted: RefCell<VecDeque<FlowKey<A>>>,
    /// Flows that may go.
    pub(super) spent: RefCell<VecDeque<FlowKey<A>>>,
    /// What the last packet has left there: the records of the kernel's programs are as little emptied.
    pub(super) work: Cell<Option<Work<A>>>,
}

impl<A> Default for FamilyState<A> {
    fn default() -> Self {
        Self {
            flows: RefCell::default(),
            affinity: RefCell::default(),
            fragments: RefCell::default(),
            embryos: Cell::new(EmbryoBudget { tokens: 0, refilled_jiffies: 0, noted: 0 }),
            noted: RefCell::default(),
            spent: RefCell::default(),
            work: Cell::new(None),
        }
    }
}

/// A place of the ring in which nothing is parked.
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
