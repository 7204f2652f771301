//! Performs one step with many rows: in parts, halved on failure, until each bad row has failed alone.

use std::ops::Range;

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
const ROWS_MAX: usize = 16_384;

/// Performs the rows and records all that succeeded as one step.
pub fn perform_rows<K: Clone, V: Clone>(
    dataplane: &mut dyn Dataplane,
    write: Write<K, V>,
    op: impl Fn(Write<K, V>) -> Op,
    record: impl FnOnce(Op),
) -> Outcome<K> {
    let (mut failed, mut errors) = (Vec::new(), Vec::new());
    // A stack of the rows left to try, next on top.
    let mut left = parts(0..write.len(), ROWS_MAX);
    while let Some(rows) = left.pop() {
        if errors.len() >= LONE_FAILURES_MAX {
            failed.extend(rows);
            continue;
        }
        match dataplane.perform(&op(write.part(rows.clone()))) {
            Ok(()) => {}
            Err(error) if rows.len() == 1 => {
                failed.extend(rows);
                errors.push(error);
            }
            // Rows are independent of each other and may be written again, so halving isolates the bad ones.
            Err(_) => {
                let half = rows.len().div_ceil(2);
                left.extend(parts(rows, half));
            }
        }
    }
    let (write, failed) = write.without(&failed);
    let done = write.len();
    if done > 0 {
        record(op(write));
    }
    Outcome { done, failed, errors }
}

/// The rows in parts of at most so many, the last part first.
fn parts(rows: Range<usize>, rows_max: usize) -> Vec<Range<usize>> {
    let parts = rows.clone().step_by(rows_max.max(1)).map(|first| first..rows.end.min(first + rows_max));
    parts.rev().collect()
}
