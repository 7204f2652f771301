//! The rows of `frontend_ages`: since when a frontend balances. A frontend gets its row before one of its scopes begins
//! to balance, and loses the row after the last scope has stopped.

use std::collections::BTreeMap;

use lb_common::table::{FrontendAge, Scopes};

use crate::dataplane::Tables;

/// The rows that the scopes of `wanted` need. A row of `old` stays, unless a scope begins to balance.
pub fn ages(old: &Tables, wanted: &Tables, now_jiffies: u64) -> BTreeMap<u32, FrontendAge> {
    let balancing = wanted.scopes.iter().filter(|(_, scopes)| scopes.balances());
    let age = |(id, scopes): (&u32, &Scopes)| {
        let begins = scopes.begins_to_balance(old.scopes.get(id).unwrap_or(&Scopes::PASS));
        let known = old.frontend_ages.get(id).filter(|_| !begins);
        (*id, known.copied().unwrap_or(FrontendAge { balanced_jiffies: now_jiffies }))
    };
    balancing.map(age).collect()
}
