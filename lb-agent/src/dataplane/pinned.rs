//! Opens a pinned map.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::{Error, sys};

/// Opens the map that is pinned under this name in `directory`.
pub fn open_pin(directory: &Path, name: &str) -> Result<OwnedFd, Error> {
    let path = directory.join(name);
    sys::obj_get(&path).map_err(|source| Error::Path { op: "opening the pinned map", path, source })
}
