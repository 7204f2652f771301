//! What the packet path itself writes, by family.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

use super::{FamilyTables, Host, Tables};
use crate::forward::Work;
use crate::reject::Unreachable;
use crate::table::{Affinity, AffinityKey, EmbryoBudget, Flow, FlowKey, Fragment, FragmentKey};

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

/// A family whose tables a [`Host`] has.
pub trait HostFamily: Unreachable {
    fn tables(tables: &Tables) -> &FamilyTables<Self>;
    /// Only the host reads it.
    fn state(host: &Host) -> &FamilyState<Self>;
}

impl HostFamily for [u8; 4] {
    fn tables(tables: &Tables) -> &FamilyTables<Self> {
        &tables.v4
    }
    fn state(host: &Host) -> &FamilyState<Self> {
        &host.v4
    }
}

impl HostFamily for [u8; 16] {
    fn tables(tables: &Tables) -> &FamilyTables<Self> {
        &tables.v6
    }
    fn state(host: &Host) -> &FamilyState<Self> {
        &host.v6
    }
}
