//! Connections in maps that others replace, because of other sizes or another layout. The attached programs use them until
//! every hook has a new program.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use lb_common::addr::{Addr, Proto};
use lb_common::flow::is_dispensable;
use lb_common::sequence::Sequence;
use lb_common::table::maps::{self, FAMILY4, FAMILY6};
use lb_common::table::{
    CONNECTIONS, CONNECTIONS_VERSION, DIRECT, Direction, Flow, FlowKey, FrontendKey, GONE, LAYOUT_VERSION, Owner,
    ProxyHeader, SocketKey, SocketPeer, TableType,
};

use super::maps::{FamilyMaps, Maps, Table};
use super::pinned::{find_pin, has_declared_rows};
use super::shares::{Bound, EdgeCounts, surplus};
use super::{Error, sys};

/// The maps that are replaced, as far as connections need them.
pub struct Replaced {
    directory: PathBuf,
    v4: FamilyConnections<[u8; 4]>,
    v6: FamilyConnections<[u8; 16]>,
    is_of_this_layout: bool,
}

/// Rows of flows whose PROXY header is due.
type Headers<A> = Table<FlowKey<A>, ProxyHeader>;

struct FamilyConnections<A> {
    flows: Table<FlowKey<A>, Flow<A>>,
    /// Older versions had none.
    headers: Option<Headers<A>>,
    /// Older versions had none.
    sockets: Option<Table<SocketKey<A>, SocketPeer<A>>>,
}

impl Replaced {
    /// Opens the maps in `directory` that belong to `owner`. `None` if that version kept connections in another way:
    /// they end.
    pub fn open(directory: PathBuf, owner: &Owner) -> Result<Option<Self>, Error> {
        if owner.connections_version != CONNECTIONS_VERSION || !has_rows_of_this_version(&directory)? {
            return Ok(None);
        }
        let v4 = FamilyConnections::open(&directory, &FAMILY4)?;
        let v6 = FamilyConnections::open(&directory, &FAMILY6)?;
        Ok(Some(Self { directory, v4, v6, is_of_this_layout: owner.layout_version == LAYOUT_VERSION }))
    }

    /// Where the maps are pinned.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The ports of this node that flows of the uplinks use, as bits.
    pub fn uplink_ports(&self) -> Result<u64, Error> {
        // Another layout may note ports in another way: any may be in use.
        if self.is_of_this_layout { Maps::open(&self.directory)?.uplink_ports() } else { Ok(u64::MAX) }
    }

    /// Pins the storage of sockets beside the new maps as well. No setting sizes it, and nothing could copy the notes.
    pub fn keep_notes(&self, to: &Path) -> Result<(), Error> {
        for name in [FAMILY4.dialled.name(), FAMILY6.dialled.name()] {
            let (Some(map), path) = (find_pin(&self.directory, name)?, to.join(name)) else { continue };
            if !path.exists() {
                sys::obj_pin(map.as_fd(), &path).map_err(|source| Error::Path { op: "pinning", path, source })?;
            }
        }
        Ok(())
    }

    /// Copies the flows that `to` lacks, with their headers. Returns the number of entries by edge afterwards.
    pub fn copy_flows(&self, to: &Maps, bound: Bound) -> Result<EdgeCounts, Error> {
        let mut counts = EdgeCounts::default();
        self.v4.copy_flows(&to.v4, bound, &mut counts)?;
        self.v6.copy_flows(&to.v6, bound, &mut counts)?;
        Ok(counts)
    }

    /// Copies what `to` lacks of UDP sockets.
    pub fn copy_sockets(&self, to: &Maps) -> Result<(), Error> {
        self.v4.copy_sockets(&to.v4)?;
        self.v6.copy_sockets(&to.v6)
    }
}

/// Whether rows have the sizes that this version reads.
fn has_rows_of_this_version(directory: &Path) -> Result<bool, Error> {
    for map in maps::PINNED.iter().filter(|map| CONNECTIONS.contains(&map.name)) {
        if !has_declared_rows(directory, map)? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl<A: Addr> FamilyConnections<A> {
    fn open(directory: &Path, maps: &maps::FamilyMaps<A>) -> Result<Self, Error> {
        Ok(Self {
            flows: Table::open(directory, maps.flows)?,
            headers: Table::find(directory, maps.headers)?,
            sockets: Table::find(directory, maps.sockets)?,
        })
    }

    /// If the flows do not fit, ended ones and those that were quiet for longest are left behind.
    fn copy_flows(&self, to: &FamilyMaps<A>, bound: Bound, counts: &mut EdgeCounts) -> Result<(), Error> {
        let (known, mut rows) = lacking(&to.flows, &self.flows)?;
        for edge in known.iter().chain(rows.iter().map(|(key, _)| key)).map(|key| key.edge) {
            counts.add(edge, A::FAMILY);
        }
        let crowded = bound.crowded(counts, A::FAMILY);
        let left: BTreeSet<_> = surplus(&rows, &crowded).into_iter().collect();
        counts.subtract(&crowded, A::FAMILY);
        rows.retain(|(key, _)| !left.contains(key));
        // Open flows first: the end of the list is cut off.
        rows.sort_by_key(|(_, flow)| (is_dispensable(flow.state), Reverse(flow.last_seen_jiffies)));
        // If CPUs may keep most elements to themselves, half of the table is still tried.
        let room = bound.usable().max(u64::from(to.flows.max_entries()?) / 2);
        rows.truncate(usize::try_from(room).unwrap_or(usize::MAX).saturating_sub(known.len()));
        let ids = FrontendIds::of(to)?;
        // The IDs of pools belong to the other tables. With pool 0 a packet that may open the flow looks up whether the
        // backend is still a member. Sequence numbers are outdated by the time that the new programs use the flow.
        for (key, flow) in &mut rows {
            flow.frontend = if flow.frontend == DIRECT { DIRECT } else { ids.of_flow(key, flow) };
            flow.pool = 0;
            flow.set_sequence(Sequence::NONE);
        }
        // A client may have used a port again meanwhile: its new flow counts.
        to.flows.insert(&rows)?;
        // Until then, flows whose header is due are dropped rather than sent without it.
        let (Some(headers), Some(from)) = (&to.headers, &self.headers) else { return Ok(()) };
        copy_headers(headers, from)
    }

    fn copy_sockets(&self, to: &FamilyMaps<A>) -> Result<(), Error> {
        let (Some(sockets), Some(from)) = (&to.sockets, &self.sockets) else { return Ok(()) };
        let (_, mut rows) = lacking(sockets, from)?;
        let ids = FrontendIds::of(to)?;
        for (key, peer) in &mut rows {
            peer.frontend = ids.of_socket(key, peer);
        }
        sockets.insert(&rows)
    }
}

/// Copies the rows that `to` lacks, and the answers of backends that its rows missed: a SYN that was repeated meanwhile made
/// these rows anew.
fn copy_headers<A: Addr>(to: &Headers<A>, from: &Headers<A>) -> Result<(), Error> {
    let known: BTreeMap<_, _> = to.dump()?.into_iter().collect();
    let (mut lacking, mut missed) = (Vec::new(), Vec::new());
    for (key, row) in from.dump()? {
        match known.get(&key) {
            None => lacking.push((key, row)),
            Some(other) => missed.extend(row.with_syn_of(other).map(|row| (key, row))),
        }
    }
    to.insert(&lacking)?;
    to.upsert(&missed, 0)
}

/// The keys of `to`, and the rows of `from` that it lacks.
#[expect(clippy::type_complexity, reason = "the keys of one table and the rows of the other")]
fn lacking<K: TableType + Debug + Ord, V: TableType>(
    to: &Table<K, V>,
    from: &Table<K, V>,
) -> Result<(BTreeSet<K>, Vec<(K, V)>), Error> {
    let known: BTreeSet<_> = to.dump()?.into_iter().map(|(key, _)| key).collect();
    let mut rows = from.dump()?;
    rows.retain(|(key, _)| !known.contains(key));
    Ok((known, rows))
}

/// The IDs of frontends in the new tables. Rows that are copied have those of the replaced ones.
struct FrontendIds<A>(BTreeMap<FrontendKey<A>, u32>);

impl<A: Addr> FrontendIds<A> {
    fn of(maps: &FamilyMaps<A>) -> Result<Self, Error> {
        Ok(Self(maps.frontends.dump()?.into_iter().map(|(key, frontend)| (key, frontend.id)).collect()))
    }

    fn of_flow(&self, key: &FlowKey<A>, flow: &Flow<A>) -> u32 {
        let dialled = match key.direction {
            Direction::Request => (key.tuple.dst, key.tuple.dport),
            Direction::Reply => (flow.to.src, flow.to.sport),
        };
        self.of_dialled(dialled, key.proto)
    }

    fn of_socket(&self, key: &SocketKey<A>, peer: &SocketPeer<A>) -> u32 {
        let dialled = match key.direction {
            Direction::Request => (key.addr, key.port),
            Direction::Reply => (peer.addr, peer.port),
        };
        self.of_dialled(dialled, Proto::UDP)
    }

    fn of_dialled(&self, (addr, port): (A, u16), proto: Proto) -> u32 {
        self.0.get(&FrontendKey { addr, port, proto, pad: 0 }).copied().unwrap_or(GONE)
    }
}
