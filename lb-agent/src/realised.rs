//! What the tables hold, as far as the agent knows, and what a change must know of the rows that it leaves alone.
//!
//! The tables `endpoints` and `addresses` follow from `members` and `frontends`, as [`Tables::derived`] says. The counts
//! tell which derived rows a change adds or makes superfluous, and which pools only changed scopes refer to, without a
//! look at the other rows.

mod referrers;
mod uses;

use std::ops::Deref;

pub use referrers::{Referrers, pools_of};
pub use uses::{Derived, FamilyCounts, FamilyUses, Named};

use crate::dataplane::{FamilyTables, Op, Tables};
use crate::dense;

/// What the tables hold.
#[derive(Clone, Debug)]
pub struct Realised {
    tables: Tables,
    uses: Uses,
    referrers: Referrers,
}

/// The uses of both families.
#[derive(Clone, Debug)]
pub struct Uses {
    pub v4: FamilyUses<[u8; 4]>,
    pub v6: FamilyUses<[u8; 16]>,
}

/// What is counted after a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub v4: FamilyCounts<[u8; 4]>,
    pub v6: FamilyCounts<[u8; 16]>,
}

impl Realised {
    /// Takes in tables that were read. `address_words` is the length of the tables of address bits.
    pub fn new(tables: Tables, address_words: u32) -> Self {
        let uses =
            Uses { v4: FamilyUses::of(&tables.v4, address_words), v6: FamilyUses::of(&tables.v6, address_words) };
        let referrers = Referrers::of(tables.scopes.values());
        Self { tables, uses, referrers }
    }

    /// Takes in tables that were read again.
    pub fn renew(&mut self, tables: Tables) {
        *self = Self::new(tables, self.uses.v4.address_words());
    }

    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    pub const fn uses(&self) -> &Uses {
        &self.uses
    }

    pub const fn referrers(&self) -> &Referrers {
        &self.referrers
    }

    /// Number of frontends that drain.
    pub fn draining(&self) -> usize {
        self.uses.v4.draining().len() + self.uses.v6.draining().len()
    }

    /// Frees unused room in the tables, which a full write leaves.
    pub fn condense(&mut self) {
        fn family<A: Ord>(tables: &mut FamilyTables<A>) {
            dense::fill(&mut tables.frontends);
            dense::fill(&mut tables.pools);
            dense::fill(&mut tables.members);
            dense::fill(&mut tables.endpoints);
            dense::fill(&mut tables.addresses);
        }
        family(&mut self.tables.v4);
        family(&mut self.tables.v6);
        dense::fill(&mut self.tables.scopes);
        dense::fill(&mut self.tables.frontend_ages);
    }

    /// Takes in a step that was done.
    pub fn record(&mut self, op: Op) {
        match &op {
            Op::V4(op) => self.uses.v4.record(op),
            Op::V6(op) => self.uses.v6.record(op),
            Op::Scopes(write) => self.referrers.record(write, &self.tables.scopes),
            Op::FrontendAges(_) | Op::Settle => {}
        }
        op.record(&mut self.tables);
    }

    /// Takes in that all steps of a plan were done. If any was not, the tables must be read again.
    pub fn settle(&mut self, counts: Counts) {
        self.uses.v4.settle(counts.v4);
        self.uses.v6.settle(counts.v6);
    }
}

impl Deref for Realised {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        &self.tables
    }
}
