//! The configuration tables as typed rows: the agent writes them to the maps and reads them back.

use std::collections::BTreeMap;

use crate::addr::Addr;
use crate::table::{
    AddressBits, Backend, Endpoint, EndpointKey, Frontend, FrontendAge, FrontendKey, Member, MemberKey, PoolKey,
    Scopes, SourceRange, SourceRangeKey,
};

/// The configuration tables of one family, as typed rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyTables<A> {
    pub frontends: BTreeMap<FrontendKey<A>, Frontend>,
    pub pools: BTreeMap<PoolKey, Backend<A>>,
    pub members: BTreeMap<MemberKey<A>, Member>,
    pub source_ranges: BTreeMap<SourceRangeKey<A>, SourceRange>,
    /// Derived from `members`: [`FamilyTables::derive`].
    pub endpoints: BTreeMap<EndpointKey<A>, Endpoint>,
    /// Derived from `members` and `frontends`, by the index of the word. Words without a bit are left out.
    pub addresses: BTreeMap<u32, AddressBits>,
}

impl<A> Default for FamilyTables<A> {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            pools: BTreeMap::new(),
            members: BTreeMap::new(),
            source_ranges: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            addresses: BTreeMap::new(),
        }
    }
}

impl<A: Addr> FamilyTables<A> {
    /// Replaces `endpoints` and `addresses` by exactly the rows that `members` and `frontends` need.
    pub fn derive(&mut self, address_words: u32) {
        self.endpoints = self.members.keys().map(|member| (member.endpoint(), Endpoint { flags: 0 })).collect();
        self.addresses.clear();
        let dialled = self.frontends.keys().map(|frontend| frontend.address_bit(address_words));
        for bit in dialled.chain(self.members.keys().map(|member| member.address_bit(address_words))) {
            self.addresses.entry(bit.word).or_insert(AddressBits { bits: 0 }).bits |= bit.mask;
        }
    }

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
    /// By frontend ID, without elements that are unknown.
    pub frontend_ages: BTreeMap<u32, FrontendAge>,
}

impl Tables {
    /// The tables with the derived rows that the others need.
    #[must_use]
    pub fn derived(mut self, address_words: u32) -> Self {
        self.v4.derive(address_words);
        self.v6.derive(address_words);
        self
    }
}
