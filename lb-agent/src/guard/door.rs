//! The one door to the guard's table. The fake one stands in for the kernel in tests and can fail on purpose.

use std::io;

use super::GuardRows;

/// What is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Absent,
    /// A table of our name, but not as this version makes it.
    Foreign,
    Rows(GuardRows),
}

/// One transaction: done whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The table with these rows, whatever was there before.
    Replace(GuardRows),
    /// A table that is there gets and loses rows.
    Edit { add: GuardRows, remove: GuardRows },
    /// No table. One that is not there is as good as removed.
    Remove,
}

/// Reads and writes the table.
pub trait Door: Send {
    /// A number that any change of the rules of this network namespace changes, by whomever.
    fn generation(&mut self) -> io::Result<u32>;
    fn read(&mut self) -> io::Result<Found>;
    fn perform(&mut self, change: &Change) -> io::Result<()>;
}
