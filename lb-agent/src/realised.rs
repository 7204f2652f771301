//! What the tables hold, as far as the agent knows, and how many rows name each endpoint and each address bit.
//!
//! The tables `endpoints` and `addresses` follow from `members` and `frontends`, as [`Tables::derived`] says. The counts
//! tell which derived rows a change adds or makes superfluous, without a look at the other rows.

mod uses;

use std::ops::Deref;

pub use uses::{Derived, FamilyUses, Named};

use crate::dataplane::{FamilyTables, Op, Tables};
use crate::dense;

/// What the tables hold.
#[derive(Clone, Debug)]
pub struct Realised {
    tables: Tables,
    uses: Uses,
}

/// The counts of both families.
#[derive(Clone, Debug)]
pub struct Uses {
    pub v4: FamilyUses<[u8; 4]>,
    pub v6: FamilyUses<[u8; 16]>,
}

impl Realised {
    /// Takes in tables that were read. `address_words` is the length of the tables of address bits.
    pub fn new(tables: Tables, address_words: u32) -> Self {
        let uses =
            Uses { v4: FamilyUses::of(&tables.v4, address_words), v6: FamilyUses::of(&tables.v6, address_words) };
        Self { tables, uses }
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

    /// Frees unused room in the tables, which a full write leaves.
    pub fn condense(&mut self) {
        fn family<A: Ord>(tables: &mut FamilyTables<A>) {
            dense::fill(&mut tables.frontends);
            dense::fill(&mut tables.pools);
            dense::fill(&mut tables.members);
            dense::fill(&mut tables.endpoints);
        }
        family(&mut self.tables.v4);
        family(&mut self.tables.v6);
        dense::fill(&mut self.tables.scopes);
        dense::fill(&mut self.tables.frontend_ages);
    }

    /// Takes in a step that was done.
    pub fn record(&mut self, op: Op) {
        match &op {
            Op::V4(op) => self.uses.v4.count(op, &self.tables.v4),
            Op::V6(op) => self.uses.v6.count(op, &self.tables.v6),
            Op::Scopes(_) | Op::FrontendAges(_) | Op::Settle => {}
        }
        op.record(&mut self.tables);
    }

    /// Takes in that all steps of a plan were done.
    pub fn set_right(&mut self) {
        self.uses.v4.set_right();
        self.uses.v6.set_right();
    }
}

impl Deref for Realised {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        &self.tables
    }
}
