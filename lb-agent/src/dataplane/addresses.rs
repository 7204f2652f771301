//! The maps `addresses4` and `addresses6`: bit sets with one bit for each address, written through a memory mapping.

use std::path::Path;
use std::sync::atomic::Ordering;

use lb_common::table::maps::Map;
use lb_common::table::{AddressBit, AddressBits};

use super::mapped::{Array, Mapped};
use super::{Error, Sizes, Write};

/// Bits per possible row. In a full table one address in sixteen shares the bit of another.
const BITS_PER_ROW: u64 = 16;

/// The number of elements of an address map.
pub const fn address_words(sizes: &Sizes) -> u32 {
    let rows = sizes.frontends_max as u64 + sizes.backends_max as u64;
    let words = (rows * BITS_PER_ROW).div_ceil(u64::BITS as u64).next_power_of_two();
    if words < AddressBit::WORDS_MAX as u64 { words as u32 } else { AddressBit::WORDS_MAX }
}

/// The bits of one family. They are mapped only while they are written.
pub struct AddressSet(Array<AddressBits>);

impl AddressSet {
    pub fn open(directory: &Path, map: Map<u32, AddressBits>) -> Result<Self, Error> {
        Array::open(directory, map).map(Self)
    }

    /// The number of words.
    pub const fn words(&self) -> u32 {
        self.0.len()
    }

    /// Stores words. A program sees each word as it was before or after its store.
    pub fn write(&self, write: &Write<u32, AddressBits>) -> Result<(), Error> {
        let mut window: Option<Mapped<AddressBits>> = None;
        let mut store = |index, value: u64| {
            // Words are sorted, so most of them are in the current window.
            let known = window.take().filter(|window| window.indexes().contains(&index));
            let found = known.map_or_else(|| self.0.window(index), Ok)?;
            if let Some(word) = window.insert(found).word(index) {
                word.store(value, Ordering::Release);
            }
            Ok(())
        };
        match write {
            Write::Upsert(rows) => rows.iter().try_for_each(|(index, value)| store(*index, value.bits)),
            Write::Delete(indexes) => indexes.iter().try_for_each(|index| store(*index, 0)),
        }
    }

    /// The words that have a bit.
    pub fn dump(&self) -> Result<Vec<(u32, AddressBits)>, Error> {
        Ok(self.0.all()?.used())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_bits_enough_for_all_rows() {
        let sizes = |frontends_max, backends_max| Sizes { frontends_max, backends_max, ..Sizes::default() };
        for (sizes, words) in [
            (Sizes::default(), 1 << 17),
            (sizes(1, 1), 1),
            (sizes(1_024, 4_096), 1 << 11),
            (sizes(1 << 10, 3 << 10), 1 << 10),
            (sizes(1 << 10, (3 << 10) + 1), 1 << 11),
            // The most words that the hash can name.
            (sizes(1 << 30, 1 << 30), 1 << 26),
        ] {
            assert_eq!(address_words(&sizes), words, "{sizes:?}");
        }
    }
}
