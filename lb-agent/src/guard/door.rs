//! The only access to the guard's table. A fake replaces the kernel in tests and can fail on purpose.

use std::io;

use super::GuardRows;

/// The state of the table in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Absent,
    /// A table of our name that does not have the structure of this version.
    Foreign,
    Rows(GuardRows),
}

/// A change, made as one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Makes the table with these rows, and replaces any that exists.
    Replace(GuardRows),
    /// Adds and removes rows of an existing table.
    Edit { add: GuardRows, remove: GuardRows },
    /// Removes the table. Succeeds if there is none.
    Remove,
}

/// Reads and writes the table.
pub trait Door: Send {
    /// The generation of the rules. Every change of any rule in this network namespace changes it.
    fn generation(&mut self) -> io::Result<u32>;
    fn read(&mut self) -> io::Result<Found>;
    /// Whether a kube-proxy has rules in this network namespace.
    fn has_kube_proxy(&mut self) -> io::Result<bool>;
    fn perform(&mut self, change: &Change) -> io::Result<()>;
}
