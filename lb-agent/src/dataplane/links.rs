//! Attachments: which program runs on which hook of which interface, kept alive by pinned tcx links.
//!
//! The name of a pin (`workload-12-ingress`, `uplink-7-egress-l3`) describes its attachment, so attachments can be read
//! without an agent.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::Error;
use super::folder::{self, Found};
use super::pinned::remove_pin;
use super::probe::AttachedProgram;
use super::sockets::{SocketHook, SocketLinks};
use super::sys::{self, Hook, ObjectKind};

/// What an interface leads to. This decides which programs it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A pod on this node.
    Workload,
    /// The network.
    Uplink,
}

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub name: String,
    pub class: Class,
    pub header: LinkHeader,
}

impl Link {
    /// The programs for this interface. Egress comes first: if requests are translated while the egress hook is empty,
    /// the client gets replies from an address that it does not know.
    pub fn attachments(&self) -> [Attachment; 2] {
        let Self { ifindex, class, header, .. } = *self;
        [Hook::Egress, Hook::Ingress].map(|hook| Attachment { ifindex, class, hook, header })
    }
}

/// What programs see in front of the network header of an interface's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkHeader {
    #[default]
    Ethernet,
    Nothing,
}

/// The suffix of the names of pins for packets without a link header.
const BARE: &str = "l3";

/// A hardware address.
pub type Mac = [u8; 6];

/// A program on a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    pub ifindex: u32,
    pub class: Class,
    pub hook: Hook,
    pub header: LinkHeader,
}

impl Class {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Uplink => "uplink",
        }
    }
}

impl Hook {
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl Attachment {
    /// The name of the program for this hook.
    pub const fn program(&self) -> &'static str {
        match (self.header, self.class, self.hook) {
            (LinkHeader::Ethernet, Class::Workload, Hook::Ingress) => "workload_ingress",
            (LinkHeader::Ethernet, Class::Workload, Hook::Egress) => "workload_egress",
            (LinkHeader::Ethernet, Class::Uplink, Hook::Ingress) => "uplink_ingress",
            (LinkHeader::Ethernet, Class::Uplink, Hook::Egress) => "uplink_egress",
            (LinkHeader::Nothing, Class::Workload, Hook::Ingress) => "workload_in_l3",
            (LinkHeader::Nothing, Class::Workload, Hook::Egress) => "workload_out_l3",
            (LinkHeader::Nothing, Class::Uplink, Hook::Ingress) => "uplink_in_l3",
            (LinkHeader::Nothing, Class::Uplink, Hook::Egress) => "uplink_out_l3",
        }
    }

    /// Parses the name of a pin.
    fn from_pin_name(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let (class, ifindex, hook) = (parts.next()?, parts.next()?, parts.next()?);
        let class = [Class::Workload, Class::Uplink].into_iter().find(|known| known.name() == class)?;
        let hook = Hook::ALL.into_iter().find(|known| known.name() == hook)?;
        let header = match parts.next() {
            None => LinkHeader::Ethernet,
            Some(BARE) => LinkHeader::Nothing,
            Some(_) => return None,
        };
        parts.next().is_none().then_some(Self { ifindex: ifindex.parse().ok()?, class, hook, header })
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.class.name(), self.ifindex, self.hook.name())?;
        match self.header {
            LinkHeader::Ethernet => Ok(()),
            LinkHeader::Nothing => write!(f, "-{BARE}"),
        }
    }
}

/// A hook where other programs run before ours. Packets that these drop or redirect never reach ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    pub attachment: Attachment,
    /// In the order in which they run.
    pub programs: Vec<AttachedProgram>,
}

/// The hooks where other programs run first. A removed interface has none.
pub fn ahead(attached: &BTreeMap<Attachment, OwnedFd>) -> Vec<Ahead> {
    let ahead_of = |(attachment, link): (&Attachment, &OwnedFd)| {
        let ours = sys::tcx_link(link.as_fd()).ok()??.program_id;
        let ids = sys::tcx_programs(attachment.ifindex, attachment.hook).ok()?;
        let place = ids.iter().position(|id| *id == ours).filter(|place| *place > 0)?;
        let programs = ids.iter().take(place).map(|id| AttachedProgram::of_id(*id)).collect();
        Some(Ahead { attachment: *attachment, programs })
    };
    attached.iter().filter_map(ahead_of).collect()
}

/// Whether a hook already had a program of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    Before,
    Anew,
}

/// The pinned links of a dataplane.
pub struct Links {
    directory: PathBuf,
    attached: BTreeMap<Attachment, OwnedFd>,
}

/// The contents of a directory of links.
#[derive(Default)]
pub struct Pinned {
    pub live: BTreeMap<Attachment, OwnedFd>,
    pub sockets: BTreeMap<SocketHook, OwnedFd>,
    /// Links of ours whose interface is gone.
    pub dead: Vec<PathBuf>,
    /// Pins and files that are not ours.
    pub foreign: Vec<PathBuf>,
}

/// Reads which attachments are pinned in a directory, and what else is in it.
pub fn pinned(directory: &Path) -> Result<Pinned, Error> {
    let mut pinned = Pinned::default();
    for path in folder::entries(directory)? {
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(hook) = name.and_then(SocketHook::from_pin_name) {
            match link_pin(&path, |link| Ok(sys::cgroup_link(link)? == Some(hook.attach_type() as u32)))? {
                Some((link, true)) => drop(pinned.sockets.insert(hook, link)),
                Some((_, false)) | None => pinned.foreign.push(path),
            }
            continue;
        }
        let Some(attachment) = name.and_then(Attachment::from_pin_name) else {
            pinned.foreign.push(path);
            continue;
        };
        match link_pin(&path, sys::tcx_link)? {
            Some((link, Some(tcx))) if (tcx.ifindex, tcx.hook) == (attachment.ifindex, Some(attachment.hook)) => {
                pinned.live.insert(attachment, link);
            }
            Some((_, Some(tcx))) if tcx.ifindex == 0 => pinned.dead.push(path),
            Some(_) | None => pinned.foreign.push(path),
        }
    }
    Ok(pinned)
}

/// The link that is pinned at this path, with what `describe` says of it; `None` if it is anything else.
fn link_pin<T>(
    path: &Path,
    describe: impl Fn(BorrowedFd<'_>) -> std::io::Result<T>,
) -> Result<Option<(OwnedFd, T)>, Error> {
    if folder::look(path)? != Found::Pin {
        return Ok(None);
    }
    let opening = |source| Error::Path { op: "opening the pinned link", path: path.to_owned(), source };
    let link = sys::obj_get(path).map_err(opening)?;
    if sys::object_kind(link.as_fd()).map_err(opening)? != ObjectKind::Link {
        return Ok(None);
    }
    let described = describe(link.as_fd()).map_err(opening)?;
    Ok(Some((link, described)))
}

impl Links {
    /// Adopts the pinned links unchanged, and removes pins whose interface is gone.
    pub fn adopt(directory: PathBuf) -> Result<(Self, SocketLinks), Error> {
        let Pinned { live, sockets, dead, foreign } = pinned(&directory)?;
        for path in dead {
            remove_pin(&path)?;
        }
        for path in foreign {
            tracing::warn!(path = %path.display(), "not a link of lb-agent: left in place");
        }
        Ok((Self { directory: directory.clone(), attached: live }, SocketLinks::adopt(directory, sockets)))
    }

    pub fn attached(&self) -> Vec<Attachment> {
        self.attached.keys().copied().collect()
    }

    /// The hooks where other programs run before ours.
    pub fn ahead(&self) -> Vec<Ahead> {
        ahead(&self.attached)
    }

    /// Gives a hook its program: swaps a program of ours, else attaches and pins a new link.
    pub fn attach(&mut self, attachment: Attachment, program: BorrowedFd<'_>) -> Result<Attached, Error> {
        let kernel = |source| Error::Attach { pin: attachment.to_string(), source };
        if let Some(link) = self.attached.get(&attachment) {
            match sys::link_update(link.as_fd(), program) {
                Ok(()) => return Ok(Attached::Before),
                // The interface was removed and another got its index: the old link is dead.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => self.detach(&attachment)?,
                Err(error) => return Err(kernel(error)),
            }
        }
        let link = sys::tcx_attach(program, attachment.ifindex, attachment.hook).map_err(kernel)?;
        sys::obj_pin(link.as_fd(), &self.directory.join(attachment.to_string())).map_err(kernel)?;
        self.attached.insert(attachment, link);
        Ok(Attached::Anew)
    }

    /// Removes the program from a hook. Succeeds if the interface is already gone.
    pub fn detach(&mut self, attachment: &Attachment) -> Result<(), Error> {
        self.attached.remove(attachment);
        remove_pin(&self.directory.join(attachment.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_name_says_what_it_is() {
        for class in [Class::Workload, Class::Uplink] {
            for hook in Hook::ALL {
                for header in [LinkHeader::Ethernet, LinkHeader::Nothing] {
                    let attachment = Attachment { ifindex: 12, class, hook, header };
                    assert_eq!(Attachment::from_pin_name(&attachment.to_string()), Some(attachment));
                }
            }
        }
        for name in [
            "",
            "workload",
            "workload-x-ingress",
            "workload-1-ingress-2",
            "workload-1-ingress-l3-l3",
            "fabric-1-ingress",
        ] {
            assert_eq!(Attachment::from_pin_name(name), None, "{name}");
        }
    }
}
