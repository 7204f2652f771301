//! Attachments: which program is on which hook of which interface, kept alive by pinned tcx links.
//!
//! The name of a pin says what it is (`workload-12-ingress`), so that attachments can be read without an agent.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::Error;
use super::sys::{self, Hook};

/// What an interface leads to; decides which programs it gets.
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
}

/// A program on a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    pub ifindex: u32,
    pub class: Class,
    pub hook: Hook,
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
    /// The program that belongs there.
    pub const fn program(&self) -> &'static str {
        match (self.class, self.hook) {
            (Class::Workload, Hook::Ingress) => "workload_ingress",
            (Class::Workload, Hook::Egress) => "workload_egress",
            (Class::Uplink, Hook::Ingress) => "uplink_ingress",
            (Class::Uplink, Hook::Egress) => "uplink_egress",
        }
    }

    /// The attachment whose pin has this name.
    fn from_pin_name(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let (class, ifindex, hook) = (parts.next()?, parts.next()?, parts.next()?);
        let class = [Class::Workload, Class::Uplink].into_iter().find(|known| known.name() == class)?;
        let hook = Hook::ALL.into_iter().find(|known| known.name() == hook)?;
        parts.next().is_none().then_some(Self { ifindex: ifindex.parse().ok()?, class, hook })
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.class.name(), self.ifindex, self.hook.name())
    }
}

/// Whether a hook had a program of ours.
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

/// The attachments that are pinned in a directory and whose interface still exists; the rest are dead pins.
pub fn pinned(directory: &Path) -> Result<(BTreeMap<Attachment, OwnedFd>, Vec<PathBuf>), Error> {
    let (mut live, mut dead) = (BTreeMap::new(), Vec::new());
    let kernel = |source| Error::Kernel { what: format!("reading {}", directory.display()), source };
    for entry in fs::read_dir(directory).map_err(kernel)? {
        let path = entry.map_err(kernel)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(attachment) = name.and_then(Attachment::from_pin_name) else { continue };
        match sys::obj_get(&path) {
            Ok(link) if sys::link_ifindex(link.as_fd()).is_ok_and(|ifindex| ifindex == attachment.ifindex) => {
                live.insert(attachment, link);
            }
            Ok(_) => dead.push(path),
            Err(source) => {
                return Err(Error::Kernel { what: format!("opening the pinned link {}", path.display()), source });
            }
        }
    }
    Ok((live, dead))
}

impl Links {
    /// Takes over the pinned links as they are, and removes pins of interfaces that are gone.
    pub fn adopt(directory: PathBuf) -> Result<Self, Error> {
        let (attached, dead) = pinned(&directory)?;
        for path in dead {
            remove_pin(&path)?;
        }
        Ok(Self { directory, attached })
    }

    pub fn attached(&self) -> Vec<Attachment> {
        self.attached.keys().copied().collect()
    }

    /// Gives a hook its program: swapped where one of ours is there, attached and pinned where not.
    pub fn attach(&mut self, attachment: Attachment, program: BorrowedFd<'_>) -> Result<Attached, Error> {
        let kernel = |source| Error::Kernel { what: format!("attaching {attachment}"), source };
        if let Some(link) = self.attached.get(&attachment) {
            match sys::link_update(link.as_fd(), program) {
                Ok(()) => return Ok(Attached::Before),
                // The interface went and another took its index: the old link is dead.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => self.detach(&attachment)?,
                Err(error) => return Err(kernel(error)),
            }
        }
        let link = sys::tcx_attach(program, attachment.ifindex, attachment.hook).map_err(kernel)?;
        sys::obj_pin(link.as_fd(), &self.directory.join(attachment.to_string())).map_err(kernel)?;
        self.attached.insert(attachment, link);
        Ok(Attached::Anew)
    }

    /// Removes the program of a hook; nothing to do where the interface is gone already.
    pub fn detach(&mut self, attachment: &Attachment) -> Result<(), Error> {
        self.attached.remove(attachment);
        remove_pin(&self.directory.join(attachment.to_string()))
    }
}

/// Removes a pin; one that is not there is as good.
pub fn remove_pin(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => {
            result.map_err(|source| Error::Kernel { what: format!("removing the pin {}", path.display()), source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_name_says_what_it_is() {
        for class in [Class::Workload, Class::Uplink] {
            for hook in Hook::ALL {
                let attachment = Attachment { ifindex: 12, class, hook };
                assert_eq!(Attachment::from_pin_name(&attachment.to_string()), Some(attachment));
            }
        }
        for name in ["", "workload", "workload-x-ingress", "workload-1-ingress-2", "fabric-1-ingress"] {
            assert_eq!(Attachment::from_pin_name(name), None, "{name}");
        }
    }
}
