//! The cgroup hooks, whose programs translate sockets when they dial. Pinned links keep them without an agent.
//!
//! They are attached to the root of the cgroup tree, so they see the sockets of all network namespaces of the machine.
//! The programs tell these apart.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya_obj::generated::bpf_attach_type;

use super::Error;
use super::mounts::points;
use super::pinned::{detach_link, remove_pin};
use super::sys;

/// Whose sockets are translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketLb {
    #[default]
    Off,
    /// The node's own and those of hostNetwork pods.
    Host,
    /// Also those of pods.
    All,
}

/// A cgroup hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SocketHook {
    Received4,
    Received6,
    Peer4,
    Peer6,
    Send4,
    Send6,
    Connect4,
    Connect6,
}

impl SocketHook {
    /// In the order in which they are attached. Those that show a socket the address that it dialled come first: they
    /// must be there when the first dial is translated.
    pub const ALL: [Self; 8] = [
        Self::Received4,
        Self::Received6,
        Self::Peer4,
        Self::Peer6,
        Self::Send4,
        Self::Send6,
        Self::Connect4,
        Self::Connect6,
    ];

    /// The name of the program and of the hook.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Received4 => "recvmsg4",
            Self::Received6 => "recvmsg6",
            Self::Peer4 => "getpeername4",
            Self::Peer6 => "getpeername6",
            Self::Send4 => "sendmsg4",
            Self::Send6 => "sendmsg6",
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
        }
    }

    pub const fn attach_type(self) -> bpf_attach_type {
        match self {
            Self::Received4 => bpf_attach_type::BPF_CGROUP_UDP4_RECVMSG,
            Self::Received6 => bpf_attach_type::BPF_CGROUP_UDP6_RECVMSG,
            Self::Peer4 => bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME,
            Self::Peer6 => bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME,
            Self::Send4 => bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG,
            Self::Send6 => bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG,
            Self::Connect4 => bpf_attach_type::BPF_CGROUP_INET4_CONNECT,
            Self::Connect6 => bpf_attach_type::BPF_CGROUP_INET6_CONNECT,
        }
    }

    /// The name of the pin of its link.
    pub fn pin_name(self) -> String {
        format!("socket-{}", self.program())
    }

    /// Parses the name of a pin.
    pub fn from_pin_name(name: &str) -> Option<Self> {
        let program = name.strip_prefix("socket-")?;
        Self::ALL.into_iter().find(|hook| hook.program() == program)
    }
}

/// The pinned links of the cgroup hooks.
pub struct SocketLinks {
    directory: PathBuf,
    attached: BTreeMap<SocketHook, OwnedFd>,
}

impl SocketLinks {
    pub const fn adopt(directory: PathBuf, attached: BTreeMap<SocketHook, OwnedFd>) -> Self {
        Self { directory, attached }
    }

    /// Gives a hook its program: swaps a program of ours, else attaches and pins a new link.
    /// `cgroup` may be missing if [`Self::is_complete`].
    pub fn attach(
        &mut self,
        hook: SocketHook,
        program: BorrowedFd<'_>,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<(), Error> {
        let failed = |source| Error::Attach { pin: hook.pin_name(), source };
        if let Some(link) = self.attached.get(&hook) {
            return sys::link_update(link.as_fd(), program).map_err(failed);
        }
        let cgroup = cgroup.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let link = sys::cgroup_attach(program, cgroup, hook.attach_type()).map_err(failed)?;
        sys::obj_pin(link.as_fd(), &self.directory.join(hook.pin_name())).map_err(failed)?;
        self.attached.insert(hook, link);
        Ok(())
    }

    /// Whether every hook has a program of ours.
    pub fn is_complete(&self) -> bool {
        self.attached.len() == SocketHook::ALL.len()
    }

    /// Detaches all programs, in the reverse order: no dial may be translated that is shown as its backend.
    pub fn detach(&mut self) -> Result<(), Error> {
        while let Some((hook, link)) = self.attached.pop_last() {
            let path = self.directory.join(hook.pin_name());
            detach_link(link.as_fd(), &path);
            remove_pin(&path)?;
        }
        Ok(())
    }
}

/// Where the root of the cgroup v2 tree is mounted; `mounts` is the text of /proc/self/mounts. In a container, the usual
/// mount may show only a part of the tree.
pub fn find_root(mounts: &str) -> Option<&Path> {
    /// The inode number of the root (`cgroup_setup_root` in kernel/cgroup/cgroup.c).
    const ROOT_INODE: u64 = 1;
    points(mounts, "cgroup2").find(|point| std::fs::metadata(point).is_ok_and(|folder| folder.ino() == ROOT_INODE))
}

/// Opens the root of the cgroup v2 tree.
pub fn open_root() -> io::Result<File> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    match find_root(&mounts) {
        Some(point) => File::open(point),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the root of the cgroup v2 tree is not mounted here (in a container, mount the node's /sys/fs/cgroup)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_name_says_which_hook_it_is() {
        for hook in SocketHook::ALL {
            assert_eq!(SocketHook::from_pin_name(&hook.pin_name()), Some(hook));
        }
        for name in ["", "socket-", "socket-connect5", "connect4", "workload-3-ingress"] {
            assert_eq!(SocketHook::from_pin_name(name), None, "{name}");
        }
    }

    #[test]
    fn hooks_are_sorted_in_the_order_of_attaching() {
        assert!(SocketHook::ALL.is_sorted());
    }
}
