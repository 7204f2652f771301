//! Opens pinned maps, and removes pins.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use lb_common::table::maps::Declaration;

use super::{Error, sys};

/// Opens the map that is pinned under this name in `directory`.
pub fn open_pin(directory: &Path, name: &str) -> Result<OwnedFd, Error> {
    let path = directory.join(name);
    sys::obj_get(&path).map_err(|source| Error::Path { op: "opening the pinned map", path, source })
}

/// As [`open_pin`]. `None` if nothing is pinned under this name.
pub fn find_pin(directory: &Path, name: &str) -> Result<Option<OwnedFd>, Error> {
    match open_pin(directory, name) {
        Ok(map) => Ok(Some(map)),
        Err(Error::Path { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the rows of a pinned map have the sizes that this version reads, if there is such a map. The kernel would write
/// rows of another size past their end.
pub fn has_declared_rows(directory: &Path, map: &Declaration) -> Result<bool, Error> {
    let Some(fd) = find_pin(directory, map.name)? else { return Ok(true) };
    let path = directory.join(map.name);
    let shape = sys::map_shape(fd.as_fd()).map_err(|source| Error::Path { op: "asking for", path, source })?;
    Ok((shape.key_size, shape.value_size) == (map.key_bytes, map.value_bytes))
}

/// Detaches a pinned link and removes its pin: the kernel gives up what a pin holds only after a grace period, and the
/// program would run until then. Succeeds if the pin does not exist.
pub fn remove_link(path: &Path) -> Result<(), Error> {
    match sys::obj_get(path) {
        Ok(link) => detach_link(link.as_fd(), path),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Path { op: "opening the pinned link", path: path.to_owned(), source }),
    }
    remove_pin(path)
}

/// Detaches a link whose pin is removed next. If that fails, the link is detached when its last reference is gone.
pub fn detach_link(link: BorrowedFd<'_>, path: &Path) {
    if let Err(error) = sys::link_detach(link) {
        tracing::debug!(%error, path = %path.display(), "the kernel does not detach the link at once");
    }
}

/// Removes a pin. Succeeds if the pin does not exist.
pub fn remove_pin(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| Error::Path { op: "removing the pin", path: path.to_owned(), source }),
    }
}
