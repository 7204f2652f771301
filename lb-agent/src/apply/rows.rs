//! Performs one step with many rows: all at once, halved on failure, until each bad row has failed alone.

use crate::dataplane::{Dataplane, Error, Op};

/// The result for the rows of one step.
pub struct Outcome<R> {
    pub done: usize,
    pub failed: Vec<R>,
    pub errors: Vec<Error>,
}

/// Number of lone failures after which the rest is not tried: a dataplane that refuses this many refuses all.
const LONE_FAILURES_MAX: usize = 256;

/// Rows in one call: enough to make the cost of the call negligible, few enough to keep a copy of them small.
const ROWS_MAX: usize = 4_096;

/// Performs the rows and records those that succeeded.
pub fn perform_rows<R: Clone>(
    dataplane: &mut dyn Dataplane,
    rows: Vec<R>,
    op: impl Fn(Vec<R>) -> Op,
    mut record: impl FnMut(Vec<R>),
) -> Outcome<R> {
    let mut outcome = Outcome { done: 0, failed: Vec::new(), errors: Vec::new() };
    // A stack of the rows left to try, next on top.
    let mut left: Vec<Vec<R>> = rows.chunks(ROWS_MAX).rev().map(<[R]>::to_vec).collect();
    drop(rows);
    while let Some(rows) = left.pop() {
        if outcome.errors.len() >= LONE_FAILURES_MAX {
            outcome.failed.extend(rows);
            continue;
        }
        match dataplane.perform(&op(rows.clone())) {
            Ok(()) => {
                outcome.done += rows.len();
                record(rows);
            }
            Err(error) if rows.len() == 1 => {
                outcome.failed.extend(rows);
                outcome.errors.push(error);
            }
            Err(_) => {
                // Rows are independent of each other and may be written again, so halving isolates the bad ones.
                let (first, second) = rows.split_at(rows.len() / 2);
                left.push(second.to_vec());
                left.push(first.to_vec());
            }
        }
    }
    outcome
}
