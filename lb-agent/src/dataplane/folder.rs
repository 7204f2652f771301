//! The pin folder, held by a descriptor: no user but ours and root can replace its contents.
//!
//! Every component of the path is opened relative to the previous one, and none may be a symbolic link, so the checked
//! folder is the used folder. Afterwards the path is as safe as the descriptor: no other user can rename or replace a
//! part of it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::geteuid;

use super::mounts::USUAL_BPFFS;
use super::{Distrust, Error, Refusal, sys};

/// A folder that only this user and root can change.
pub struct Folder {
    path: PathBuf,
    fd: OwnedFd,
}

impl Folder {
    /// Opens the folder; `None` if it does not exist. Refuses a folder that others can write to, or that is on no BPF
    /// file system.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        let place = Place::find(path)?;
        if !place.missing.is_empty() {
            return Ok(None);
        }
        place.into_folder().map(Some)
    }

    /// Opens the folder, or makes it. Mounts a BPF file system if there is none.
    pub fn make(path: &Path) -> Result<Self, Error> {
        let mut place = Place::find(path)?;
        if place.missing.is_empty() {
            place.require_private()?;
        }
        if !place.is_bpffs()? {
            place.require_usual(path)?;
            sys::mount_bpffs(Path::new(USUAL_BPFFS))
                .map_err(|source| failed("mounting a BPF file system on", Path::new(USUAL_BPFFS), source))?;
            place = Place::find(path)?;
        }
        for name in std::mem::take(&mut place.missing) {
            place = place.make(&name)?;
        }
        let folder = place.into_folder()?;
        folder.shut()?;
        Ok(folder)
    }

    /// Makes a folder in this one if it does not exist. Refuses the same as [`Folder::inner`].
    pub fn make_inner(&self, name: &str) -> Result<(), Error> {
        match mkdirat(&self.fd, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => self.inner(name).map(drop),
            Err(error) => Err(failed("creating", &self.path.join(name), error)),
        }
    }

    /// Whether this folder has a folder of that name. Refuses another kind of file, and a folder that others can write
    /// to.
    pub fn inner(&self, name: &str) -> Result<bool, Error> {
        let place = Place { path: self.path.clone(), fd: duplicate(&self.fd, &self.path)?, missing: Vec::new() };
        match place.enter(name.as_ref())? {
            Some(inner) => inner.require_private().map(|()| true),
            None => Ok(false),
        }
    }

    /// Takes the lock for as long as the descriptor lives; `WouldBlock` if another process holds it.
    pub fn lock(self) -> io::Result<OwnedFd> {
        sys::lock(self.fd.as_fd())?;
        Ok(self.fd)
    }

    /// Removes the rights of others: a descriptor for reading would be enough to hold the lock.
    fn shut(&self) -> Result<(), Error> {
        let stat = fstat(&self.fd).map_err(|error| failed("looking at", &self.path, error))?;
        if permissions(&stat) & 0o077 != 0 {
            fchmod(&self.fd, Mode::S_IRWXU).map_err(|error| failed("changing the mode of", &self.path, error))?;
        }
        Ok(())
    }
}

/// The kind of file at a path in a folder of ours. Symbolic links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// A pin of ours or of root.
    Pin,
    Link,
    Folder,
    /// A file of another owner, or of a kind that a BPF file system cannot hold.
    Other,
}

/// Looks at a name in a folder of ours.
pub fn look(path: &Path) -> Result<Found, Error> {
    use std::os::unix::fs::MetadataExt as _;
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        found => found.map_err(|source| failed("looking at", path, source))?,
    };
    let is_ours = found.uid() == 0 || found.uid() == geteuid().as_raw();
    Ok(match found.file_type() {
        kind if kind.is_symlink() => Found::Link,
        kind if kind.is_dir() => Found::Folder,
        kind if kind.is_file() && is_ours => Found::Pin,
        _ => Found::Other,
    })
}

/// The deepest existing folder of a path, and the components that are missing below it.
struct Place {
    path: PathBuf,
    /// Opened with `O_PATH`: it names the folder but cannot read it.
    fd: OwnedFd,
    /// Components that do not exist.
    missing: Vec<OsString>,
}

impl Place {
    /// Opens the path as far as its folders exist.
    fn find(path: &Path) -> Result<Self, Error> {
        let root = Path::new("/");
        let fd = nix::fcntl::open(root, walking(), Mode::empty()).map_err(|error| failed("opening", root, error))?;
        let mut place = Self { path: root.to_owned(), fd, missing: Vec::new() };
        let mut names = plain_names(path)?.into_iter();
        while let Some(name) = names.next() {
            place.require_ours()?;
            let Some(next) = place.enter(&name)? else {
                place.missing = [name].into_iter().chain(names).collect();
                break;
            };
            place = next;
        }
        Ok(place)
    }

    /// Opens a folder in this one. A symbolic link is refused.
    fn enter(&self, name: &std::ffi::OsStr) -> Result<Option<Self>, Error> {
        let path = self.path.join(name);
        match openat(&self.fd, name, walking(), Mode::empty()) {
            Ok(fd) => Ok(Some(Self { path, fd, missing: Vec::new() })),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                let stat = fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW);
                let is_link = stat.is_ok_and(|stat| kind(&stat) == SFlag::S_IFLNK);
                Err(if is_link { Distrust::Link { path } } else { Distrust::NoFolder { path } }.into())
            }
            Err(error) => Err(failed("opening", &path, error)),
        }
    }

    fn make(self, name: &OsString) -> Result<Self, Error> {
        let path = self.path.join(name);
        match mkdirat(&self.fd, name.as_os_str(), Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(failed("creating", &path, error)),
        }
        let made = self.enter(name)?;
        made.ok_or_else(|| failed("opening", &path, Errno::ENOENT))
    }

    fn into_folder(self) -> Result<Folder, Error> {
        self.require_private()?;
        if !self.is_bpffs()? {
            return Err(no_bpffs(&self.path));
        }
        let fd = openat(&self.fd, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|error| failed("opening", &self.path, error))?;
        Ok(Folder { path: self.path, fd })
    }

    fn is_bpffs(&self) -> Result<bool, Error> {
        sys::is_bpffs(self.fd.as_fd()).map_err(|source| failed("asking for the file system of", &self.path, source))
    }

    /// Refuses a path on another file system, if it is not below the usual mount point of a BPF file system.
    fn require_usual(&self, path: &Path) -> Result<(), Error> {
        let is_usual = path.starts_with(USUAL_BPFFS) && self.path == Path::new(USUAL_BPFFS);
        if is_usual { Ok(()) } else { Err(no_bpffs(path)) }
    }

    /// Refuses a folder of another user, and one in which others can rename our files.
    fn require_ours(&self) -> Result<(), Error> {
        let stat = self.owned_stat()?;
        let mode = permissions(&stat);
        let others = if stat.st_gid == 0 { 0o002 } else { 0o022 };
        if mode & others != 0 && mode & 0o1000 == 0 {
            return Err(Distrust::Replaceable { path: self.path.clone(), mode }.into());
        }
        Ok(())
    }

    /// Refuses a folder of another user, and one that others can write to.
    fn require_private(&self) -> Result<(), Error> {
        let mode = permissions(&self.owned_stat()?);
        if mode & 0o022 != 0 {
            return Err(Distrust::Writable { path: self.path.clone(), mode }.into());
        }
        Ok(())
    }

    fn owned_stat(&self) -> Result<FileStat, Error> {
        let stat = fstat(&self.fd).map_err(|error| failed("looking at", &self.path, error))?;
        let (uid, ours) = (stat.st_uid, geteuid().as_raw());
        if uid != 0 && uid != ours {
            return Err(Distrust::Owner { path: self.path.clone(), uid }.into());
        }
        Ok(stat)
    }
}

const fn walking() -> OFlag {
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC)
}

fn duplicate(fd: &OwnedFd, path: &Path) -> Result<OwnedFd, Error> {
    fd.try_clone().map_err(|source| failed("opening", path, source))
}

/// The components of the absolute path. `..` is resolved textually, which is right because no component may be a link.
fn plain_names(path: &Path) -> Result<Vec<OsString>, Error> {
    let path = std::path::absolute(path).map_err(|source| failed("reading the path", path, source))?;
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::ParentDir => drop(names.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(names)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

const fn permissions(stat: &FileStat) -> u32 {
    stat.st_mode & 0o7777
}

fn no_bpffs(path: &Path) -> Error {
    Refusal::NoBpffs { path: path.to_owned() }.into()
}

fn failed(op: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
    Error::Path { op, path: path.to_owned(), source: source.into() }
}

/// The paths in a directory; empty if the directory does not exist.
pub fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let reading = |source| failed("reading", directory, source);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(reading)?,
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().map_err(reading)?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
