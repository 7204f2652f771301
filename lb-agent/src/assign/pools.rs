//! The IDs of the pools of one family, found by content and by ID.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lb_common::addr::Addr;
use lb_common::table::Backend;

use crate::dense;

#[derive(Debug)]
pub struct Pools<A> {
    ids: HashMap<Arc<[Backend<A>]>, u32>,
    contents: BTreeMap<u32, Arc<[Backend<A>]>>,
}

impl<A> Default for Pools<A> {
    fn default() -> Self {
        Self { ids: HashMap::new(), contents: BTreeMap::new() }
    }
}

impl<A: Addr> Pools<A> {
    /// The ID of the pool with this content.
    pub fn id(&self, content: &[Backend<A>]) -> Option<u32> {
        self.ids.get(content).copied()
    }

    /// Makes room for so many further pools.
    pub fn reserve(&mut self, count: usize) {
        self.ids.reserve(count);
    }

    /// All pools, by ID.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Arc<[Backend<A>]>)> {
        self.contents.iter().map(|(id, content)| (*id, content))
    }

    /// The ID of the pool with this content, which is added with a new ID if there is none.
    pub fn id_or_add(&mut self, content: &Arc<[Backend<A>]>, new_id: impl FnOnce() -> u32) -> u32 {
        match self.ids.entry(Arc::clone(content)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(unknown) => {
                let id = *unknown.insert(new_id());
                self.contents.insert(id, Arc::clone(content));
                id
            }
        }
    }

    /// Removes a pool. Returns whether there was one.
    pub fn remove(&mut self, id: u32) -> bool {
        let content = self.contents.remove(&id);
        content.is_some_and(|content| self.ids.remove(&content).is_some())
    }

    /// Frees unused room.
    pub fn condense(&mut self) {
        self.ids.shrink_to_fit();
        dense::fill(&mut self.contents);
    }
}
