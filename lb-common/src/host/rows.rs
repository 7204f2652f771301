//! The configuration tables as typed rows: the agent writes them to the maps and reads them back.

use std::collections::BTreeMap;

use crate::addr::Addr;
use crate::table::{Backend, Frontend, FrontendKey, Member, MemberKey, PoolKey, Scopes, SourceRange, SourceRangeKey};

/// The configuration tables of one family, as typed rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyTables<A> {
    pub frontends: BTreeMap<FrontendKey<A>, Frontend>,
    pub pools: BTreeMap<PoolKey, Backend<A>>,
    pub members: BTreeMap<MemberKey<A>, Member>,
    pub source_ranges: BTreeMap<SourceRangeKey<A>, SourceRange>,
}

impl<A> Default for FamilyTables<A> {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            pools: BTreeMap::new(),
            members: BTreeMap::new(),
            source_ranges: BTreeMap::new(),
        }
    }
}

impl<A: Addr> FamilyTables<A> {
    /// The ranges of a set.
    pub fn source_ranges_of(&self, set: u32) -> impl Iterator<Item = (&SourceRangeKey<A>, &SourceRange)> {
        // The kernel's keys begin with the length, so each length is looked up separately.
        (0..=size_of::<A>() as u8 * 8).flat_map(move |length| {
            let first = SourceRangeKey::of_prefix(set, A::new_zeroed(), length);
            let is_of = move |key: &SourceRangeKey<A>| (key.prefix_len, key.set) == (first.prefix_len, set);
            self.source_ranges.range(first..).take_while(move |(key, _)| is_of(key))
        })
    }
}

/// All configuration tables. Flows, counters and other state of the kernel are not part of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub v4: FamilyTables<[u8; 4]>,
    pub v6: FamilyTables<[u8; 16]>,
    /// By frontend ID, without elements that pass for all clients.
    pub scopes: BTreeMap<u32, Scopes>,
}
