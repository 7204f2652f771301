//! Address bits: whether an address may have a role for any Service, on any port. A fragment without ports has nothing
//! else to look up. One word, in place of two hash tables, distinguishes the first packet of a flow from a stranger's.
//!
//! The tables are sets of bits. A hash gives each address and role one bit, and addresses may share a bit. Then a
//! foreign fragment that overtakes its first one waits for it, and a foreign first fragment leaves a note, as
//! fragments to a foreign port of a Service's address do. All of them pass unchanged. An attacker who picks an address
//! for its bit gains no more than that, so the hash needs no secret.

use super::row::table_type;
use crate::addr::Addr;
use crate::hash::finish;

table_type! {
    /// Value of `addresses4` and `addresses6`.
    pub struct AddressBits {
        pub bits: u64,
    }
}

/// The role of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Packets to it may be translated at ingress.
    Frontend,
    /// Packets from it may be translated at egress.
    Endpoint,
}

/// The bit of an address in a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressBit {
    /// Index of its [`AddressBits`].
    pub word: u32,
    pub mask: u64,
}

impl AddressBit {
    /// Words beyond these would stay empty: the hash has 32 bits.
    pub const WORDS_MAX: u32 = 1 << (u32::BITS - u64::BITS.trailing_zeros());

    /// The bit of an address in a table of `words` words, a power of two.
    #[inline(always)]
    pub fn of<A: Addr>(addr: &A, role: Role, words: u32) -> Self {
        let hash = finish(addr.mix_into(role as u32), size_of::<A>() as u32);
        Self { word: (hash / u64::BITS) & (words - 1), mask: 1 << (hash % u64::BITS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Consecutive addresses, as clusters assign them. With 16 bits for each row, collisions are as frequent as by
    /// chance.
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
