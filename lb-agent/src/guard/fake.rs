//! A table in memory that can fail on purpose, and that tests can change behind the keeper's back.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Change, Door, Found};

/// The table, shared by the keeper and the test.
#[derive(Clone, Debug)]
pub struct FakeTable(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    found: Found,
    generation: u32,
    is_broken: bool,
    has_kube_proxy: bool,
    changes: Vec<Change>,
    reads: usize,
}

impl Default for FakeTable {
    fn default() -> Self {
        let state = State {
            found: Found::Absent,
            generation: 1,
            is_broken: false,
            has_kube_proxy: false,
            changes: Vec::new(),
            reads: 0,
        };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl FakeTable {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The current state of the table.
    pub fn found(&self) -> Found {
        self.with(|state| state.found.clone())
    }

    /// Changes the table as another program would.
    pub fn meddle(&self, found: Found) {
        self.with(|state| {
            state.found = found;
            state.generation += 1;
        });
    }

    /// Adds or removes the rules of a kube-proxy.
    pub fn set_kube_proxy(&self, is_there: bool) {
        self.with(|state| {
            state.has_kube_proxy = is_there;
            state.generation += 1;
        });
    }

    /// Makes every following call fail, or succeed again.
    pub fn set_broken(&self, is_broken: bool) {
        self.with(|state| state.is_broken = is_broken);
    }

    /// The changes since the last call.
    pub fn changes(&self) -> Vec<Change> {
        self.with(|state| std::mem::take(&mut state.changes))
    }

    /// The number of reads since the last call.
    pub fn reads(&self) -> usize {
        self.with(|state| std::mem::take(&mut state.reads))
    }

    fn call<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.with(|state| if state.is_broken { Err(io::ErrorKind::Unsupported.into()) } else { work(state) })
    }
}

impl Door for FakeTable {
    fn generation(&mut self) -> io::Result<u32> {
        self.call(|state| Ok(state.generation))
    }

    fn read(&mut self) -> io::Result<Found> {
        self.call(|state| {
            state.reads += 1;
            Ok(state.found.clone())
        })
    }

    fn has_kube_proxy(&mut self) -> io::Result<bool> {
        self.call(|state| Ok(state.has_kube_proxy))
    }

    fn perform(&mut self, change: &Change) -> io::Result<()> {
        self.call(|state| {
            let found = match (change, &state.found) {
                (Change::Remove, _) => Found::Absent,
                (Change::Replace(rows), _) => Found::Rows(rows.clone()),
                // Like the kernel, refuses to edit a missing table and to remove missing rows.
                (Change::Edit { remove, .. }, Found::Rows(rows)) if *remove != rows.without(&rows.without(remove)) => {
                    return Err(io::ErrorKind::NotFound.into());
                }
                (Change::Edit { add, remove }, Found::Rows(rows)) => Found::Rows(rows.without(remove).with(add)),
                (Change::Edit { .. }, _) => return Err(io::ErrorKind::NotFound.into()),
            };
            state.found = found;
            state.generation += 1;
            state.changes.push(change.clone());
            Ok(())
        })
    }
}
