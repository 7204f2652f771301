//! Array maps of which all or a part is mapped into this process, so that elements are read and written without system
//! calls.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use lb_common::table::TableType;
use lb_common::table::maps::Map;

use super::pinned::open_pin;
use super::{Error, sys};

/// Elements per window. Whatever the size of an element is, a window is a whole number of pages of up to 64 KiB. The
/// kernel maps all pages of a window at once, so a small window keeps the change of a few elements cheap.
const WINDOW_ELEMENTS: u32 = 1 << 13;

/// An array map with elements of one type.
pub struct Array<T> {
    map: OwnedFd,
    name: &'static str,
    len: u32,
    element: PhantomData<T>,
}

impl<T> Array<T> {
    /// Opens the map that is pinned in `directory`.
    pub fn open(directory: &Path, map: Map<u32, T>) -> Result<Self, Error> {
        let name = map.name();
        let map = open_pin(directory, name)?;
        let opening = |source| Error::Table { op: "asking for", map: name, source };
        let shape = sys::map_shape(map.as_fd()).map_err(opening)?;
        if shape.value_size as usize != size_of::<T>() {
            let found = format!("elements of {} bytes instead of {}", shape.value_size, size_of::<T>());
            return Err(opening(io::Error::other(found)));
        }
        Ok(Self { map, name, len: shape.max_entries, element: PhantomData })
    }

    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Maps the whole array. While it is mapped, it counts as memory of this process.
    pub fn all(&self) -> Result<Mapped<T>, Error> {
        Mapped::map(self.map.as_fd(), self.name, 0..self.len)
    }

    /// Maps the window that holds the element at `index`.
    pub fn window(&self, index: u32) -> Result<Mapped<T>, Error> {
        if index >= self.len {
            return Err(Error::Full { map: self.name, max: self.len, setting: "--backends-max" });
        }
        let start = index - index % WINDOW_ELEMENTS;
        Mapped::map(self.map.as_fd(), self.name, start..self.len.min(start + WINDOW_ELEMENTS))
    }
}

/// Mapped elements. They are reached only by pointers, because programs read them at the same time and others may map
/// them too.
pub struct Mapped<T> {
    address: NonNull<u8>,
    indexes: Range<u32>,
    element: PhantomData<*mut T>,
}

// SAFETY: the mapping belongs to this value alone, so it may move between threads.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T> Mapped<T> {
    /// Bytes from one element to the next, as the kernel lays them out (`array_map_alloc` in kernel/bpf/arraymap.c).
    const STRIDE_BYTES: usize = size_of::<T>().next_multiple_of(8);

    fn map(map: BorrowedFd<'_>, name: &'static str, indexes: Range<u32>) -> Result<Self, Error> {
        let mapping = |source| Error::Table { op: "mapping", map: name, source };
        let offset = Self::bytes(indexes.start).try_into().map_err(|_| mapping(io::ErrorKind::FileTooLarge.into()))?;
        // SAFETY: this makes a new mapping of a part of the map, shared with the kernel.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::bytes(indexes.end - indexes.start),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                offset,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(mapping(io::Error::last_os_error()));
        }
        let address = NonNull::new(address.cast()).ok_or_else(|| mapping(io::Error::other("mmap returned null")))?;
        Ok(Self { address, indexes, element: PhantomData })
    }

    const fn bytes(len: u32) -> usize {
        len as usize * Self::STRIDE_BYTES
    }

    /// The indexes of the mapped elements.
    pub fn indexes(&self) -> Range<u32> {
        self.indexes.clone()
    }

    /// The element at `index`, if it is mapped. The pointer is aligned to eight bytes, and valid as long as the
    /// mapping.
    pub fn element(&self, index: u32) -> Option<*mut T> {
        let place = self.indexes.contains(&index).then(|| Self::bytes(index - self.indexes.start))?;
        // SAFETY: the index was compared with the mapped indexes.
        Some(unsafe { self.address.as_ptr().add(place).cast() })
    }
}

impl<T: TableType> Mapped<T> {
    /// Copies of the elements that are not all zero. Elements whose bytes are no valid value are left out.
    pub fn used(&self) -> Vec<(u32, T)> {
        let mut bytes = vec![0_u8; Self::bytes(self.indexes.end - self.indexes.start)];
        // SAFETY: exactly the mapped bytes are copied. A concurrent write may tear an element's copy, so its bytes are
        // checked below before they become a value.
        unsafe { std::ptr::copy_nonoverlapping(self.address.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
        let empty = vec![0_u8; Self::STRIDE_BYTES];
        let elements = self.indexes().zip(bytes.chunks_exact(Self::STRIDE_BYTES)).filter(|(_, bytes)| *bytes != empty);
        elements
            .filter_map(|(index, bytes)| Some((index, T::try_read_from_bytes(&bytes[..size_of::<T>()]).ok()?)))
            .collect()
    }

    /// A copy of the element at `index`, if it is mapped and its bytes are a valid value.
    pub fn load(&self, index: u32) -> Option<T> {
        let element = self.element(index)?.cast::<MaybeUninit<T>>();
        // SAFETY: the element lies in the mapping. Its bytes are checked below before they become a value.
        let copy = unsafe { element.read_volatile() };
        // SAFETY: these are the bytes of the copy, all of which were initialised by the read.
        let bytes = unsafe { std::slice::from_raw_parts(copy.as_ptr().cast::<u8>(), size_of::<T>()) };
        T::try_read_from_bytes(bytes).ok()
    }

    /// Writes the element at `index`, if it is mapped. No program may read it at the same time.
    pub fn store(&self, index: u32, value: &T) {
        const { T::NO_PADDING };
        if let Some(element) = self.element(index) {
            // SAFETY: the element lies in the mapping and has the type of the map's values.
            unsafe { element.write_volatile(*value) };
        }
    }

    /// The element at `index` of an array of single words.
    pub fn word(&self, index: u32) -> Option<&AtomicU64> {
        self.words(index).map(|[word]| word)
    }

    /// The words of the element at `index`.
    pub fn words<const WORDS: usize>(&self, index: u32) -> Option<[&AtomicU64; WORDS]> {
        const { assert!(size_of::<T>() == WORDS * size_of::<u64>(), "an element of so many words") };
        let element = self.element(index)?.cast::<u64>();
        // SAFETY: the words lie in the mapping, which lives as long as `self`, and are aligned. Programs access each of
        // them as a whole.
        Some(std::array::from_fn(|word| unsafe { AtomicU64::from_ptr(element.add(word)) }))
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        let bytes = Self::bytes(self.indexes.end - self.indexes.start);
        // SAFETY: this is the mapping that `map` made, with the same length, so the call cannot fail.
        unsafe { libc::munmap(self.address.as_ptr().cast(), bytes) };
    }
}
