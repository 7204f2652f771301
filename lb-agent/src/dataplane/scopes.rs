//! The `scopes` map, written through its memory mapping: a scope is switched by one store.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::{NonNull, addr_of, addr_of_mut};

use lb_common::table::{Scope, Scopes};

/// The mapped array.
pub struct ScopeArray {
    elements: NonNull<Scopes>,
    len: u32,
}

// SAFETY: the mapping belongs to this value alone; it may move between threads.
unsafe impl Send for ScopeArray {}

impl ScopeArray {
    /// Maps the array of `len` elements that `map` is.
    pub fn map(map: BorrowedFd<'_>, len: u32) -> Result<Self> {
        // SAFETY: a new mapping of the map's own length, shared with the kernel.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::bytes(len),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let elements = NonNull::new(address.cast()).ok_or_else(|| Error::other("mmap returned null"))?;
        Ok(Self { elements, len })
    }

    const fn bytes(len: u32) -> usize {
        len as usize * size_of::<Scopes>()
    }

    pub const fn len(&self) -> u32 {
        self.len
    }

    fn element(&self, id: u32) -> Option<*mut Scopes> {
        // SAFETY: the index was checked against the length of the mapping.
        (id < self.len).then(|| unsafe { self.elements.as_ptr().add(id as usize) })
    }

    /// The element of a frontend.
    pub fn get(&self, id: u32) -> Option<Scopes> {
        let element = self.element(id)?;
        // SAFETY: the element lies in the mapping; only this process writes it, each word by one store.
        unsafe {
            let scope = |scope: *const Scope| Scope::from_word(scope.cast::<u64>().read_volatile());
            Some(Scopes {
                workload: scope(addr_of!((*element).workload)),
                host: scope(addr_of!((*element).host)),
                external: scope(addr_of!((*element).external)),
                service_port: addr_of!((*element).service_port).read_volatile(),
                affinity_secs: addr_of!((*element).affinity_secs).read_volatile(),
                flags: addr_of!((*element).flags).read_volatile(),
                pad: 0,
            })
        }
    }

    /// Switches the element of a frontend: first what the scopes are read together with, then each scope by one store.
    /// False where there is no such element.
    #[must_use]
    pub fn store(&mut self, id: u32, scopes: &Scopes) -> bool {
        let Some(element) = self.element(id) else { return false };
        // SAFETY: the element lies in the mapping; every store is of one aligned word.
        unsafe {
            addr_of_mut!((*element).service_port).write_volatile(scopes.service_port);
            addr_of_mut!((*element).affinity_secs).write_volatile(scopes.affinity_secs);
            addr_of_mut!((*element).flags).write_volatile(scopes.flags);
            std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
            let store = |target: *mut Scope, scope: Scope| target.cast::<u64>().write_volatile(scope.to_word());
            store(addr_of_mut!((*element).workload), scopes.workload);
            store(addr_of_mut!((*element).host), scopes.host);
            store(addr_of_mut!((*element).external), scopes.external);
        }
        true
    }
}

impl Drop for ScopeArray {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made, of the same length. It cannot fail on those.
        unsafe { libc::munmap(self.elements.as_ptr().cast(), Self::bytes(self.len)) };
    }
}
