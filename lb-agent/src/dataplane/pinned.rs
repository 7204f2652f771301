//! Opens pinned maps, and removes pins.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::Path;

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

/// Removes a pin. Succeeds if the pin does not exist.
pub fn remove_pin(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| Error::Path { op: "removing the pin", path: path.to_owned(), source }),
    }
}
