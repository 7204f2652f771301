//! Source ranges: from where a frontend may be dialled.

use super::row::table_type;

table_type! {
    /// Key of the tries `source_ranges4` and `source_ranges6`. The longest prefix that fits is found; that one fits at all
    /// lets the client in.
    pub struct SourceRangeKey<A> {
        /// Bits that count, those of `set` included.
        pub prefix_len: u32,
        /// Frontends that let the same clients in share a set.
        pub set: u32,
        /// Bits beyond the prefix are 0.
        pub addr: A,
    }

    /// Value of `source_ranges4` and `source_ranges6`; that there is one says it all.
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

    /// Bits of the address that count.
    pub const fn length(&self) -> u32 {
        self.prefix_len - Self::SET_BITS
    }

    /// Whether an address begins with these bits: what the trie answers, for those who read a dump.
    pub fn contains(&self, addr: &A) -> bool {
        let bit = |addr: &A, bit: usize| addr.as_bytes()[bit / 8] >> (7 - bit % 8) & 1;
        (0..self.length() as usize).all(|n| bit(&self.addr, n) == bit(addr, n))
    }

    /// One client, to look it up.
    #[inline(always)]
    pub fn set_client(&mut self, set: u32, addr: A) {
        self.prefix_len = Self::SET_BITS + size_of::<A>() as u32 * 8;
        self.set = set;
        self.addr = addr;
    }
}
