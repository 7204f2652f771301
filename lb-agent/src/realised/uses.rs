//! How many rows of one family name each endpoint and each address bit, and which frontends drain.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use lb_common::addr::Addr;
use lb_common::table::{
    AddressBit, AddressBits, Endpoint, EndpointKey, Frontend, FrontendKey, FrontendState, MemberKey,
};

use crate::dataplane::{FamilyOp, FamilyTables, Write};

/// A row that needs derived rows.
#[derive(Clone, Copy, Debug)]
pub enum Named<'a, A> {
    Member(&'a MemberKey<A>),
    Frontend(&'a FrontendKey<A>),
}

/// The counts of one family, as of the last complete plan.
///
/// A derived row says that at least one row names it. So only what several rows name is counted, and what is wrong.
#[derive(Clone, Debug)]
pub struct FamilyUses<A> {
    address_words: u32,
    /// Number of rows that name an endpoint, where there are several.
    shared_endpoints: HashMap<EndpointKey<A>, u32>,
    /// The same by the number of the bit, counted from the first word.
    shared_bits: HashMap<u32, u32>,
    /// Endpoints that are missing though rows name them, or the other way round. Every plan corrects them.
    wrong_endpoints: BTreeSet<EndpointKey<A>>,
    /// The bits that rows need, for words that hold others. Every plan corrects them.
    wrong_words: BTreeMap<u32, u64>,
    draining: BTreeSet<FrontendKey<A>>,
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
    pub counts: FamilyCounts<A>,
}

/// Numbers of rows after a plan, for what several rows name before or after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyCounts<A> {
    endpoints: Vec<(EndpointKey<A>, u32)>,
    bits: Vec<(u32, u32)>,
}

impl<A> Default for FamilyCounts<A> {
    fn default() -> Self {
        Self { endpoints: Vec::new(), bits: Vec::new() }
    }
}

impl<A: Addr> FamilyUses<A> {
    /// Counts what the tables name, and compares the derived rows with it.
    pub fn of(tables: &FamilyTables<A>, address_words: u32) -> Self {
        let mut endpoints: Vec<EndpointKey<A>> = tables.members.keys().map(MemberKey::endpoint).collect();
        let named = tables.members.keys().map(Named::Member).chain(tables.frontends.keys().map(Named::Frontend));
        let mut bits: Vec<u32> = named.map(|named| number(named.bit(address_words))).collect();
        endpoints.sort_unstable();
        bits.sort_unstable();
        let (shared_endpoints, shared_bits) = (shared(&endpoints), shared(&bits));

        endpoints.dedup();
        let missing = endpoints.iter().filter(|key| !tables.endpoints.contains_key(key));
        let stray = tables.endpoints.keys().filter(|key| endpoints.binary_search(key).is_err());
        let wrong_endpoints = missing.chain(stray).copied().collect();

        let words = bits.chunk_by(|one, other| word(*one) == word(*other));
        let needed = words.map(|bits| (word(bits[0]), bits.iter().fold(0, |all, bit| all | mask(*bit))));
        let needed: Vec<(u32, u64)> = needed.collect();
        let is_needed = |word: &u32| needed.binary_search_by_key(word, |(word, _)| *word).is_ok();
        let stray = tables.addresses.keys().filter(|word| !is_needed(word)).map(|word| (*word, 0));
        let differs = |(word, needed): &(u32, u64)| found_bits(tables, *word) != *needed;
        let wrong_words = needed.iter().copied().chain(stray).filter(differs).collect();

        let draining = tables.frontends.iter().filter(|(_, frontend)| is_draining(frontend));
        let draining = draining.map(|(key, _)| *key).collect();
        Self { address_words, shared_endpoints, shared_bits, wrong_endpoints, wrong_words, draining }
    }

    pub const fn address_words(&self) -> u32 {
        self.address_words
    }

    /// The frontends that drain.
    pub const fn draining(&self) -> &BTreeSet<FrontendKey<A>> {
        &self.draining
    }

    /// Whether the tables hold the derived rows that a row needs.
    pub fn has_derived(&self, tables: &FamilyTables<A>, named: Named<'_, A>) -> bool {
        let AddressBit { word, mask } = named.bit(self.address_words);
        named.endpoint().is_none_or(|key| tables.endpoints.contains_key(&key)) && found_bits(tables, word) & mask != 0
    }

    /// Takes in a step that was done.
    pub fn record(&mut self, op: &FamilyOp<A>) {
        match op {
            FamilyOp::Frontends(Write::Upsert(rows)) => {
                for (key, frontend) in rows {
                    if is_draining(frontend) {
                        self.draining.insert(*key);
                    } else {
                        self.draining.remove(key);
                    }
                }
            }
            FamilyOp::Frontends(Write::Delete(keys)) => {
                for key in keys {
                    self.draining.remove(key);
                }
            }
            FamilyOp::Pools(_)
            | FamilyOp::Members(_)
            | FamilyOp::SourceRanges(_)
            | FamilyOp::Endpoints(_)
            | FamilyOp::Addresses(_) => {}
        }
    }

    /// Takes in that a plan was done as a whole, which corrects every wrong row.
    pub fn settle(&mut self, counts: FamilyCounts<A>) {
        counts.endpoints.into_iter().for_each(|(key, count)| set(&mut self.shared_endpoints, key, count));
        counts.bits.into_iter().for_each(|(bit, count)| set(&mut self.shared_bits, bit, count));
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
        // A wrong word is looked at by any of its bits.
        bits.extend(self.wrong_words.keys().map(|word| (word * u64::BITS, 0)));
        let mut derived = Derived {
            endpoints: Vec::new(),
            gone_endpoints: Vec::new(),
            words: Vec::new(),
            cleared_words: Vec::new(),
            gone_words: Vec::new(),
            counts: FamilyCounts::default(),
        };
        let is_named = |key: &_| found.endpoints.contains_key(key) != self.wrong_endpoints.contains(key);
        endpoints.sort_unstable();
        for Changed { key, count, is_shared } in changed(&endpoints, &self.shared_endpoints, is_named) {
            match (found.endpoints.contains_key(&key), count > 0) {
                (false, true) => derived.endpoints.push((key, Endpoint { flags: 0 })),
                (true, false) => derived.gone_endpoints.push(key),
                (true, true) | (false, false) => {}
            }
            derived.counts.endpoints.extend(is_shared.then_some((key, count)));
        }
        let is_named = |bit: &u32| self.needed_bits(found, word(*bit)) & mask(*bit) != 0;
        drop(endpoints);
        derived.endpoints.shrink_to_fit();
        bits.sort_unstable();
        for changes in bits.chunk_by(|(one, _), (other, _)| word(*one) == word(*other)) {
            derived.add_word(self, found, word(changes[0].0), changed(changes, &self.shared_bits, is_named));
        }
        derived.words.shrink_to_fit();
        derived
    }

    /// The bits of a word that rows need.
    fn needed_bits(&self, found: &FamilyTables<A>, word: u32) -> u64 {
        self.wrong_words.get(&word).copied().unwrap_or_else(|| found_bits(found, word))
    }
}

impl<A: Addr> Derived<A> {
    /// Adds the steps for one word, of which these bits change. The others stay.
    fn add_word(
        &mut self,
        uses: &FamilyUses<A>,
        found: &FamilyTables<A>,
        word: u32,
        changes: impl Iterator<Item = Changed<u32>>,
    ) {
        let (found, before) = (found_bits(found, word), uses.needed_bits(found, word));
        let mut after = before;
        for Changed { key, count, is_shared } in changes {
            after = if count > 0 { after | mask(key) } else { after & !mask(key) };
            self.counts.bits.extend(is_shared.then_some((key, count)));
        }
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

/// Something that rows name.
struct Changed<K> {
    key: K,
    /// Number of rows that name it after the plan.
    count: u32,
    /// Several rows name it before or after the plan.
    is_shared: bool,
}

/// Each key of `changes`, which are sorted, once.
fn changed<K: Copy + Eq + Hash>(
    changes: &[(K, i32)],
    shared: &HashMap<K, u32>,
    is_named: impl Fn(&K) -> bool,
) -> impl Iterator<Item = Changed<K>> {
    let of_key = changes.chunk_by(|(one, _), (other, _)| one == other);
    of_key.map(move |changes| {
        let key = changes[0].0;
        let before = shared.get(&key).copied().unwrap_or_else(|| u32::from(is_named(&key)));
        let count = changes.iter().fold(before, |count, (_, change)| count.saturating_add_signed(*change));
        Changed { key, count, is_shared: before > 1 || count > 1 }
    })
}

/// The keys that occur more than once, and how often.
fn shared<K: Copy + Eq + Hash>(sorted: &[K]) -> HashMap<K, u32> {
    let equal = sorted.chunk_by(|one, other| one == other);
    equal.filter(|equal| equal.len() > 1).map(|equal| (equal[0], equal.len() as u32)).collect()
}

/// Stores a count if it is more than one.
fn set<K: Eq + Hash>(shared: &mut HashMap<K, u32>, key: K, count: u32) {
    if count > 1 {
        shared.insert(key, count);
    } else {
        shared.remove(&key);
    }
}

fn is_draining(frontend: &Frontend) -> bool {
    frontend.state == FrontendState::Draining
}

fn found_bits<A>(tables: &FamilyTables<A>, word: u32) -> u64 {
    tables.addresses.get(&word).map_or(0, |word| word.bits)
}

/// The number of a bit.
const fn number(bit: AddressBit) -> u32 {
    bit.word * u64::BITS + bit.mask.trailing_zeros()
}

/// The word of a bit.
const fn word(bit: u32) -> u32 {
    bit / u64::BITS
}

/// The place of a bit in its word.
const fn mask(bit: u32) -> u64 {
    1 << (bit % u64::BITS)
}
