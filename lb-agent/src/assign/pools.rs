//! The IDs of the pools of one family, found by content and by ID.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_common::table::Backend;

use crate::dense;

#[derive(Debug)]
pub struct Pools<A> {
    ids: BTreeMap<Arc<[Backend<A>]>, u32>,
    contents: BTreeMap<u32, Arc<[Backend<A>]>>,
}

impl<A> Default for Pools<A> {
    fn default() -> Self {
        Self { ids: BTreeMap::new(), contents: BTreeMap::new() }
    }
}

impl<A: Copy + Ord> Pools<A> {
    /// The ID of the pool with this content.
    pub fn id(&self, content: &[Backend<A>]) -> Option<u32> {
        self.ids.get(content).copied()
    }

    /// All pools, by ID.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Arc<[Backend<A>]>)> {
        self.contents.iter().map(|(id, content)| (*id, content))
    }

    /// Adds a pool. If its content has an ID already, it keeps that one.
    pub fn add(&mut self, content: &Arc<[Backend<A>]>, id: u32) {
        if self.id(content).is_none() {
            self.ids.insert(Arc::clone(content), id);
            self.contents.insert(id, Arc::clone(content));
        }
    }

    /// Removes a pool. Returns whether there was one.
    pub fn remove(&mut self, id: u32) -> bool {
        let content = self.contents.remove(&id);
        content.is_some_and(|content| self.ids.remove(&content).is_some())
    }

    /// Frees unused room.
    pub fn condense(&mut self) {
        dense::fill(&mut self.ids);
        dense::fill(&mut self.contents);
    }
}
