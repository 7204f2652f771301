//! The pin directory: where a dataplane lives while no agent runs, whose it is, and how it goes away.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use lb_common::table::{Counter, CounterValue, Flow, FlowKey, FrontendStats, LAYOUT_VERSION, Owner, name};

use super::links::{self, Attachment};
use super::maps::{Maps, read_owner};
use super::{Error, Tables, sys};

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
        self.0.join("maps")
    }

    /// Maps that are being filled, to take the place of others of another shape.
    pub fn maps_next(&self) -> PathBuf {
        self.0.join("maps-next")
    }

    pub fn links(&self) -> PathBuf {
        self.0.join("links")
    }

    /// Makes the directories, on a BPF file system that is mounted where there is none.
    pub fn prepare(&self) -> Result<(), Error> {
        let mut base = self.0.as_path();
        while !base.exists() {
            base = base.parent().unwrap_or(Path::new("/"));
        }
        let kernel = |what: String| move |source| Error::Kernel { what, source };
        if !sys::is_bpffs(base).map_err(kernel(format!("asking for the file system of {}", base.display())))? {
            let mount_point = Path::new("/sys/fs/bpf");
            if !self.0.starts_with(mount_point) {
                return Err(Error::Refused(format!(
                    "{} is on no BPF file system: mount one (`mount -t bpf bpf DIR`) or choose --pin-path below {}",
                    self.0.display(),
                    mount_point.display()
                )));
            }
            sys::mount_bpffs(mount_point)
                .map_err(kernel(format!("mounting a BPF file system on {}", mount_point.display())))?;
        }
        for directory in [self.maps(), self.links()] {
            fs::create_dir_all(&directory).map_err(kernel(format!("creating {}", directory.display())))?;
        }
        Ok(())
    }

    /// Takes the directory for this process, for as long as the descriptor lives.
    pub fn lock(&self) -> Result<OwnedFd, Error> {
        sys::lock_directory(&self.0).map_err(|source| {
            if source.kind() == std::io::ErrorKind::WouldBlock {
                let path = self.0.display();
                return Error::Refused(format!(
                    "another agent runs on the pins in {path}: stop it, or choose another --pin-path"
                ));
            }
            Error::Kernel { what: format!("locking {}", self.0.display()), source }
        })
    }

    /// The owner that the pins name, if there are any.
    pub fn owner(&self) -> Result<Option<Owner>, Error> {
        let path = self.maps().join(name::OWNER);
        match sys::obj_get(&path) {
            Ok(map) => read_owner(map.as_fd()).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Kernel { what: format!("opening the pinned map {}", path.display()), source }),
        }
    }

    /// Refuses pins that belong to another network namespace; the cookie of this one is returned.
    pub fn check_owner(&self) -> Result<u64, Error> {
        let cookie = sys::netns_cookie().map_err(|source| Error::Kernel {
            what: "asking for the cookie of the network namespace".into(),
            source,
        })?;
        match self.owner()? {
            Some(owner) if owner.netns_cookie != 0 && owner.netns_cookie != cookie => Err(Error::Refused(format!(
                "the pins in {path} belong to another network namespace (cookie {}, this one has {cookie}): choose another \
                 --pin-path, or remove them with `lb-agent unload --pin-path {path}`",
                owner.netns_cookie,
                path = self.0.display(),
            ))),
            _ => Ok(cookie),
        }
    }
}

/// Rows of a flow table.
pub type FlowRows<A> = Vec<(FlowKey<A>, Flow<A>)>;

/// A dataplane as its pins show it, to read from; works whether or not an agent runs.
pub struct Pins {
    path: PinPath,
    maps: Maps,
}

impl Pins {
    /// Opens the pins below `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = PinPath::new(path);
        let Some(owner) = path.owner()? else {
            return Err(Error::Refused(format!(
                "no dataplane is pinned in {}: start `lb-agent run`, or name its --pin-path",
                path.root().display()
            )));
        };
        if owner.layout_version != LAYOUT_VERSION {
            return Err(Error::Refused(format!(
                "the tables in {} have layout {}, this program reads {LAYOUT_VERSION}: use the lb-agent that made them",
                path.root().display(),
                owner.layout_version
            )));
        }
        let maps = Maps::open(&path.maps())?;
        Ok(Self { path, maps })
    }

    pub fn owner(&self) -> Result<Owner, Error> {
        self.maps.owner()
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

    pub fn counters(&self) -> Result<BTreeMap<Counter, CounterValue>, Error> {
        self.maps.counters()
    }

    pub fn frontend_stats(&self, id: u32) -> Result<FrontendStats, Error> {
        self.maps.frontend_stats(id)
    }

    /// jiffies64 now, to within the drift of the clock against the tick; what a flow's time stamp is compared with.
    pub fn now_jiffies(&self) -> Result<u64, Error> {
        sys::estimate_jiffies(self.owner()?.jiffies_per_sec)
            .map_err(|source| Error::Kernel { what: "asking for the time".into(), source })
    }

    pub fn attachments(&self) -> Result<Vec<Attachment>, Error> {
        Ok(links::pinned(&self.path.links())?.0.into_keys().collect())
    }
}

/// The configuration tables as the maps hold them.
pub fn dump(maps: &Maps) -> Result<Tables, Error> {
    let (v4, v6) = (maps.v4.tables()?, maps.v6.tables()?);
    let pass = lb_common::table::Scopes::PASS;
    let scopes = (0..maps.scopes.len()).filter_map(|id| Some((id, maps.scopes.get(id)?)));
    let scopes = scopes.filter(|(_, scopes)| *scopes != pass && scopes.service_port != 0).collect();
    Ok(Tables { v4, v6, scopes })
}

/// What [`unload`] removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unloaded {
    pub links: usize,
    pub maps: usize,
}

/// Removes programs, links and pins. Not there is as good. Refused while an agent runs on them.
pub fn unload(path: &Path) -> Result<Unloaded, Error> {
    if !path.exists() {
        return Ok(Unloaded::default());
    }
    let _lock = PinPath::new(path).lock()?;
    remove_pins(path)
}

/// Removes pins also under a running agent, whose descriptors keep everything alive that is not attached.
pub fn remove_pins(path: &Path) -> Result<Unloaded, Error> {
    let path = PinPath::new(path);
    let mut unloaded = Unloaded::default();
    if path.links().exists() {
        let (live, dead) = links::pinned(&path.links())?;
        for pin in live.keys().map(|attachment| path.links().join(attachment.to_string())).chain(dead) {
            links::remove_pin(&pin)?;
            unloaded.links += 1;
        }
    }
    for directory in [path.maps(), path.maps_next()] {
        unloaded.maps += remove_maps(&directory)?;
    }
    remove_directory(&path.links())?;
    remove_directory(path.root())?;
    Ok(unloaded)
}

/// Removes a directory of maps with all that is pinned there, by whatever version. How many that were.
pub fn remove_maps(directory: &Path) -> Result<usize, Error> {
    let removed = remove_maps_but(directory, &[])?;
    remove_directory(directory)?;
    Ok(removed)
}

/// Removes what is pinned in a directory of maps under other names than these. How many that were.
pub fn remove_maps_but(directory: &Path, names: &[&str]) -> Result<usize, Error> {
    let reading = |source| Error::Kernel { what: format!("reading {}", directory.display()), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(reading)?.collect::<Result<Vec<_>, _>>().map_err(reading)?,
    };
    let mut removed = 0;
    for entry in entries.iter().filter(|entry| names.iter().all(|name| entry.file_name() != *name)) {
        links::remove_pin(&entry.path())?;
        removed += 1;
    }
    Ok(removed)
}

/// Removes an empty directory; one that is not there is as good.
fn remove_directory(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| Error::Kernel { what: format!("removing {}", directory.display()), source }),
    }
}
