//! Garbage collection: flows that have been quiet for too long go before the table is full.
//!
//! Whoever looks for them looks at a copy of the table. A flow may have been touched since, so it is looked at once more
//! where it is deleted.

use crate::addr::{Addr, Proto};
use crate::flow;
use crate::forward::{Env, FlowRef, Tables, Work};
use crate::table::Counter;

/// Deletes the flow that has an entry under the key in `work`, both entries, unless either of them has been used lately.
/// Whether it did. Where the other half was lost, its tuple may be another flow's by now, and stays.
#[inline(never)]
pub fn collect<A: Addr, T: Tables<A>, E: Env>(tables: &T, env: &E, work: &mut Work<A>) -> bool {
    let proto = work.key.proto;
    let Some(entry) = tables.flow(&work.key) else { return false };
    entry.read_to(&mut work.to);
    work.partner_key.set_partner(&work.key, &work.to);
    if !is_expired(proto, entry, env) {
        return false;
    }
    let partner = tables.flow(&work.partner_key).filter(|partner| {
        partner.read_to(&mut work.flow.to);
        work.flow.to.is_reversed(&work.key.tuple)
    });
    if let Some(partner) = partner {
        if !is_expired(proto, partner, env) {
            return false;
        }
        tables.remove_flow(&work.partner_key);
    }
    tables.remove_flow(&work.key);
    tables.count(Counter::FlowCollected);
    true
}

#[inline(always)]
fn is_expired<A, E: Env>(proto: Proto, entry: impl FlowRef<A>, env: &E) -> bool {
    let quiet_jiffies = flow::quiet_jiffies(entry.last_seen_jiffies(), env.now_jiffies());
    flow::is_expired(proto, entry.state(), quiet_jiffies, &env.timeouts())
}
