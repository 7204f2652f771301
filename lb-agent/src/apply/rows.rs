//! One step with many rows: all at once while it works, halved where it does not, until the bad rows stand alone.

use crate::dataplane::{Dataplane, Error, Op};

/// What became of the rows of one step.
pub struct Outcome<R> {
    pub done: usize,
    pub failed: Vec<R>,
    pub errors: Vec<Error>,
}

/// Rows that are tried alone before the rest is given up: a dataplane that refuses this many refuses all.
const LONE_FAILURES_MAX: usize = 256;

/// Rows in one call: enough that the call costs nothing, few enough that a copy of them is small.
const ROWS_MAX: usize = 4_096;

/// Performs the rows and records those that succeeded.
pub fn perform_rows<R: Clone>(
    dataplane: &mut dyn Dataplane,
    rows: Vec<R>,
    op: impl Fn(Vec<R>) -> Op,
    mut record: impl FnMut(Vec<R>),
) -> Outcome<R> {
    let mut outcome = Outcome { done: 0, failed: Vec::new(), errors: Vec::new() };
    // A stack of what is left to try, next on top.
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
                // Rows are independent of each other and may be written again: the bad ones fail alone in the end.
                let (first, second) = rows.split_at(rows.len() / 2);
                left.push(second.to_vec());
                left.push(first.to_vec());
            }
        }
    }
    outcome
}
