//! Worlds from text, for tests of the policy.

use std::collections::HashSet;

use crate::model::World;
use crate::source::dir::Folder;

/// The objects of a file, read as usual.
pub fn world(yaml: &str) -> World {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    std::fs::write(folder.path().join("a.yaml"), yaml).expect("the temporary folder is writable");
    let mut world = World::default();
    for change in Folder::open(folder.path()).expect("it was made").look(&HashSet::new()) {
        world.apply(change);
    }
    assert!(world.is_readable(), "{:?}", world.warnings().collect::<Vec<_>>());
    world
}
