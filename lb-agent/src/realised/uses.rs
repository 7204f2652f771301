//! How many rows of one family name each endpoint and each address bit.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use lb_common::addr::Addr;
use lb_common::table::{AddressBit, AddressBits, Endpoint, EndpointKey, FrontendKey, MemberKey};

use crate::dataplane::{FamilyOp, FamilyTables, Write};

/// A row that needs derived rows.
#[derive(Clone, Copy, Debug)]
pub enum Named<'a, A> {
    Member(&'a MemberKey<A>),
    Frontend(&'a FrontendKey<A>),
}

/// The counts of one family. What no row names is not in them.
#[derive(Clone, Debug)]
pub struct FamilyUses<A> {
    address_words: u32,
    endpoints: HashMap<EndpointKey<A>, u32>,
    /// By the number of the bit, counted from the first word.
    bits: HashMap<u32, u32>,
    /// Derived rows that were found to differ from what the other rows need. Every plan corrects them.
    wrong_endpoints: BTreeSet<EndpointKey<A>>,
    wrong_words: BTreeSet<u32>,
}

/// The derived rows to write before the rows that name them, and to delete after no row does.
#[derive(Debug, PartialEq, Eq)]
pub struct Derived<A> {
    pub endpoints: Vec<(EndpointKey<A>, Endpoint)>,
    pub gone_endpoints: Vec<EndpointKey<A>>,
    /// Words with the bits of before and after the plan.
    pub words: Vec<(u32, AddressBits)>,
    /// The same words without the bits that nothing needs any more.
    pub cleared_words: Vec<(u32, AddressBits)>,
    pub gone_words: Vec<u32>,
}

impl<A: Addr> FamilyUses<A> {
    /// Counts what the tables name, and compares the derived rows with it.
    pub fn of(tables: &FamilyTables<A>, address_words: u32) -> Self {
        let mut uses = Self {
            address_words,
            endpoints: HashMap::with_capacity(tables.members.len()),
            bits: HashMap::with_capacity(tables.members.len() + tables.frontends.len()),
            wrong_endpoints: BTreeSet::new(),
            wrong_words: BTreeSet::new(),
        };
        tables.members.keys().for_each(|key| uses.add(Named::Member(key)));
        tables.frontends.keys().for_each(|key| uses.add(Named::Frontend(key)));
        let missing = uses.endpoints.keys().filter(|key| !tables.endpoints.contains_key(key));
        let stray = tables.endpoints.keys().filter(|key| !uses.endpoints.contains_key(key));
        let wrong_endpoints = missing.chain(stray).copied().collect();
        let is_set = |bit: &u32| {
            let found = tables.addresses.get(&(bit / u64::BITS)).map_or(0, |word| word.bits);
            found & mask(*bit) != 0
        };
        let missing = uses.bits.keys().filter(|bit| !is_set(bit)).map(|bit| bit / u64::BITS);
        let has_stray = |word: u32, found: u64| bits(word, found).any(|bit| !uses.bits.contains_key(&bit));
        let stray = tables.addresses.iter().filter(|(word, found)| has_stray(**word, found.bits));
        let wrong_words = missing.chain(stray.map(|(word, _)| *word)).collect();
        Self { wrong_endpoints, wrong_words, ..uses }
    }

    pub const fn address_words(&self) -> u32 {
        self.address_words
    }

    pub fn names_endpoint(&self, key: &EndpointKey<A>) -> bool {
        self.endpoints.contains_key(key)
    }

    /// Whether the tables hold the derived rows that a row needs.
    pub fn has_derived(&self, tables: &FamilyTables<A>, named: Named<'_, A>) -> bool {
        let AddressBit { word, mask } = named.bit(self.address_words);
        named.endpoint().is_none_or(|key| tables.endpoints.contains_key(&key))
            && tables.addresses.get(&word).is_some_and(|found| found.bits & mask != 0)
    }

    /// Whether a row needs one of these bits of a word.
    pub fn names_bits(&self, word: u32, of: u64) -> bool {
        bits(word, of).any(|bit| self.bits.contains_key(&bit))
    }

    /// Takes in a step before `tables` do.
    pub fn count(&mut self, op: &FamilyOp<A>, tables: &FamilyTables<A>) {
        match op {
            FamilyOp::Members(Write::Upsert(rows)) => {
                let new = rows.iter().filter(|(key, _)| !tables.members.contains_key(key));
                new.for_each(|(key, _)| self.add(Named::Member(key)));
            }
            FamilyOp::Members(Write::Delete(keys)) => {
                let gone = keys.iter().filter(|key| tables.members.contains_key(key));
                gone.for_each(|key| self.remove(Named::Member(key)));
            }
            FamilyOp::Frontends(Write::Upsert(rows)) => {
                let new = rows.iter().filter(|(key, _)| !tables.frontends.contains_key(key));
                new.for_each(|(key, _)| self.add(Named::Frontend(key)));
            }
            FamilyOp::Frontends(Write::Delete(keys)) => {
                let gone = keys.iter().filter(|key| tables.frontends.contains_key(key));
                gone.for_each(|key| self.remove(Named::Frontend(key)));
            }
            FamilyOp::Pools(_) | FamilyOp::SourceRanges(_) | FamilyOp::Endpoints(_) | FamilyOp::Addresses(_) => {}
        }
    }

    /// Takes in that a plan was done, which corrects every wrong row.
    pub fn set_right(&mut self) {
        self.wrong_endpoints.clear();
        self.wrong_words.clear();
    }

    /// The steps for the derived rows if these rows are added and those removed. `found` is what the tables hold.
    pub fn derived<'a>(
        &self,
        found: &FamilyTables<A>,
        added: impl Iterator<Item = Named<'a, A>>,
        removed: impl Iterator<Item = Named<'a, A>>,
    ) -> Derived<A> {
        let (mut endpoints, mut bits) = (Vec::new(), Vec::new());
        for (named, change) in added.map(|named| (named, 1)).chain(removed.map(|named| (named, -1))) {
            endpoints.extend(named.endpoint().map(|key| (key, change)));
            bits.push((number(named.bit(self.address_words)), change));
        }
        endpoints.extend(self.wrong_endpoints.iter().map(|key| (*key, 0)));
        let mut derived = Derived {
            endpoints: Vec::new(),
            gone_endpoints: Vec::new(),
            words: Vec::new(),
            cleared_words: Vec::new(),
            gone_words: Vec::new(),
        };
        for (key, is_named) in named_after(&self.endpoints, endpoints) {
            match (found.endpoints.contains_key(&key), is_named) {
                (false, true) => derived.endpoints.push((key, Endpoint { flags: 0 })),
                (true, false) => derived.gone_endpoints.push(key),
                (true, true) | (false, false) => {}
            }
        }
        // A wrong word is looked at by any of its bits.
        bits.extend(self.wrong_words.iter().map(|word| (word * u64::BITS, 0)));
        let changes: Vec<(u32, bool)> = named_after(&self.bits, bits).collect();
        for changes in changes.chunk_by(|(one, _), (other, _)| one / u64::BITS == other / u64::BITS) {
            derived.add_word(self, found, changes);
        }
        derived
    }

    /// The bits of a word that rows need, looked up one by one.
    fn word(&self, word: u32) -> u64 {
        bits(word, u64::MAX).filter(|bit| self.bits.contains_key(bit)).map(mask).fold(0, |all, bit| all | bit)
    }

    fn add(&mut self, named: Named<'_, A>) {
        if let Some(key) = named.endpoint() {
            *self.endpoints.entry(key).or_default() += 1;
        }
        *self.bits.entry(number(named.bit(self.address_words))).or_default() += 1;
    }

    fn remove(&mut self, named: Named<'_, A>) {
        if let Some(key) = named.endpoint() {
            less(&mut self.endpoints, &key);
        }
        less(&mut self.bits, &number(named.bit(self.address_words)));
    }
}

impl<A: Addr> Derived<A> {
    /// Adds the steps for one word. `changes` tells which of its bits are needed after the plan; the others stay.
    fn add_word(&mut self, uses: &FamilyUses<A>, found: &FamilyTables<A>, changes: &[(u32, bool)]) {
        let Some(word) = changes.first().map(|(bit, _)| bit / u64::BITS) else { return };
        let found = found.addresses.get(&word).map_or(0, |word| word.bits);
        let before = if uses.wrong_words.contains(&word) { uses.word(word) } else { found };
        let after = changes.iter().fold(
            before,
            |bits, (bit, is_needed)| {
                if *is_needed { bits | mask(*bit) } else { bits & !mask(*bit) }
            },
        );
        let both = found | before | after;
        if both != found {
            self.words.push((word, AddressBits { bits: both }));
        }
        if after == 0 && both != 0 {
            self.gone_words.push(word);
        } else if after != both {
            self.cleared_words.push((word, AddressBits { bits: after }));
        }
    }
}

impl<A: Addr> Named<'_, A> {
    const fn endpoint(self) -> Option<EndpointKey<A>> {
        match self {
            Self::Member(key) => Some(key.endpoint()),
            Self::Frontend(_) => None,
        }
    }

    fn bit(self, address_words: u32) -> AddressBit {
        match self {
            Self::Member(key) => key.address_bit(address_words),
            Self::Frontend(key) => key.address_bit(address_words),
        }
    }
}

/// Each key of `changes` once, in order, and whether a row names it after the changes.
fn named_after<K: Copy + Ord + Hash>(
    uses: &HashMap<K, u32>,
    mut changes: Vec<(K, i32)>,
) -> impl Iterator<Item = (K, bool)> {
    changes.sort_unstable();
    let mut named = Vec::new();
    for changes in changes.chunk_by(|(one, _), (other, _)| one == other) {
        let before = i64::from(uses.get(&changes[0].0).copied().unwrap_or(0));
        let change: i64 = changes.iter().map(|(_, change)| i64::from(*change)).sum();
        named.push((changes[0].0, before + change > 0));
    }
    named.into_iter()
}

/// Decrements a count.
fn less<K: Eq + Hash>(uses: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = uses.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            uses.remove(key);
        }
    }
}

/// The number of a bit.
const fn number(bit: AddressBit) -> u32 {
    bit.word * u64::BITS + bit.mask.trailing_zeros()
}

/// The place of a bit in its word.
const fn mask(bit: u32) -> u64 {
    1 << (bit % u64::BITS)
}

/// The numbers of the bits that are set in a word.
fn bits(word: u32, set: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bit| set >> bit & 1 == 1).map(move |bit| word * u64::BITS + bit)
}
