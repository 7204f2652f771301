//! The map `scopes`, written through its memory mapping: one store switches a scope.

use std::path::Path;
use std::ptr::{addr_of, addr_of_mut};

use lb_common::table::maps::SHARED;
use lb_common::table::{Scope, Scopes};

use super::Error;
use super::mapped::{Array, Mapped};

/// The mapped array.
pub struct ScopeArray(Mapped<Scopes>);

impl ScopeArray {
    pub fn open(directory: &Path) -> Result<Self, Error> {
        Array::open(directory, SHARED.scopes)?.all().map(Self)
    }

    pub fn len(&self) -> u32 {
        self.0.indexes().end
    }

    /// The element of a frontend.
    pub fn get(&self, id: u32) -> Option<Scopes> {
        let element = self.0.element(id)?;
        // SAFETY: the element lies in the mapping. Only this process writes it, each word by one store.
        unsafe {
            let scope = |scope: *const Scope| Scope::from_word(scope.cast::<u64>().read_volatile());
            Some(Scopes {
                workload: scope(addr_of!((*element).workload)),
                host: scope(addr_of!((*element).host)),
                external: scope(addr_of!((*element).external)),
                service_port: addr_of!((*element).service_port).read_volatile(),
                affinity_secs: addr_of!((*element).affinity_secs).read_volatile(),
                source_ranges: addr_of!((*element).source_ranges).read_volatile(),
                owner: addr_of!((*element).owner).read_volatile(),
            })
        }
    }

    /// Switches the element of a frontend: first the fields that are read with the scopes, then each scope by one
    /// store. Returns false if the element does not exist.
    #[must_use]
    pub fn store(&mut self, id: u32, scopes: &Scopes) -> bool {
        let Some(element) = self.0.element(id) else { return false };
        // SAFETY: the element lies in the mapping, and every store is of one aligned word.
        unsafe {
            addr_of_mut!((*element).service_port).write_volatile(scopes.service_port);
            addr_of_mut!((*element).affinity_secs).write_volatile(scopes.affinity_secs);
            addr_of_mut!((*element).source_ranges).write_volatile(scopes.source_ranges);
            addr_of_mut!((*element).owner).write_volatile(scopes.owner);
            std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
            let store = |target: *mut Scope, scope: Scope| target.cast::<u64>().write_volatile(scope.to_word());
            store(addr_of_mut!((*element).workload), scopes.workload);
            store(addr_of_mut!((*element).host), scopes.host);
            store(addr_of_mut!((*element).external), scopes.external);
        }
        true
    }
}
