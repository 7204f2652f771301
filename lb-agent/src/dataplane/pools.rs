//! The map `pools4` or `pools6`: an array, written and read through a mapped window.

use std::path::Path;

use lb_common::addr::Addr;
use lb_common::table::maps::Map;
use lb_common::table::{Backend, PoolElement, PoolKey};

use super::Error;
use super::mapped::{Array, Mapped};

/// The array.
pub struct PoolArray<A>(Array<PoolElement<A>>);

impl<A: Addr> PoolArray<A> {
    pub fn open(directory: &Path, map: Map<u32, PoolElement<A>>) -> Result<Self, Error> {
        Array::open(directory, map).map(Self)
    }

    /// Writes rows of pools that no scope refers to yet.
    pub fn upsert(&self, rows: &[(PoolKey, Backend<A>)]) -> Result<(), Error> {
        let mut window = None;
        for (key, Backend { addr, port }) in rows {
            // A pool has no more slots than a scope can count.
            let element = PoolElement { addr: *addr, port: *port, slot: key.slot as u16, pool: key.pool };
            self.look_at(*key, &mut window)?.store(key.element(), &element);
        }
        Ok(())
    }

    /// Clears rows of pools that no scope refers to any more. Elements that another pool has taken stay.
    pub fn delete(&self, keys: &[PoolKey]) -> Result<(), Error> {
        let mut window = None;
        let nobodys = PoolElement { addr: A::new_zeroed(), port: 0, slot: 0, pool: 0 };
        for key in keys {
            let window = self.look_at(*key, &mut window)?;
            if window.load(key.element()).is_some_and(|element| key_of(&element) == *key) {
                window.store(key.element(), &nobodys);
            }
        }
        Ok(())
    }

    /// All rows.
    pub fn dump(&self) -> Result<Vec<(PoolKey, Backend<A>)>, Error> {
        let (mut rows, mut index) = (Vec::new(), 0);
        while index < self.0.len() {
            let window = self.0.window(index)?;
            rows.extend(window.used().into_iter().filter_map(|(index, element)| {
                let key = key_of(&element);
                let backend = Backend { addr: element.addr, port: element.port };
                (key.pool != 0 && key.element() == index).then_some((key, backend))
            }));
            index = window.indexes().end;
        }
        Ok(rows)
    }

    /// Maps the window that holds the row's element. Rows are sorted, so most of them are in the current window.
    fn look_at<'a>(
        &self,
        key: PoolKey,
        window: &'a mut Option<Mapped<PoolElement<A>>>,
    ) -> Result<&'a Mapped<PoolElement<A>>, Error> {
        let index = key.element();
        let known = window.take().filter(|window| window.indexes().contains(&index));
        let found = known.map_or_else(|| self.0.window(index), Ok)?;
        Ok(window.insert(found))
    }
}

const fn key_of<A>(element: &PoolElement<A>) -> PoolKey {
    PoolKey { pool: element.pool, slot: element.slot as u32 }
}
