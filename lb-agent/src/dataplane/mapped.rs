//! An array map of the kernel in this process's own memory: an element is written without a system call.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::ptr::NonNull;

use super::maps::open_pin;
use super::{Error, sys};

/// The mapped array. Programs read it meanwhile, and others may map it, too: elements are reached by pointers only.
pub struct Mapped<T> {
    elements: NonNull<u8>,
    len: u32,
    element: PhantomData<*mut T>,
}

// SAFETY: the mapping belongs to this value alone; it may move between threads.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T> Mapped<T> {
    /// From one element to the next, as the kernel lays them out (`array_map_alloc` in kernel/bpf/arraymap.c).
    const STRIDE_BYTES: usize = size_of::<T>().next_multiple_of(8);

    /// Maps the array that is pinned in `directory`.
    pub fn open(directory: &Path, name: &str) -> Result<Self, Error> {
        let map = open_pin(directory, name)?;
        let mapping = |source| Error::Kernel { what: format!("mapping table {name}"), source };
        let shape = sys::map_shape(map.as_fd()).map_err(mapping)?;
        if shape.value_size as usize != size_of::<T>() {
            let found = format!("elements of {} bytes instead of {}", shape.value_size, size_of::<T>());
            return Err(mapping(io::Error::other(found)));
        }
        let len = shape.max_entries;
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
            return Err(mapping(io::Error::last_os_error()));
        }
        let elements = NonNull::new(address.cast()).ok_or_else(|| mapping(io::Error::other("mmap returned null")))?;
        Ok(Self { elements, len, element: PhantomData })
    }

    const fn bytes(len: u32) -> usize {
        len as usize * Self::STRIDE_BYTES
    }

    pub const fn len(&self) -> u32 {
        self.len
    }

    /// The element at `index`; good for as long as the mapping, and aligned to eight bytes.
    pub fn element(&self, index: u32) -> Option<*mut T> {
        // SAFETY: the index was checked against the length of the mapping.
        (index < self.len).then(|| unsafe { self.elements.as_ptr().add(Self::bytes(index)).cast() })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` made, of the same length. It cannot fail on those.
        unsafe { libc::munmap(self.elements.as_ptr().cast(), Self::bytes(self.len)) };
    }
}
