//! Decides which file an object comes from if several hold it: the first by name, then by document.
//!
//! A missing file comes last, because it may have been renamed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::file::{File, Presence};
use crate::model::{ObjectRef, Warning, WarningKind};

/// What was reported about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub file: Arc<str>,
    /// Hash of the object and its warnings.
    pub hash: u64,
}

impl Applied {
    /// The key of the parsed object in `Parsed`.
    pub fn key(&self, object: &ObjectRef) -> (Arc<str>, ObjectRef, u64) {
        (Arc::clone(&self.file), object.clone(), self.hash)
    }
}

/// The copy of each object that counts, and a warning for each other copy under the name of its file.
pub struct Holding {
    pub winners: BTreeMap<ObjectRef, Applied>,
    pub duplicates: Vec<(Arc<str>, Warning)>,
}

impl Holding {
    pub fn of(files: &BTreeMap<Arc<str>, File>) -> Self {
        let mut holding = Self { winners: BTreeMap::new(), duplicates: Vec::new() };
        let (there, missing): (Vec<_>, Vec<_>) = files.iter().partition(|(_, file)| file.presence == Presence::There);
        for (name, file) in there {
            for (number, (object, hash)) in file.objects() {
                match holding.winners.entry(object.clone()) {
                    Entry::Vacant(free) => drop(free.insert(Applied { file: Arc::clone(name), hash: *hash })),
                    Entry::Occupied(taken) => {
                        let warning = duplicate(object, &taken.get().file).in_document(&**name, number);
                        holding.duplicates.push((Arc::clone(name), warning));
                    }
                }
            }
        }
        for (name, file) in missing {
            for (_, (object, hash)) in file.objects() {
                let applied = || Applied { file: Arc::clone(name), hash: *hash };
                holding.winners.entry(object.clone()).or_insert_with(applied);
            }
        }
        holding
    }
}

fn duplicate(object: &ObjectRef, winner: &str) -> Warning {
    let problem = format!("is already in {winner}, which counts; this copy is ignored");
    Warning::new(WarningKind::Duplicate, problem, "keep one of them").of(object)
}
