//! The maps as typed tables: rows in, rows out, errors that name map, row and setting.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use lb_common::addr::Addr;
use lb_common::flow::is_dispensable;
use lb_common::sequence::Sequence;
use lb_common::table::maps::{self, Map};
use lb_common::table::{
    Affinity, AffinityKey, Counter, CounterValue, EdgeState, Endpoint, EndpointKey, Flow, FlowKey, Fragment,
    FragmentKey, Frontend, FrontendKey, FrontendStats, Member, MemberKey, Owner, Port, Role, SourceRange,
    SourceRangeKey, TableType, edge_index,
};
use zerocopy::FromBytes;

use super::addresses::AddressSet;
use super::ages::Ages;
use super::pinned::open_pin;
use super::pools::PoolArray;
use super::scopes::ScopeArray;
use super::shares::{Bound, EdgeCounts, Shares, surplus};
use super::sys::{self, BPF_F_LOCK, BatchError, Cursor};
use super::threads::{self, THREADS};
use super::{Error, FamilyOp, FamilyTables};

/// Fewer rows than this are not worth a thread.
const ROWS_PER_WRITER_MIN: usize = 512;

/// A hash map of the kernel with typed rows.
pub struct Table<K, V> {
    fd: OwnedFd,
    name: &'static str,
    /// The flag that sizes it.
    setting: &'static str,
    rows: PhantomData<(K, V)>,
}

impl<K: TableType + Debug, V: TableType> Table<K, V> {
    fn open(directory: &Path, map: Map<K, V>) -> Result<Self, Error> {
        let setting = map.declaration.rows.setting().unwrap_or("no setting: it forgets");
        Ok(Self { fd: open_pin(directory, map.name())?, name: map.name(), setting, rows: PhantomData })
    }

    /// Writes rows; an existing one is replaced, or with [`BPF_F_LOCK`] changed in place.
    ///
    /// The kernel spends a microsecond on each row of a large table, alone under the lock of its bucket: the first tables of
    /// a large cluster stand sooner by as many CPUs as take part.
    pub fn upsert(&self, rows: &[(K, V)], flags: u64) -> Result<(), Error> {
        let (keys, values): (Vec<K>, Vec<V>) = rows.iter().copied().unzip();
        let part_rows = rows.len().div_ceil(*THREADS).max(ROWS_PER_WRITER_MIN);
        threads::share(keys.chunks(part_rows).zip(values.chunks(part_rows)), |(keys, values)| {
            sys::update_batch(self.fd.as_fd(), keys, values, flags).map_err(|error| self.error("update", keys, error))
        })
    }

    /// Removes rows; one that is not there is as good.
    pub fn delete(&self, keys: &[K]) -> Result<(), Error> {
        sys::delete_batch(self.fd.as_fd(), keys).map_err(|error| self.error("delete", keys, error))
    }

    /// All rows, in no order.
    pub fn dump(&self) -> Result<Vec<(K, V)>, Error> {
        let (rows, invalid) = sys::dump(self.fd.as_fd())
            .map_err(|source| Error::Kernel { what: format!("reading table {}", self.name), source })?;
        if invalid > 0 {
            tracing::warn!(map = self.name, rows = invalid, "rows with bytes of another layout were left out");
        }
        Ok(rows)
    }

    /// Some of the rows, from where `cursor` stands.
    pub fn walk(&self, cursor: &mut Cursor) -> Result<Vec<(K, V)>, Error> {
        let mut rows = Vec::new();
        sys::walk(self.fd.as_fd(), cursor, &mut rows)
            .map_err(|source| Error::Kernel { what: format!("reading table {}", self.name), source })?;
        Ok(rows)
    }

    pub fn max_entries(&self) -> Result<u32, Error> {
        let shape = sys::map_shape(self.fd.as_fd());
        Ok(shape
            .map_err(|source| Error::Kernel { what: format!("asking for table {}", self.name), source })?
            .max_entries)
    }

    fn error(&self, op: &'static str, keys: &[K], BatchError { index, source }: BatchError) -> Error {
        // What a hash calls E2BIG is ENOSPC in a trie.
        if matches!(source.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)) {
            return Error::Full { map: self.name, max: self.max_entries().unwrap_or(0), setting: self.setting };
        }
        let key = keys.get(index).map_or_else(|| "(all rows)".into(), |key| format!("{key:?}"));
        Error::Row { op, map: self.name, key, source }
    }
}

/// The maps of one family.
pub struct FamilyMaps<A> {
    pub frontends: Table<FrontendKey<A>, Frontend>,
    pub pools: PoolArray<A>,
    pub members: Table<MemberKey<A>, Member>,
    /// An index over `members`, kept by [`FamilyMaps::perform`] and [`FamilyMaps::refresh_indexes`].
    endpoints: Table<EndpointKey<A>, Endpoint>,
    /// An index over `members` and `frontends`, kept likewise.
    addresses: AddressSet,
    source_ranges: Table<SourceRangeKey<A>, SourceRange>,
    pub affinity: Table<AffinityKey<A>, Affinity<A>>,
    pub flows: Table<FlowKey<A>, Flow<A>>,
    pub fragments: Table<FragmentKey<A>, Fragment<A>>,
}

impl<A: Addr> FamilyMaps<A> {
    fn open(directory: &Path, maps: &maps::FamilyMaps<A>) -> Result<Self, Error> {
        Ok(Self {
            frontends: Table::open(directory, maps.frontends)?,
            pools: PoolArray::open(directory, maps.pools)?,
            members: Table::open(directory, maps.members)?,
            endpoints: Table::open(directory, maps.endpoints)?,
            addresses: AddressSet::open(directory, maps.addresses)?,
            source_ranges: Table::open(directory, maps.source_ranges)?,
            affinity: Table::open(directory, maps.affinity)?,
            flows: Table::open(directory, maps.flows)?,
            fragments: Table::open(directory, maps.fragments)?,
        })
    }

    /// The configuration tables.
    pub fn tables(&self) -> Result<FamilyTables<A>, Error> {
        Ok(FamilyTables {
            frontends: self.frontends.dump()?.into_iter().collect(),
            pools: self.pools.dump()?.into_iter().collect(),
            members: self.members.dump()?.into_iter().collect(),
            source_ranges: self.source_ranges.dump()?.into_iter().collect(),
        })
    }

    pub fn perform(&self, op: &FamilyOp<A>) -> Result<(), Error> {
        match op {
            FamilyOp::UpsertPools(rows) => self.pools.upsert(rows),
            FamilyOp::UpsertMembers(rows) => {
                self.note_endpoints(rows.iter().map(|(key, _)| endpoint(key)))?;
                // Behind them, who may have brought the indexes up to date: with rows that are there already.
                self.addresses.note(rows.iter().map(|(key, _)| answering(key)))?;
                self.members.upsert(rows, 0)
            }
            FamilyOp::UpsertSourceRanges(rows) => self.source_ranges.upsert(rows, 0),
            FamilyOp::UpsertFrontends(rows) => {
                self.addresses.note(rows.iter().map(|(key, _)| dialled(key)))?;
                self.frontends.upsert(rows, BPF_F_LOCK)
            }
            FamilyOp::DeleteFrontends(keys) => self.frontends.delete(keys),
            FamilyOp::DeleteMembers(keys) => self.members.delete(keys),
            FamilyOp::DeletePools(keys) => self.pools.delete(keys),
            FamilyOp::DeleteSourceRanges(keys) => self.source_ranges.delete(keys),
        }
    }

    /// Notes endpoints before anything can ask for them. Those that have gone stay until they are swept: until then a
    /// connection to what was an endpoint costs a flow.
    fn note_endpoints(&self, keys: impl Iterator<Item = EndpointKey<A>>) -> Result<(), Error> {
        let mut keys: Vec<_> = keys.collect();
        keys.sort_unstable();
        keys.dedup();
        let rows: Vec<_> = keys.into_iter().map(|key| (key, Endpoint { flags: 0 })).collect();
        match self.endpoints.upsert(&rows, 0) {
            Err(Error::Full { .. }) => {
                self.refresh_indexes()?;
                self.endpoints.upsert(&rows, 0)
            }
            result => result,
        }
    }

    /// Makes the indexes say what `members` and `frontends` say.
    pub fn refresh_indexes(&self) -> Result<(), Error> {
        let (members, frontends) = (self.members.dump()?, self.frontends.dump()?);
        let answering = members.iter().map(|(key, _)| answering(key));
        self.addresses.refresh(answering.chain(frontends.iter().map(|(key, _)| dialled(key))))?;
        self.refresh_endpoints(members.iter().map(|(key, _)| endpoint(key)).collect())
    }

    fn refresh_endpoints(&self, mut wanted: Vec<EndpointKey<A>>) -> Result<(), Error> {
        wanted.sort_unstable();
        wanted.dedup();
        let mut found: Vec<_> = self.endpoints.dump()?.into_iter().map(|(key, _)| key).collect();
        found.sort_unstable();
        let gone: Vec<_> = found.iter().filter(|key| wanted.binary_search(key).is_err()).copied().collect();
        self.endpoints.delete(&gone)?;
        wanted.retain(|key| found.binary_search(key).is_err());
        let new: Vec<_> = wanted.into_iter().map(|key| (key, Endpoint { flags: 0 })).collect();
        self.endpoints.upsert(&new, 0)
    }

    /// The keys of flows that edges have too many of, so many entries of each: an edge by its element.
    pub fn surplus(&self, crowded: &BTreeMap<u32, u64>) -> Result<Vec<FlowKey<A>>, Error> {
        if crowded.is_empty() { Ok(Vec::new()) } else { Ok(surplus(&self.flows.dump()?, crowded)) }
    }

    /// Copies flows that `self` does not have yet out of another table of the same layout. Where they do not fit, what has
    /// ended and what was quiet for longest stays behind. `counts` takes in what is there then.
    pub fn adopt_flows(&self, from: &Self, bound: Bound, counts: &mut EdgeCounts) -> Result<(), Error> {
        let known: BTreeSet<_> = self.flows.dump()?.into_iter().map(|(key, _)| key).collect();
        let mut rows = from.flows.dump()?;
        rows.retain(|(key, _)| !known.contains(key));
        for edge in known.iter().chain(rows.iter().map(|(key, _)| key)).map(|key| key.edge) {
            counts.add(edge, A::FAMILY);
        }
        let crowded = bound.crowded(counts, A::FAMILY);
        let left: BTreeSet<_> = surplus(&rows, &crowded).into_iter().collect();
        counts.subtract(&crowded, A::FAMILY);
        rows.retain(|(key, _)| !left.contains(key));
        // Open ones first, so that those are behind the end that may go.
        rows.sort_by_key(|(_, flow)| (is_dispensable(flow.state), Reverse(flow.last_seen_jiffies)));
        // Where CPUs may keep most elements for themselves, half of them are worth trying.
        let room = bound.usable().max(u64::from(self.flows.max_entries()?) / 2);
        rows.truncate(usize::try_from(room).unwrap_or(usize::MAX).saturating_sub(known.len()));
        // The pools of the other tables: a packet that may open a flow asks whether the backend is still a member. What a
        // flow has heard is old when the programs go on with it.
        for (_, flow) in &mut rows {
            flow.pool = 0;
            flow.set_sequence(Sequence::NONE);
        }
        self.flows.upsert(&rows, 0)
    }
}

/// The endpoint that a member is.
const fn endpoint<A: Addr>(member: &MemberKey<A>) -> EndpointKey<A> {
    EndpointKey { addr: member.addr, port: member.port, pad: 0 }
}

/// The address that a member answers from.
const fn answering<A: Addr>(member: &MemberKey<A>) -> (A, Role) {
    (member.addr, Role::Endpoint)
}

/// The address that a frontend is dialled at.
const fn dialled<A: Addr>(frontend: &FrontendKey<A>) -> (A, Role) {
    (frontend.addr, Role::Frontend)
}

/// All maps of a dataplane, opened from their pins.
pub struct Maps {
    pub v4: FamilyMaps<[u8; 4]>,
    pub v6: FamilyMaps<[u8; 16]>,
    pub scopes: ScopeArray,
    counters: OwnedFd,
    frontend_stats: OwnedFd,
    edges: OwnedFd,
    ports: OwnedFd,
    owner: OwnedFd,
    pub ages: Ages,
    pub shares: Shares,
    /// Possible CPUs.
    pub cpus: usize,
}

impl Maps {
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let cpus =
            aya::util::nr_cpus().map_err(|(file, source)| Error::Kernel { what: format!("reading {file}"), source })?;
        Ok(Self {
            v4: FamilyMaps::open(directory, &maps::FAMILY4)?,
            v6: FamilyMaps::open(directory, &maps::FAMILY6)?,
            scopes: ScopeArray::open(directory)?,
            counters: open_pin(directory, maps::SHARED.counters.name())?,
            frontend_stats: open_pin(directory, maps::SHARED.frontend_stats.name())?,
            edges: open_pin(directory, maps::SHARED.edges.name())?,
            ports: open_pin(directory, maps::SHARED.ports.name())?,
            owner: open_pin(directory, maps::SHARED.owner.name())?,
            ages: Ages::open(directory)?,
            shares: Shares::open(directory)?,
            cpus,
        })
    }

    /// Packets and bytes by reason, all CPUs together.
    pub fn counters(&self) -> Result<BTreeMap<Counter, CounterValue>, Error> {
        Counter::ALL
            .iter()
            .map(|counter| {
                let mut sum = CounterValue { packets: 0, bytes: 0 };
                for value in self.per_cpu::<2>(self.counters.as_fd(), *counter as u32)? {
                    sum.packets += value[0];
                    sum.bytes += value[1];
                }
                Ok((*counter, sum))
            })
            .collect()
    }

    /// What a frontend did, all CPUs together.
    pub fn frontend_stats(&self, id: u32) -> Result<FrontendStats, Error> {
        let mut sum = [0_u64; 5];
        for value in self.per_cpu::<5>(self.frontend_stats.as_fd(), id)? {
            for (total, part) in sum.iter_mut().zip(value) {
                *total += part;
            }
        }
        let [flows, packets, bytes, passed_packets, passed_bytes] = sum;
        Ok(FrontendStats { flows, packets, bytes, passed_packets, passed_bytes })
    }

    /// Says of an edge that it may have flows of any kind: what is known of those that are adopted.
    pub fn expect_flows(&self, edge: u32) -> Result<(), Error> {
        let any = EdgeState { hairpins: 1, client_ports: u64::MAX };
        sys::update_array(self.edges.as_fd(), edge_index(edge), &any)
            .map_err(|source| Error::Kernel { what: format!("writing element {edge} of table edges"), source })
    }

    /// Makes the table say what interfaces are ports of.
    pub fn set_ports(&self, ports: &[Port]) -> Result<(), Error> {
        for port in ports {
            sys::update_array(self.ports.as_fd(), edge_index(port.ifindex), port).map_err(|source| Error::Kernel {
                what: format!("writing element {} of table ports", port.ifindex),
                source,
            })?;
        }
        Ok(())
    }

    /// Whose dataplane this is.
    pub fn owner(&self) -> Result<Owner, Error> {
        read_owner(self.owner.as_fd())
    }

    pub fn set_owner(&self, owner: &Owner) -> Result<(), Error> {
        sys::update_array(self.owner.as_fd(), 0, owner)
            .map_err(|source| Error::Kernel { what: "writing table owner".into(), source })
    }

    /// The copies of an element of `WORDS` 64-bit words.
    fn per_cpu<const WORDS: usize>(&self, map: BorrowedFd<'_>, index: u32) -> Result<Vec<[u64; WORDS]>, Error> {
        let bytes = sys::lookup_array(map, index, self.cpus * WORDS * 8)
            .map_err(|source| Error::Kernel { what: format!("reading element {index} of a counter table"), source })?;
        Ok(bytes.chunks_exact(WORDS * 8).filter_map(|value| <[u64; WORDS]>::read_from_bytes(value).ok()).collect())
    }
}

/// Reads the table `owner`.
pub fn read_owner(map: BorrowedFd<'_>) -> Result<Owner, Error> {
    let bytes = sys::lookup_array(map, 0, size_of::<Owner>())
        .map_err(|source| Error::Kernel { what: "reading table owner".into(), source })?;
    zerocopy::TryFromBytes::try_read_from_bytes(&bytes)
        .map_err(|_| Error::Refused("table owner has another layout: run `lb-agent unload`".into()))
}
