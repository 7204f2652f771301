//! The maps as typed tables. Errors name the map, the row and the setting.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use lb_common::addr::Addr;
use lb_common::table::maps::{self, Map};
use lb_common::table::{
    Action, Affinity, AffinityKey, Counter, CounterValue, Direction, EdgeState, Endpoint, EndpointKey, Flow, FlowKey,
    Fragment, FragmentKey, Frontend, FrontendKey, FrontendStats, Member, MemberKey, Owner, Port, ProxyHeader,
    SocketKey, SocketPeer, SourceRange, SourceRangeKey, TableType, edge_index,
};
use lb_common::table::{EDGE_UPLINK, Uplink};
use lb_common::way::SnatPorts;
use zerocopy::FromBytes;

use super::addresses::AddressSet;
use super::ages::Ages;
use super::drop_counts::DropCounts;
use super::drops::Drops;
use super::lease::Lease;
use super::pinned::{find_pin, has_declared_rows, open_pin};
use super::pools::PoolArray;
use super::scopes::ScopeArray;
use super::shares::{Shares, surplus};
use super::sys::{self, BPF_F_LOCK, BatchError, Cursor};
use super::threads::{self, THREADS};
use super::{Error, FamilyOp, FamilyTables, Refusal, Write};

/// Waits until no program runs that began before.
pub fn settle() -> Result<(), Error> {
    sys::synchronize_rcu().map_err(|source| Error::Kernel { op: "waiting for a grace period", source })
}

/// Fewer rows are not worth another thread.
const ROWS_PER_WRITER_MIN: usize = 512;

/// A hash map of the kernel, with typed rows.
pub struct Table<K, V> {
    fd: OwnedFd,
    name: &'static str,
    /// The flag that sets its size.
    setting: &'static str,
    rows: PhantomData<(K, V)>,
}

impl<K: TableType + Debug, V: TableType> Table<K, V> {
    pub fn open(directory: &Path, map: Map<K, V>) -> Result<Self, Error> {
        Ok(Self::over(open_pin(directory, map.name())?, map))
    }

    /// `None` if no such map is pinned.
    pub fn find(directory: &Path, map: Map<K, V>) -> Result<Option<Self>, Error> {
        Ok(find_pin(directory, map.name())?.map(|fd| Self::over(fd, map)))
    }

    /// As [`Table::find`]. `None` also if another version made the map, with rows of other sizes.
    pub fn find_alike(directory: &Path, map: Map<K, V>) -> Result<Option<Self>, Error> {
        if has_declared_rows(directory, &map.declaration)? { Self::find(directory, map) } else { Ok(None) }
    }

    fn over(fd: OwnedFd, map: Map<K, V>) -> Self {
        let setting = map.declaration.rows.setting().unwrap_or("no setting: it forgets");
        Self { fd, name: map.name(), setting, rows: PhantomData }
    }

    /// Writes rows. Existing rows are replaced, or with [`BPF_F_LOCK`] changed in place.
    ///
    /// A row of a large table takes the kernel about a microsecond, under the lock of its bucket only. So several
    /// threads write in parallel, which shortens the first fill in a large cluster.
    pub fn upsert(&self, rows: &[(K, V)], flags: u64) -> Result<(), Error> {
        let (keys, values): (Vec<K>, Vec<V>) = rows.iter().copied().unzip();
        let part_rows = rows.len().div_ceil(*THREADS).max(ROWS_PER_WRITER_MIN);
        threads::share(keys.chunks(part_rows).zip(values.chunks(part_rows)), |(keys, values)| {
            sys::update_batch(self.fd.as_fd(), keys, values, flags).map_err(|error| self.error("update", keys, error))
        })
    }

    /// Writes the rows whose keys the table lacks. The others stay as they are.
    pub fn insert(&self, rows: &[(K, V)]) -> Result<(), Error> {
        let insert = |(key, value): &(K, V)| {
            let failed = |source| self.error("insert", &[*key], BatchError { index: 0, source });
            sys::insert(self.fd.as_fd(), key, value).map_err(failed)
        };
        rows.iter().try_for_each(insert)
    }

    /// Writes or removes rows.
    pub fn write(&self, write: &Write<K, V>, flags: u64) -> Result<(), Error> {
        match write {
            Write::Upsert(rows) => self.upsert(rows, flags),
            Write::Delete(keys) => self.delete(keys),
        }
    }

    /// Removes rows. Missing rows are no error.
    pub fn delete(&self, keys: &[K]) -> Result<(), Error> {
        sys::delete_batch(self.fd.as_fd(), keys).map_err(|error| self.error("delete", keys, error))
    }

    /// All rows, in no particular order.
    pub fn dump(&self) -> Result<Vec<(K, V)>, Error> {
        let (rows, invalid) =
            sys::dump(self.fd.as_fd()).map_err(|source| Error::Table { op: "reading", map: self.name, source })?;
        if invalid > 0 {
            tracing::warn!(map = self.name, rows = invalid, "rows with bytes of another layout were left out");
        }
        Ok(rows)
    }

    /// Some of the rows, from the cursor on.
    pub fn walk(&self, cursor: &mut Cursor) -> Result<Vec<(K, V)>, Error> {
        let mut rows = Vec::new();
        sys::walk(self.fd.as_fd(), cursor, &mut rows).map_err(|source| Error::Table {
            op: "reading",
            map: self.name,
            source,
        })?;
        Ok(rows)
    }

    pub fn contains(&self, key: &K) -> Result<bool, Error> {
        sys::contains::<K, V>(self.fd.as_fd(), key).map_err(|source| Error::Table {
            op: "reading",
            map: self.name,
            source,
        })
    }

    pub fn max_entries(&self) -> Result<u32, Error> {
        let shape = sys::map_shape(self.fd.as_fd());
        Ok(shape.map_err(|source| Error::Table { op: "asking for", map: self.name, source })?.max_entries)
    }

    fn error(&self, op: &'static str, keys: &[K], BatchError { index, source }: BatchError) -> Error {
        // A full hash map returns E2BIG, a full trie ENOSPC.
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
    pub endpoints: Table<EndpointKey<A>, Endpoint>,
    pub addresses: AddressSet,
    source_ranges: Table<SourceRangeKey<A>, SourceRange>,
    pub affinity: Table<AffinityKey<A>, Affinity<A>>,
    pub flows: Table<FlowKey<A>, Flow<A>>,
    pub fragments: Table<FragmentKey<A>, Fragment<A>>,
    /// Older versions had none.
    pub headers: Option<Table<FlowKey<A>, ProxyHeader>>,
    /// Older versions had none.
    pub sockets: Option<Table<SocketKey<A>, SocketPeer<A>>>,
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
            headers: Table::find(directory, maps.headers)?,
            sockets: Table::find(directory, maps.sockets)?,
        })
    }

    /// The configuration tables.
    pub fn tables(&self) -> Result<FamilyTables<A>, Error> {
        Ok(FamilyTables {
            frontends: self.frontends.dump()?.into_iter().collect(),
            pools: self.pools.dump()?.into_iter().collect(),
            members: self.members.dump()?.into_iter().collect(),
            source_ranges: self.source_ranges.dump()?.into_iter().collect(),
            endpoints: self.endpoints.dump()?.into_iter().collect(),
            addresses: self.addresses.dump()?.into_iter().collect(),
        })
    }

    pub fn perform(&self, op: &FamilyOp<A>) -> Result<(), Error> {
        match op {
            FamilyOp::Pools(Write::Upsert(rows)) => self.pools.upsert(rows),
            FamilyOp::Pools(Write::Delete(keys)) => self.pools.delete(keys),
            FamilyOp::Members(write) => self.members.write(write, 0),
            FamilyOp::SourceRanges(write) => self.source_ranges.write(write, 0),
            FamilyOp::Frontends(write) => self.frontends.write(write, BPF_F_LOCK),
            FamilyOp::Endpoints(write) => self.endpoints.write(write, 0),
            FamilyOp::Addresses(write) => self.addresses.write(write),
        }
    }

    /// The UDP sockets, by cookie, that are connected to a backend which belongs to the Service no longer. A frontend that
    /// does not balance leaves its sockets as they are.
    pub fn sockets_without_backend(&self, scopes: &ScopeArray) -> Result<BTreeSet<(u64, SocketAddr)>, Error> {
        let mut gone = BTreeSet::new();
        let Some(sockets) = &self.sockets else { return Ok(gone) };
        for (key, peer) in sockets.dump()? {
            let Some(scopes) = scopes.get(peer.frontend).filter(|scopes| scopes.host.action != Action::Pass) else {
                continue;
            };
            let member = MemberKey { service_port: scopes.service_port, addr: peer.addr, port: peer.port, pad: 0 };
            let is_connected = key.direction == Direction::Request && peer.connected != 0;
            if is_connected && !self.members.contains(&member)? {
                gone.insert((key.cookie.value(), SocketAddr::new(peer.addr.into(), peer.port)));
            }
        }
        Ok(gone)
    }

    /// The keys of surplus flows. `crowded` holds the number of entries to remove, by element of `edge_flows`.
    pub fn surplus(&self, crowded: &BTreeMap<u32, u64>) -> Result<Vec<FlowKey<A>>, Error> {
        if crowded.is_empty() { Ok(Vec::new()) } else { Ok(surplus(&self.flows.dump()?, crowded)) }
    }
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
    /// Older versions had none.
    pub uplinks: Option<Table<u32, Uplink>>,
    owner: OwnedFd,
    pub ages: Ages,
    pub shares: Shares,
    pub drops: Drops,
    pub drop_counts: DropCounts,
    /// Older versions had none.
    pub lease: Option<Lease>,
    /// Number of possible CPUs.
    pub cpus: usize,
}

impl Maps {
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let cpus =
            aya::util::nr_cpus().map_err(|(file, source)| Error::Path { op: "reading", path: file.into(), source })?;
        Ok(Self {
            v4: FamilyMaps::open(directory, &maps::FAMILY4)?,
            v6: FamilyMaps::open(directory, &maps::FAMILY6)?,
            scopes: ScopeArray::open(directory)?,
            counters: open_pin(directory, maps::SHARED.counters.name())?,
            frontend_stats: open_pin(directory, maps::SHARED.frontend_stats.name())?,
            edges: open_pin(directory, maps::SHARED.edges.name())?,
            ports: open_pin(directory, maps::SHARED.ports.name())?,
            uplinks: Table::find(directory, maps::SHARED.uplinks)?,
            owner: open_pin(directory, maps::SHARED.owner.name())?,
            ages: Ages::open(directory)?,
            shares: Shares::open(directory)?,
            drops: Drops::open(directory, cpus)?,
            drop_counts: DropCounts::open(directory)?,
            lease: Lease::find(directory)?,
            cpus,
        })
    }

    /// Packets and bytes by reason, summed over all CPUs.
    pub fn counters(&self) -> Result<BTreeMap<Counter, CounterValue>, Error> {
        Counter::ALL
            .iter()
            .map(|counter| {
                let mut sum = CounterValue { packets: 0, bytes: 0 };
                for value in self.per_cpu::<2>("counters", self.counters.as_fd(), *counter as u32)? {
                    sum.packets += value[0];
                    sum.bytes += value[1];
                }
                Ok((*counter, sum))
            })
            .collect()
    }

    /// The statistics of a frontend, summed over all CPUs.
    pub fn frontend_stats(&self, id: u32) -> Result<FrontendStats, Error> {
        let mut sum = [0_u64; 5];
        for value in self.per_cpu::<5>("frontend_stats", self.frontend_stats.as_fd(), id)? {
            for (total, part) in sum.iter_mut().zip(value) {
                *total += part;
            }
        }
        let [flows, packets, bytes, passed_packets, passed_bytes] = sum;
        Ok(FrontendStats { flows, packets, bytes, passed_packets, passed_bytes })
    }

    /// Forgets what was counted for a frontend. An element that is zero on all CPUs is not written.
    pub fn reset_frontend_stats(&self, id: u32) -> Result<(), Error> {
        let failed = |source| Error::Element { op: "resetting", map: "frontend_stats", index: id, source };
        let map = self.frontend_stats.as_fd();
        let counted = sys::lookup_array(map, id, self.cpus * size_of::<FrontendStats>()).map_err(failed)?;
        if counted.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        sys::clear_array(map, id, counted.len()).map_err(failed)
    }

    /// Notes that a pod's edge may have flows of any kind, because nothing is known about adopted flows.
    pub fn expect_flows(&self, edge: u32) -> Result<(), Error> {
        self.set_edge(edge, EdgeState { hairpins: 1, client_ports: u64::MAX })
    }

    /// The same for the uplinks: new flows may get these ports, and `known` holds the bits of ports in use.
    pub fn expect_uplink_flows(&self, known: u64, ports: Option<SnatPorts>) -> Result<(), Error> {
        // Earlier versions counted hairpins there, and no range begins below 1024.
        let known = known & !EdgeState::client_port_bit(0);
        let range = ports.into_iter().flat_map(|ports| ports.first..=ports.last);
        let hairpins = range.fold(known, |bits, port| bits | EdgeState::client_port_bit(port));
        self.set_edge(EDGE_UPLINK, EdgeState { hairpins, client_ports: u64::MAX })
    }

    /// The bits of the ports of this node that flows of the uplinks use.
    pub fn uplink_ports(&self) -> Result<u64, Error> {
        Ok(self.edge(EDGE_UPLINK)?.hairpins)
    }

    fn edge(&self, edge: u32) -> Result<EdgeState, Error> {
        let failed = |source| Error::Element { op: "reading", map: "edges", index: edge, source };
        let bytes = sys::lookup_array(self.edges.as_fd(), edge_index(edge), size_of::<EdgeState>()).map_err(failed)?;
        zerocopy::TryFromBytes::try_read_from_bytes(&bytes).map_err(|_| Refusal::Torn { map: "edges" }.into())
    }

    fn set_edge(&self, edge: u32, any: EdgeState) -> Result<(), Error> {
        sys::update_array(self.edges.as_fd(), edge_index(edge), &any).map_err(|source| Error::Element {
            op: "writing",
            map: "edges",
            index: edge,
            source,
        })
    }

    /// Writes which bridges interfaces are ports of.
    pub fn set_ports(&self, ports: &[Port]) -> Result<(), Error> {
        for port in ports {
            sys::update_array(self.ports.as_fd(), edge_index(port.ifindex), port).map_err(|source| Error::Element {
                op: "writing",
                map: "ports",
                index: port.ifindex,
                source,
            })?;
        }
        Ok(())
    }

    /// The network namespace and layout version that the maps belong to.
    pub fn owner(&self) -> Result<Owner, Error> {
        read_owner(self.owner.as_fd())
    }

    pub fn set_owner(&self, owner: &Owner) -> Result<(), Error> {
        sys::update_array(self.owner.as_fd(), 0, owner).map_err(|source| Error::Table {
            op: "writing",
            map: "owner",
            source,
        })
    }

    /// All CPUs' copies of an element of `WORDS` 64-bit words.
    fn per_cpu<const WORDS: usize>(
        &self,
        map: &'static str,
        fd: BorrowedFd<'_>,
        index: u32,
    ) -> Result<Vec<[u64; WORDS]>, Error> {
        let bytes = sys::lookup_array(fd, index, self.cpus * WORDS * 8).map_err(|source| Error::Element {
            op: "reading",
            map,
            index,
            source,
        })?;
        Ok(bytes.chunks_exact(WORDS * 8).filter_map(|value| <[u64; WORDS]>::read_from_bytes(value).ok()).collect())
    }
}

/// Reads the table `owner`.
pub fn read_owner(map: BorrowedFd<'_>) -> Result<Owner, Error> {
    let bytes = sys::lookup_array(map, 0, size_of::<Owner>()).map_err(|source| Error::Table {
        op: "reading",
        map: "owner",
        source,
    })?;
    zerocopy::TryFromBytes::try_read_from_bytes(&bytes).map_err(|_| Refusal::Torn { map: "owner" }.into())
}
