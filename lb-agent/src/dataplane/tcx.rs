//! Programs on the hooks of interfaces by tcx (Linux 6.6). Pinned links keep them without an agent.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::Error;
use super::driver;
use super::folder::{self, Found};
use super::links::{Ahead, Attached, Attachment};
use super::pinned::{detach_link, remove_pin};
use super::probe::{AttachedProgram, Neighbour};
use super::sockets::SocketHook;
use super::sys::{self, Hook, ObjectKind};

/// The loopback interface is the first one of each network namespace.
pub const LOOPBACK_INDEX: u32 = 1;

/// Whether this kernel has tcx, by its answer to a question about a hook. An older kernel does not know the question.
pub fn is_supported() -> bool {
    let answer = sys::tcx_programs(LOOPBACK_INDEX, Hook::Ingress);
    !answer.is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}

/// The contents of a directory of links.
#[derive(Default)]
pub struct Pinned {
    pub live: BTreeMap<Attachment, OwnedFd>,
    pub sockets: BTreeMap<SocketHook, OwnedFd>,
    /// Links of drivers, by interface.
    pub drivers: BTreeMap<u32, OwnedFd>,
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
        if let Some(ifindex) = name.and_then(driver::from_pin_name) {
            match link_pin(&path, sys::xdp_link)? {
                Some((link, Some(xdp))) if xdp.ifindex == ifindex => drop(pinned.drivers.insert(ifindex, link)),
                Some((_, Some(xdp))) if xdp.ifindex == 0 => pinned.dead.push(path),
                Some(_) | None => pinned.foreign.push(path),
            }
            continue;
        }
        let Some(attachment) = name.and_then(Attachment::from_name) else {
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

/// The pinned links of a dataplane.
pub struct Links {
    directory: PathBuf,
    attached: BTreeMap<Attachment, OwnedFd>,
}

impl Links {
    pub const fn new(directory: PathBuf, attached: BTreeMap<Attachment, OwnedFd>) -> Self {
        Self { directory, attached }
    }

    pub const fn attached(&self) -> &BTreeMap<Attachment, OwnedFd> {
        &self.attached
    }

    /// The ID of the program on a hook.
    pub fn program_id(&self, attachment: &Attachment) -> Option<u32> {
        Some(sys::tcx_link(self.attached.get(attachment)?.as_fd()).ok()??.program_id)
    }

    /// The hooks where other programs run first. A removed interface has none.
    pub fn ahead(&self) -> Vec<Ahead> {
        let ahead_of = |attachment: &Attachment| {
            let ours = self.program_id(attachment)?;
            let ids = sys::tcx_programs(attachment.ifindex, attachment.hook).ok()?;
            let place = ids.iter().position(|id| *id == ours).filter(|place| *place > 0)?;
            let programs = ids.iter().take(place).map(|id| Neighbour::Program(AttachedProgram::of_id(*id))).collect();
            Some(Ahead { attachment: *attachment, programs })
        };
        self.attached.keys().filter_map(ahead_of).collect()
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
        let path = self.directory.join(attachment.to_string());
        if let Some(link) = self.attached.remove(attachment) {
            detach_link(link.as_fd(), &path);
        }
        remove_pin(&path)
    }
}
