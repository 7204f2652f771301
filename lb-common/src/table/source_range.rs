//! Source ranges: the prefixes from which a frontend may be dialled.

use super::row::table_type;

table_type! {
    /// Key of the tries `source_ranges4` and `source_ranges6`. A client is allowed if any prefix matches.
    pub struct SourceRangeKey<A> {
        /// Significant bits, those of `set` included.
        pub prefix_len: u32,
        /// The set. Frontends that allow the same clients share one.
        pub set: u32,
        /// Bits beyond the prefix are 0.
        pub addr: A,
    }

    /// Value of `source_ranges4` and `source_ranges6`. The lookup asks only whether a prefix matches.
    pub struct SourceRange {
        /// 0.
        pub flags: u32,
    }
}

impl<A: crate::addr::Addr> SourceRangeKey<A> {
    /// Bits of `set`.
    const SET_BITS: u32 = 32;

    /// The clients whose address begins with these bits.
    pub const fn of_prefix(set: u32, addr: A, length: u8) -> Self {
        Self { prefix_len: Self::SET_BITS + length as u32, set, addr }
    }

    /// Significant bits of the address.
    pub const fn length(&self) -> u32 {
        self.prefix_len - Self::SET_BITS
    }

    /// Whether an address begins with these bits, as the trie would answer. For readers of a dump.
    pub fn contains(&self, addr: &A) -> bool {
        let bit = |addr: &A, bit: usize| addr.as_bytes()[bit / 8] >> (7 - bit % 8) & 1;
        (0..self.length() as usize).all(|n| bit(&self.addr, n) == bit(addr, n))
    }

    /// Sets the key to one client, for a lookup.
    #[inline(always)]
    pub fn set_client(&mut self, set: u32, addr: A) {
        self.prefix_len = Self::SET_BITS + size_of::<A>() as u32 * 8;
        self.set = set;
        self.addr = addr;
    }
}
