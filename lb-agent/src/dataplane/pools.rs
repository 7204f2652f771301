//! The `pools` of a family: an array, written and read through a window.

use std::marker::PhantomData;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use lb_common::addr::Addr;
use lb_common::table::{Backend, PoolElement, PoolKey};

use super::Error;
use super::mapped::{Mapped, array_len};
use super::maps::open_pin;

/// The array.
pub struct PoolArray<A> {
    map: OwnedFd,
    name: &'static str,
    len: u32,
    family: PhantomData<A>,
}

impl<A: Addr> PoolArray<A> {
    pub fn open(directory: &Path, name: &'static str) -> Result<Self, Error> {
        let map = open_pin(directory, name)?;
        let len = array_len::<PoolElement<A>>(map.as_fd(), name)?;
        Ok(Self { map, name, len, family: PhantomData })
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
        while index < self.len {
            let window = self.window(index)?;
            rows.extend(window.used().into_iter().filter_map(|(index, element)| {
                let key = PoolKey { pool: element.pool, slot: element.slot.into() };
                let backend = Backend { addr: element.addr, port: element.port };
                (key.pool != 0 && key.element() == index).then_some((key, backend))
            }));
            index = window.indexes().end;
        }
        Ok(rows)
    }

    fn window(&self, index: u32) -> Result<Mapped<PoolElement<A>>, Error> {
        Mapped::window(self.map.as_fd(), self.name, self.len, index)
    }

    fn store(&self, elements: impl Iterator<Item = (u32, PoolElement<A>)>) -> Result<(), Error> {
        let mut window: Option<Mapped<PoolElement<A>>> = None;
        for (index, element) in elements {
            if index >= self.len {
                return Err(Error::Full { map: self.name, max: self.len, setting: "--backends-max" });
            }
            // Rows come in order: one window is enough for most.
            if window.as_ref().is_none_or(|window| !window.store(index, &element)) {
                let next = self.window(index)?;
                assert!(next.store(index, &element), "the window is that of the element");
                window = Some(next);
            }
        }
        Ok(())
    }
}
