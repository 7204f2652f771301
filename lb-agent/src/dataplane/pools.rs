//! The `pools` of a family: an array, written and read through a window.

use std::path::Path;

use lb_common::addr::Addr;
use lb_common::table::{Backend, PoolElement, PoolKey};

use super::Error;
use super::mapped::{Array, Mapped};

/// The array.
pub struct PoolArray<A>(Array<PoolElement<A>>);

impl<A: Addr> PoolArray<A> {
    pub fn open(directory: &Path, name: &'static str) -> Result<Self, Error> {
        Array::open(directory, name).map(Self)
    }

    /// Writes rows of pools that no scope names yet.
    pub fn upsert(&self, rows: &[(PoolKey, Backend<A>)]) -> Result<(), Error> {
        let element = |key: &PoolKey, backend: &Backend<A>| PoolElement {
            addr: backend.addr,
            port: backend.port,
            // A pool has no more slots than a scope can count.
            slot: key.slot as u16,
            pool: key.pool,
        };
        self.store(rows.iter().map(|(key, backend)| (key.element(), element(key, backend))))
    }

    /// Removes rows of pools that no scope names any more.
    pub fn delete(&self, keys: &[PoolKey]) -> Result<(), Error> {
        let nobodys = PoolElement { addr: A::new_zeroed(), port: 0, slot: 0, pool: 0 };
        self.store(keys.iter().map(|key| (key.element(), nobodys)))
    }

    /// All rows.
    pub fn dump(&self) -> Result<Vec<(PoolKey, Backend<A>)>, Error> {
        let (mut rows, mut index) = (Vec::new(), 0);
        while index < self.0.len() {
            let window = self.0.window(index)?;
            rows.extend(window.used().into_iter().filter_map(|(index, element)| {
                let key = PoolKey { pool: element.pool, slot: element.slot.into() };
                let backend = Backend { addr: element.addr, port: element.port };
                (key.pool != 0 && key.element() == index).then_some((key, backend))
            }));
            index = window.indexes().end;
        }
        Ok(rows)
    }

    fn store(&self, elements: impl Iterator<Item = (u32, PoolElement<A>)>) -> Result<(), Error> {
        let mut window: Option<Mapped<PoolElement<A>>> = None;
        for (index, element) in elements {
            if index >= self.0.len() {
                return Err(Error::Full { map: self.0.name(), max: self.0.len(), setting: "--backends-max" });
            }
            // Rows come in order: one window is enough for most.
            if window.as_ref().is_none_or(|window| !window.store(index, &element)) {
                let next = self.0.window(index)?;
                assert!(next.store(index, &element), "the window is that of the element");
                window = Some(next);
            }
        }
        Ok(())
    }
}
