//! Addresses: does one play a role for any Service, on whatever port? All that can be asked of a fragment without ports.
//!
//! The tables are sets of bits, of which a hash names one for each address and role. Another one may have the same bit:
//! then a foreign fragment that overtakes its first one waits for it, and a foreign first one leaves a note, as those to
//! one of our addresses on a port that is not ours do, and both go on as they came. That is all that can be had by
//! choosing an address for its bit, so the hash needs no secret.

use super::row::table_type;
use crate::addr::Addr;
use crate::hash::finish;

table_type! {
    /// Value of `addresses4` and `addresses6`.
    pub struct AddressBits {
        pub bits: u64,
    }
}

/// What an address is dialled or answers as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Packets to it may be translated where they come in.
    Frontend,
    /// Packets from it may be translated where they go out.
    Endpoint,
}

/// The bit of an address in a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressBit {
    /// Index of the [`AddressBits`] that it stands in.
    pub word: u32,
    pub mask: u64,
}

impl AddressBit {
    /// Words beyond these have no bits: the hash is no longer than that.
    pub const WORDS_MAX: u32 = 1 << (u32::BITS - u64::BITS.trailing_zeros());

    /// Its bit in a table of so many words, a power of two.
    #[inline(always)]
    pub fn of<A: Addr>(addr: &A, role: Role, words: u32) -> Self {
        let hash = finish(addr.mix_into(role as u32), size_of::<A>() as u32);
        Self { word: (hash / u64::BITS) & (words - 1), mask: 1 << (hash % u64::BITS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses as clusters have them: one after the other. With 16 bits for each row, as many fall on the bits of others as
    /// would by chance.
    #[test]
    fn neighbours_spread_over_the_bits() {
        const ROWS: u32 = 1 << 12;
        const WORDS: u32 = ROWS * 16 / u64::BITS;
        fn is_spread<A: Addr>(addr: impl Fn(u32) -> A) {
            for role in [Role::Frontend, Role::Endpoint] {
                let mut table = [0_u64; WORDS as usize];
                let bits = (0..ROWS).map(|number| AddressBit::of(&addr(number), role, WORDS));
                bits.for_each(|AddressBit { word, mask }| table[word as usize] |= mask);
                let set: u32 = table.iter().map(|bits| bits.count_ones()).sum();
                // 65,536 x (1 - e^(-1/16)) = 3,971, with a standard deviation of 11.
                assert!((3_915..=4_027).contains(&set), "{set} bits of {ROWS} addresses");
                let strangers = (ROWS..3 * ROWS).map(|number| AddressBit::of(&addr(number), role, WORDS));
                let wrong = strangers.filter(|bit| table[bit.word as usize] & bit.mask != 0).count();
                // 8,192 x 3,971 / 65,536 = 496, with a standard deviation of 22.
                assert!((386..=606).contains(&wrong), "{wrong} strangers on bits of others");
            }
        }
        is_spread(|number| (0x0a60_0000 + number).to_be_bytes());
        is_spread(|number| (0x0a01_0000 + (number << 8)).to_be_bytes());
        is_spread(|number| ((0x2001_0db8_u128 << 96) + u128::from(number)).to_be_bytes());
        is_spread(|number| ((0xfd00_u128 << 112) + (u128::from(number) << 64) + 1).to_be_bytes());
    }

    #[test]
    fn a_role_is_another_bit() {
        let same = (0..1_000_u32).filter(|number| {
            let of = |role| AddressBit::of(&number.to_be_bytes(), role, 1 << 10);
            of(Role::Frontend) == of(Role::Endpoint)
        });
        assert!(same.count() <= 1);
    }

    #[test]
    fn every_table_holds_its_bits() {
        for words in [1, 2, 1 << 17, AddressBit::WORDS_MAX] {
            let bits = (0..10_000_u32).map(|number| AddressBit::of(&number.to_be_bytes(), Role::Endpoint, words));
            let max = bits.map(|bit| bit.word).max().expect("some");
            assert!(max < words && max >= words / 2, "{max} of {words}");
        }
    }
}
