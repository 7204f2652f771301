//! Performs one step with many rows: all at once, halved on failure, until each bad row has failed alone.

use crate::dataplane::{Dataplane, Error, Op, Write};

/// The result for the rows of one step.
pub struct Outcome<K> {
    pub done: usize,
    /// The keys of the rows that failed.
    pub failed: Vec<K>,
    pub errors: Vec<Error>,
}

/// Number of lone failures after which the rest is not tried: a dataplane that refuses this many refuses all.
const LONE_FAILURES_MAX: usize = 256;

/// Rows in one call: enough to make the cost of the call negligible, few enough to keep a copy of them small.
const ROWS_MAX: usize = 4_096;

/// Performs the rows and records those that succeeded.
pub fn perform_rows<K: Clone, V: Clone>(
    dataplane: &mut dyn Dataplane,
    write: Write<K, V>,
    op: impl Fn(Write<K, V>) -> Op,
    mut record: impl FnMut(Op),
) -> Outcome<K> {
    let mut outcome = Outcome { done: 0, failed: Vec::new(), errors: Vec::new() };
    // A stack of the rows left to try, next on top.
    let mut left = write.into_parts(ROWS_MAX);
    left.reverse();
    while let Some(write) = left.pop() {
        if outcome.errors.len() >= LONE_FAILURES_MAX {
            outcome.failed.extend(write.keys().cloned());
            continue;
        }
        let (rows, step) = (write.len(), op(write.clone()));
        match dataplane.perform(&step) {
            Ok(()) => {
                outcome.done += rows;
                record(step);
            }
            Err(error) if rows == 1 => {
                outcome.failed.extend(write.keys().cloned());
                outcome.errors.push(error);
            }
            // Rows are independent of each other and may be written again, so halving isolates the bad ones.
            Err(_) => left.extend(write.into_parts(rows.div_ceil(2)).into_iter().rev()),
        }
    }
    outcome
}
