//! The maps `addresses4` and `addresses6`, written through a memory mapping: sets of bits, of which each address has one.

use std::path::Path;
use std::sync::atomic::Ordering;

use lb_common::addr::Addr;
use lb_common::table::maps::Map;
use lb_common::table::{AddressBit, AddressBits, Role};

use super::mapped::Array;
use super::{Error, Sizes};

/// Bits for each row that there may be: when all are there, one address in sixteen has the bit of another.
const BITS_PER_ROW: u64 = 16;

/// Elements of a table of addresses.
pub const fn address_words(sizes: &Sizes) -> u32 {
    let rows = sizes.frontends_max as u64 + sizes.backends_max as u64;
    let words = (rows * BITS_PER_ROW).div_ceil(u64::BITS as u64).next_power_of_two();
    if words < AddressBit::WORDS_MAX as u64 { words as u32 } else { AddressBit::WORDS_MAX }
}

/// The bits of one family, mapped while they are written.
pub struct AddressSet(Array<AddressBits>);

impl AddressSet {
    pub fn open(directory: &Path, map: Map<u32, AddressBits>) -> Result<Self, Error> {
        Array::open(directory, map).map(Self)
    }

    /// Notes addresses, before anything can ask for them. Those that have gone stay until [`AddressSet::refresh`].
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

    /// Makes it say these addresses and no others. Each word is changed by one store: an address that stays is there all the
    /// time.
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
            // As many as the hash can name.
            (sizes(1 << 30, 1 << 30), 1 << 26),
        ] {
            assert_eq!(address_words(&sizes), words, "{sizes:?}");
        }
    }
}
