//! The rows of `frontend_ages`: since when a frontend balances. A frontend gets its row before one of its scopes begins
//! to balance, and loses the row after the last scope has stopped.

use std::collections::BTreeMap;

use lb_common::table::{FrontendAge, Scopes};

use crate::dataplane::Tables;

/// The rows that the scopes of `wanted` need. A row of `old` stays, unless a scope begins to balance.
pub fn ages(old: &Tables, wanted: &Tables, now_jiffies: u64) -> BTreeMap<u32, FrontendAge> {
    let now = FrontendAge { balanced_jiffies: now_jiffies };
    known(old, wanted).map(|(id, age)| (id, age.unwrap_or(now))).collect()
}

/// Whether a row needs the time.
pub fn needs_time(old: &Tables, wanted: &Tables) -> bool {
    known(old, wanted).any(|(_, age)| age.is_none())
}

/// The frontends that are to balance, and the ages that they keep.
fn known<'a>(old: &'a Tables, wanted: &'a Tables) -> impl Iterator<Item = (u32, Option<FrontendAge>)> + 'a {
    let balancing = wanted.scopes.iter().filter(|(_, scopes)| scopes.balances());
    balancing.map(|(id, scopes)| {
        let begins = scopes.begins_to_balance(old.scopes.get(id).unwrap_or(&Scopes::PASS));
        (*id, old.frontend_ages.get(id).filter(|_| !begins).copied())
    })
}
