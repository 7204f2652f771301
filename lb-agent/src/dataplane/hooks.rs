//! The hooks of interfaces, through what the kernel has: tcx links, or the qdisc clsact.
//!
//! What the other way has attached is read, replaced and removed all the same: settings may change between two runs.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use super::Error;
use super::clsact::Filters;
use super::driver::{DriverLinks, Xdp};
use super::links::{Ahead, Attached, Attachment};
use super::pinned::remove_pin;
use super::sockets::SocketLinks;
use super::sys::{self, Hook};
use super::tcx::{self, Links, Pinned};

/// How programs are to be attached to interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachBy {
    /// By tcx if the kernel has it.
    #[default]
    Auto,
    Tcx,
    Clsact,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Tcx,
    Clsact,
}

impl Way {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

impl AttachBy {
    /// Asks the kernel, if need be.
    fn way(self) -> Way {
        match self {
            Self::Tcx => Way::Tcx,
            Self::Auto if tcx::is_supported() => Way::Tcx,
            Self::Clsact | Self::Auto => Way::Clsact,
        }
    }
}

/// Our programs on the hooks of interfaces.
pub struct Hooks {
    way: Way,
    links: Links,
    filters: Filters,
}

impl Hooks {
    /// Adopts what is attached unchanged, but for drivers' programs that `xdp` does not want, and removes pins whose
    /// interface is gone. `directory` is the one of the links, `maps` the one of the maps.
    pub fn adopt(
        pin_path: &Path,
        directory: &Path,
        maps: &Path,
        by: AttachBy,
        xdp: Xdp,
    ) -> Result<(Self, SocketLinks, DriverLinks), Error> {
        let Pinned { live, sockets, drivers, dead, foreign } = tcx::pinned(directory)?;
        for path in dead {
            remove_pin(&path)?;
        }
        for path in foreign {
            tracing::warn!(path = %path.display(), "not a link of lb-agent: left in place");
        }
        let way = by.way();
        tracing::info!(by = way.name(), "programs are attached to interfaces");
        let links = Links::new(directory.to_owned(), live);
        let sockets = SocketLinks::adopt(directory.to_owned(), sockets);
        let drivers = DriverLinks::adopt(directory.to_owned(), maps, drivers, xdp)?;
        let mut hooks = Self { way, links, filters: Filters::read(pin_path)? };
        hooks.open_shut()?;
        Ok((hooks, sockets, drivers))
    }

    /// Reads what is attached, to look at.
    pub fn read(pin_path: &Path, directory: &Path) -> Result<Self, Error> {
        let links = Links::new(directory.to_owned(), tcx::pinned(directory)?.live);
        Ok(Self { way: Way::Tcx, links, filters: Filters::read(pin_path)? })
    }

    /// The attachments, in order.
    pub fn attached(&self) -> Vec<Attachment> {
        self.ways().into_keys().collect()
    }

    /// The attachments, and how each is attached.
    pub fn ways(&self) -> BTreeMap<Attachment, Way> {
        let filters = self.filters.attached().keys().map(|attachment| (*attachment, Way::Clsact));
        filters.chain(self.links.attached().keys().map(|attachment| (*attachment, Way::Tcx))).collect()
    }

    /// The IDs of our programs.
    pub fn program_ids(&self) -> BTreeSet<u32> {
        let links = self.links.attached().keys().filter_map(|attachment| self.links.program_id(attachment));
        links.chain(self.filters.attached().values().copied()).collect()
    }

    /// The hooks where others run before our programs.
    pub fn ahead(&self) -> Vec<Ahead> {
        let mut ahead = self.links.ahead();
        ahead.extend(self.filters.ahead());
        ahead
    }

    /// Forgets attachments that another program has removed, and returns whether there were any. Only who removes the pin
    /// of a link can remove the link.
    pub fn forget_lost(&mut self) -> bool {
        self.filters.forget_lost()
    }

    /// Gives a hook its program: swaps a program of ours, else attaches it. An attachment of the other way is replaced.
    pub fn attach(&mut self, attachment: Attachment, program: BorrowedFd<'_>) -> Result<Attached, Error> {
        let is_switched = match self.way {
            Way::Tcx => self.filters.attached().contains_key(&attachment),
            Way::Clsact => self.links.attached().contains_key(&attachment),
        };
        match (is_switched, attachment.hook) {
            (false, _) => self.attach_by_way(attachment, program),
            (true, Hook::Ingress) => self.switch_ingress(attachment, program),
            // A second program has nothing to do with a reply that is translated, so the new one comes first.
            (true, Hook::Egress) => self
                .attach_by_way(attachment, program)
                .and_then(|_| self.detach_former(attachment))
                .map(|()| Attached::Before),
        }
    }

    fn attach_by_way(&mut self, attachment: Attachment, program: BorrowedFd<'_>) -> Result<Attached, Error> {
        match self.way {
            Way::Tcx => self.links.attach(attachment, program),
            Way::Clsact => self.filters.attach(attachment, program),
        }
    }

    /// While both programs are attached, or none, all packets are dropped and come again later. The second one would take
    /// a backend for the destination that the client dialled; and a request that is not translated ends its connection.
    fn switch_ingress(&mut self, attachment: Attachment, program: BorrowedFd<'_>) -> Result<Attached, Error> {
        let switched = self.shut(attachment).and_then(|()| match self.way {
            Way::Tcx => self.links.attach(attachment, program).and_then(|_| self.filters.detach(&attachment)),
            Way::Clsact => {
                self.links.detach(&attachment).and_then(|()| self.filters.attach(attachment, program).map(drop))
            }
        });
        if switched.is_err() {
            // The interface must not stay shut.
            self.filters.detach(&attachment)?;
        }
        switched.map(|()| Attached::Before)
    }

    /// Drops all packets at a hook, until its classifier is replaced or removed.
    pub fn shut(&mut self, attachment: Attachment) -> Result<(), Error> {
        let loading = |source| Error::Kernel { op: "loading the program that drops", source };
        let dropping = sys::load_dropping_program().map_err(loading)?;
        self.filters.attach(attachment, dropping.as_fd()).map(drop)
    }

    /// Opens the hooks that an agent shut and did not live to open again.
    fn open_shut(&mut self) -> Result<(), Error> {
        let is_shut = |id: u32| sys::program_name(id).is_ok_and(|name| name == sys::DROPPING);
        let attached = self.filters.attached().iter();
        let shut: Vec<_> = attached.filter(|(_, id)| is_shut(**id)).map(|(attachment, _)| *attachment).collect();
        shut.iter().try_for_each(|attachment| self.filters.detach(attachment))
    }

    /// Removes the program from a hook. Succeeds if the interface is already gone.
    pub fn detach(&mut self, attachment: &Attachment) -> Result<(), Error> {
        if self.filters.attached().contains_key(attachment) {
            self.filters.detach(attachment)?;
        }
        self.links.detach(attachment)
    }

    fn detach_former(&mut self, attachment: Attachment) -> Result<(), Error> {
        match self.way {
            Way::Tcx => self.filters.detach(&attachment),
            Way::Clsact => self.links.detach(&attachment),
        }
    }
}
