//! Maps without unused room in their nodes.
//!
//! A tree that was filled in the order of its keys has nodes that are little more than half full. Rebuilding it fills
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

/// Rebuilds a map with full nodes.
pub fn fill<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    *map = mem::take(map).into_iter().collect();
}

/// Rebuilds a set with full nodes.
pub fn fill_set<T: Ord>(set: &mut BTreeSet<T>) {
    *set = mem::take(set).into_iter().collect();
}
