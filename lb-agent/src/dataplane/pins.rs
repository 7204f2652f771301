//! The pin directory: it keeps a dataplane alive without an agent, records its owner, and is removed by `unload`.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use lb_common::addr::{Addr, Proto};
use lb_common::client::PerClient;
use lb_common::table::maps::{PINNED, SHARED};
use lb_common::table::{
    Affinity, AffinityKey, Counter, CounterValue, Flow, FlowKey, Frontend, FrontendKey, FrontendStats, LAYOUT_VERSION,
    Owner, Scopes,
};

use super::driver::{self, Mode};
use super::drop_counts;
use super::drops::Drops;
use super::folder::{self, Folder, Found, entries};
use super::hooks::Hooks;
use super::links::{Attachment, Class};
use super::maps::{Maps, Table, read_owner};
use super::pinned::{find_pin, remove_pin};
use super::sockets::SocketHook;
use super::sys::{self, ObjectKind};
use super::tcx;
use super::{Distrust, Error, Refusal, Tables, UplinkRows};

/// The names in a pin directory.
const MAPS: &str = "maps";
const MAPS_NEXT: &str = "maps-next";
const LINKS: &str = "links";

/// The paths of a pin directory.
#[derive(Clone, Debug)]
pub struct PinPath(PathBuf);

impl PinPath {
    pub fn new(path: &Path) -> Self {
        Self(path.to_path_buf())
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The maps that the attached programs use.
    pub fn maps(&self) -> PathBuf {
        self.0.join(MAPS)
    }

    /// Maps of a new shape that are being filled, to replace the current ones.
    pub fn maps_next(&self) -> PathBuf {
        self.0.join(MAPS_NEXT)
    }

    pub fn links(&self) -> PathBuf {
        self.0.join(LINKS)
    }

    /// Puts a map of [`Self::maps_next`] in the place of the one that was in use.
    pub fn put_in_use(&self, name: &str) -> Result<(), Error> {
        let next = self.maps_next().join(name);
        fs::rename(&next, self.maps().join(name)).map_err(|source| Error::Path {
            op: "moving the pin",
            path: next,
            source,
        })
    }

    /// Finishes a move of all pins that was interrupted. The programs use the new maps by then, and the old rows do not
    /// belong to them.
    pub fn finish_move(&self) -> Result<(), Error> {
        let next = self.maps_next();
        let is_left = |name: &str| next.join(name).exists();
        if PINNED.first().is_some_and(|first| is_left(first.name)) || !self.has_complete_next()? {
            return Ok(());
        }
        PINNED.iter().filter(|map| is_left(map.name)).try_for_each(|map| self.put_in_use(map.name))
    }

    /// Whether all maps of this layout were once pinned in [`Self::maps_next`]: their owner is written after that.
    pub fn has_complete_next(&self) -> Result<bool, Error> {
        Ok(owner_of(&self.maps_next())?.is_some_and(|owner| owner.layout_version == LAYOUT_VERSION))
    }

    /// Makes the directories, and mounts a BPF file system if there is none. Refuses directories that others can write
    /// to, and maps that are not ours.
    pub fn prepare(&self) -> Result<(), Error> {
        let folder = Folder::make(&self.0)?;
        for name in [MAPS, LINKS] {
            folder.make_inner(name)?;
        }
        folder.inner(MAPS_NEXT)?;
        for directory in [self.maps(), self.maps_next()] {
            require_maps(&directory)?;
        }
        Ok(())
    }

    /// Locks the directory for this process, for as long as the descriptor lives.
    pub fn lock(&self) -> Result<OwnedFd, Error> {
        let gone = || Refusal::Gone { path: self.0.clone() };
        Folder::open(&self.0)?.ok_or_else(gone)?.lock().map_err(|source| {
            if source.kind() == std::io::ErrorKind::WouldBlock {
                return Refusal::Locked { path: self.0.clone() }.into();
            }
            Error::Path { op: "locking", path: self.0.clone(), source }
        })
    }

    /// The owner recorded in the pins, if there are any. Refuses directories that others can write to, and maps that
    /// are not ours.
    pub fn inspect(&self) -> Result<Option<Owner>, Error> {
        if !self.is_there()? {
            return Ok(None);
        }
        require_maps(&self.maps())?;
        self.owner()
    }

    /// Whether the directory exists. Refuses one that others can write to.
    pub fn is_there(&self) -> Result<bool, Error> {
        let Some(folder) = Folder::open(&self.0)? else { return Ok(false) };
        for name in [MAPS, MAPS_NEXT, LINKS] {
            folder.inner(name)?;
        }
        Ok(true)
    }

    /// The owner recorded in the pins, if there are any.
    pub fn owner(&self) -> Result<Option<Owner>, Error> {
        require_map(&self.maps(), SHARED.owner.name())?;
        owner_of(&self.maps())
    }

    /// Refuses pins that belong to another network namespace. Returns the cookie of this one.
    pub fn check_owner(&self) -> Result<u64, Error> {
        let cookie = sys::netns_cookie()
            .map_err(|source| Error::Kernel { op: "asking for the cookie of the network namespace", source })?;
        match self.owner()? {
            Some(owner) if owner.netns_cookie != 0 && owner.netns_cookie != cookie => {
                let (path, theirs) = (self.0.clone(), owner.netns_cookie);
                Err(Refusal::Namespace { path, theirs, ours: cookie }.into())
            }
            _ => Ok(cookie),
        }
    }
}

/// The rows of a flow table.
pub type FlowRows<A> = Vec<(FlowKey<A>, Flow<A>)>;

/// The rows of a table of session affinity.
pub type AffinityRows<A> = Vec<(AffinityKey<A>, Affinity<A>)>;

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    pub map: &'static str,
    pub entries: u64,
    pub capacity: u64,
}

/// A frontend as the tables are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontendNow {
    pub address: SocketAddr,
    pub proto: Proto,
    pub frontend: Frontend,
    pub scopes: Scopes,
}

fn frontends_of<A: Addr>(table: &Table<FrontendKey<A>, Frontend>, maps: &Maps) -> Result<Vec<FrontendNow>, Error> {
    let row = |(key, frontend): (FrontendKey<A>, Frontend)| FrontendNow {
        address: SocketAddr::new(key.addr.into(), key.port),
        proto: key.proto,
        frontend,
        scopes: maps.scopes.get(frontend.id).unwrap_or(Scopes::PASS),
    };
    Ok(table.dump()?.into_iter().map(row).collect())
}

/// A dataplane opened from its pins for reading, with or without a running agent.
pub struct Pins {
    path: PinPath,
    maps: Maps,
}

impl Pins {
    /// Opens the pins below `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = PinPath::new(path);
        let Some(owner) = path.inspect()? else {
            return Err(Refusal::NotPinned { path: path.root().to_owned() }.into());
        };
        if owner.layout_version != LAYOUT_VERSION {
            return Err(Refusal::Layout { path: path.root().to_owned(), layout: owner.layout_version }.into());
        }
        let maps = Maps::open(&path.maps())?;
        Ok(Self { path, maps })
    }

    pub fn owner(&self) -> Result<Owner, Error> {
        self.maps.owner()
    }

    /// Whether interface indexes in the tables mean interfaces of this process's network namespace.
    pub fn is_of_this_namespace(&self) -> bool {
        self.path.check_owner().is_ok()
    }

    pub fn tables(&self) -> Result<Tables, Error> {
        dump(&self.maps)
    }

    pub fn flows4(&self) -> Result<FlowRows<[u8; 4]>, Error> {
        self.maps.v4.flows.dump()
    }

    pub fn flows6(&self) -> Result<FlowRows<[u8; 16]>, Error> {
        self.maps.v6.flows.dump()
    }

    pub fn affinity4(&self) -> Result<AffinityRows<[u8; 4]>, Error> {
        self.maps.v4.affinity.dump()
    }

    pub fn affinity6(&self) -> Result<AffinityRows<[u8; 16]>, Error> {
        self.maps.v6.affinity.dump()
    }

    /// The number of words of `addresses4`, and likewise of `addresses6`.
    pub const fn address_words(&self) -> u32 {
        self.maps.v4.addresses.words()
    }

    pub fn counters(&self) -> Result<BTreeMap<Counter, CounterValue>, Error> {
        self.maps.counters()
    }

    /// The last packets that were rejected or dropped.
    pub const fn drops(&self) -> &Drops {
        &self.maps.drops
    }

    /// All frontends with their scopes, without pools and members.
    pub fn frontends_now(&self) -> Result<Vec<FrontendNow>, Error> {
        let mut frontends = frontends_of(&self.maps.v4.frontends, &self.maps)?;
        frontends.extend(frontends_of(&self.maps.v6.frontends, &self.maps)?);
        Ok(frontends)
    }

    /// Packets and dials that were refused, rejected or dropped, by frontend, interface and reason; sorted.
    pub fn drop_counts(&self) -> Result<Vec<drop_counts::Drops>, Error> {
        self.maps.drop_counts.rows()
    }

    /// Flows by interface, as in [`Drops::edge`](drop_counts::Drops); those without are left out.
    pub fn edge_flows(&self) -> Result<BTreeMap<u32, u64>, Error> {
        self.maps.shares.flows()
    }

    pub fn frontend_stats(&self, id: u32) -> Result<FrontendStats, Error> {
        self.maps.frontend_stats(id)
    }

    /// jiffies64 now, except for the drift between clock and tick; compared with the time stamps of flows.
    pub fn now_jiffies(&self) -> Result<u64, Error> {
        sys::estimate_jiffies(self.owner()?.jiffies_per_sec)
            .map_err(|source| Error::Kernel { op: "asking for the time", source })
    }

    /// jiffies64 when an agent completed its last walk over the flows; 0: none did.
    pub fn walked_jiffies(&self) -> Result<u64, Error> {
        self.maps.shares.walked_jiffies()
    }

    /// The addresses of this node on its uplinks.
    pub fn uplinks(&self) -> Result<UplinkRows, Error> {
        let Some(table) = &self.maps.uplinks else { return Ok(UplinkRows::new()) };
        Ok(table.dump()?.into_iter().collect())
    }

    /// What is attached to interfaces.
    pub fn hooks(&self) -> Result<Hooks, Error> {
        Hooks::read(self.path.root(), &self.path.links())
    }

    /// The cgroup hooks with a program of ours.
    pub fn socket_hooks(&self) -> Result<Vec<SocketHook>, Error> {
        Ok(tcx::pinned(&self.path.links())?.sockets.into_keys().collect())
    }

    /// The interfaces whose driver has a program of ours.
    pub fn drivers(&self) -> Result<BTreeMap<u32, Mode>, Error> {
        driver::modes(&tcx::pinned(&self.path.links())?.drivers)
    }

    /// How full the tables are.
    pub fn fill(&self, tables: &Tables) -> Result<Vec<Fill>, Error> {
        let Maps { v4, v6, shares, .. } = &self.maps;
        let [flows4, flows6] = shares.entries()?;
        let fill = |map, entries: u64, capacity| Ok(Fill { map, entries, capacity: u64::from(capacity) });
        let rows = [
            fill("frontends4", tables.v4.frontends.len() as u64, v4.frontends.max_entries()?),
            fill("frontends6", tables.v6.frontends.len() as u64, v6.frontends.max_entries()?),
            fill("flows4", flows4, v4.flows.max_entries()?),
            fill("flows6", flows6, v6.flows.max_entries()?),
        ];
        rows.into_iter().collect()
    }

    /// Whether programs see the clients: at an interface of any pod, at all cgroup hooks, at an interface towards the
    /// network.
    pub fn seen(&self) -> Result<PerClient<bool>, Error> {
        let attached = self.attachments()?;
        let is_attached = |class| attached.iter().any(|attachment| attachment.class == class);
        Ok(PerClient {
            workload: is_attached(Class::Workload),
            host: self.socket_hooks()?.len() == SocketHook::ALL.len(),
            external: is_attached(Class::Uplink),
        })
    }

    pub fn attachments(&self) -> Result<Vec<Attachment>, Error> {
        Ok(self.hooks()?.attached())
    }
}

/// Reads the configuration tables from the maps.
pub fn dump(maps: &Maps) -> Result<Tables, Error> {
    let (v4, v6) = (maps.v4.tables()?, maps.v6.tables()?);
    let pass = lb_common::table::Scopes::PASS;
    let scopes = (0..maps.scopes.len()).filter_map(|id| Some((id, maps.scopes.get(id)?)));
    let scopes = scopes.filter(|(_, scopes)| *scopes != pass && scopes.service_port != 0).collect();
    Ok(Tables { v4, v6, scopes, frontend_ages: maps.ages.frontends()? })
}

/// The owner recorded in a directory of maps.
fn owner_of(directory: &Path) -> Result<Option<Owner>, Error> {
    find_pin(directory, SHARED.owner.name())?.map(|map| read_owner(map.as_fd())).transpose()
}

/// Refuses a directory in which the name of a map of ours holds anything else.
fn require_maps(directory: &Path) -> Result<(), Error> {
    PINNED.iter().try_for_each(|map| require_map(directory, map.name))
}

fn require_map(directory: &Path, name: &str) -> Result<(), Error> {
    let path = directory.join(name);
    let is_right = match folder::look(&path)? {
        Found::Nothing => true,
        Found::Pin => kernel_name(&path)?.is_some_and(|kernel_name| kernel_name == name),
        Found::Link | Found::Folder | Found::Other => false,
    };
    if is_right {
        return Ok(());
    }
    Err(Distrust::NoMap { path }.into())
}

/// The name that a map was made with; `None` if the pin is no map.
fn kernel_name(path: &Path) -> Result<Option<String>, Error> {
    let asking = |source| Error::Path { op: "asking for the pin", path: path.to_owned(), source };
    let object = sys::obj_get(path).map_err(asking)?;
    match sys::object_kind(object.as_fd()).map_err(asking)? {
        ObjectKind::Map => sys::map_name(object.as_fd()).map(Some).map_err(asking),
        ObjectKind::Program | ObjectKind::Link | ObjectKind::Other => Ok(None),
    }
}

/// The number of maps removed from a directory, and the paths left because they are not ours.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub maps: usize,
    pub left: Vec<PathBuf>,
}

/// Removes all maps of ours from a directory, of any version, and the directory if it is then empty.
pub fn remove_maps(directory: &Path) -> Result<Removed, Error> {
    let removed = remove_maps_but(directory, &[])?;
    remove_directory(directory)?;
    Ok(removed)
}

/// Removes the maps of ours from a directory, except those pinned under these names.
pub fn remove_maps_but(directory: &Path, names: &[&str]) -> Result<Removed, Error> {
    let (maps, left) = maps_and_others(directory)?;
    let maps: Vec<_> = maps.into_iter().filter(|path| !names.iter().any(|name| path.ends_with(name))).collect();
    maps.iter().try_for_each(|path| remove_pin(path))?;
    Ok(Removed { maps: maps.len(), left })
}

/// The pins of maps of ours in a directory, of any version, and the other files.
pub fn maps_and_others(directory: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
    let (mut maps, mut others) = (Vec::new(), Vec::new());
    for path in entries(directory)? {
        if is_map_of_ours(&path)? { &mut maps } else { &mut others }.push(path);
    }
    Ok((maps, others))
}

/// A map is ours if it was made with one of our names, whatever the name of its pin.
fn is_map_of_ours(path: &Path) -> Result<bool, Error> {
    if folder::look(path)? != Found::Pin {
        return Ok(false);
    }
    Ok(kernel_name(path)?.is_some_and(|name| PINNED.iter().any(|map| map.name == name)))
}

/// Removes a directory if it is empty. A missing directory is no error, and a mount point stays.
pub fn remove_directory(directory: &Path) -> Result<(), Error> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound, ResourceBusy};
    match fs::remove_dir(directory) {
        Err(error) if matches!(error.kind(), DirectoryNotEmpty | NotFound | ResourceBusy) => Ok(()),
        result => result.map_err(|source| Error::Path { op: "removing", path: directory.to_owned(), source }),
    }
}
