//! The maps `addresses4` and `addresses6`: bit sets with one bit for each address, written through a memory mapping.

use std::path::Path;
use std::sync::atomic::Ordering;

use lb_common::addr::Addr;
use lb_common::table::maps::Map;
use lb_common::table::{AddressBit, AddressBits, Role};

use super::mapped::Array;
use super::{Error, Sizes};

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

    /// Sets the bits of addresses before any row names them. Bits of removed addresses stay until
    /// [`AddressSet::refresh`].
    pub fn note<A: Addr>(&self, addresses: impl Iterator<Item = (A, Role)>) -> Result<(), Error> {
        let set = self.0.all()?;
        for (addr, role) in addresses {
            let AddressBit { word, mask } = AddressBit::of(&addr, role, self.0.len());
            if let Some(bits) = set.word(word) {
                bits.fetch_or(mask, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Sets the bits of exactly these addresses. Each word is changed by one store, so the bit of an address that stays
    /// is never cleared.
    pub fn refresh<A: Addr>(&self, addresses: impl Iterator<Item = (A, Role)>) -> Result<(), Error> {
        let set = self.0.all()?;
        let mut wanted = vec![0; self.0.len() as usize];
        for (addr, role) in addresses {
            let AddressBit { word, mask } = AddressBit::of(&addr, role, self.0.len());
            wanted[word as usize] |= mask;
        }
        for (index, wanted) in (0..).zip(wanted) {
            let Some(bits) = set.word(index) else { break };
            if bits.load(Ordering::Relaxed) != wanted {
                bits.store(wanted, Ordering::Release);
            }
        }
        Ok(())
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
