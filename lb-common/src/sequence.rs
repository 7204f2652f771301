//! The position of one direction of a TCP connection, in steps of 64 KiB, so that most packets cause no write.
//!
//! It distinguishes the FIN or RST of a real end from a guessed one.

/// The upper half of a sequence number, or none. One word, because the packet path compares it for each packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequence(u32);

impl Sequence {
    /// Unknown, or not TCP.
    pub const NONE: Self = Self(0);
    const KNOWN: u32 = 1 << 16;
    /// How far the next segment may be ahead, in steps of 64 KiB: more than one super-packet and what is lost between
    /// two.
    const AHEAD_MAX: u16 = 15;
    /// How far it may be behind: a segment may begin before the last one did.
    const BEHIND_MAX: u16 = 1;

    #[inline(always)]
    pub const fn of(high: u16) -> Self {
        Self(Self::KNOWN | high as u32)
    }

    /// The word, to be packed beside other values.
    #[inline(always)]
    pub(crate) const fn word(self) -> u32 {
        self.0
    }

    #[inline(always)]
    pub(crate) const fn from_word(word: u32) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub const fn is_known(self) -> bool {
        self.0 != 0
    }

    /// The upper half; 0 if unknown.
    #[inline(always)]
    pub const fn high(self) -> u16 {
        self.0 as u16
    }

    /// Whether this may be the number of the next segment after `noted`. About one in 4,000 guesses fits.
    #[inline(always)]
    pub const fn fits(self, noted: Self) -> bool {
        let distance = self.high().wrapping_sub(noted.high()).wrapping_add(Self::BEHIND_MAX);
        !self.is_known() || !noted.is_known() || distance <= Self::AHEAD_MAX + Self::BEHIND_MAX
    }

    /// Whether this is ahead of `noted`, but not too far.
    #[inline(always)]
    pub const fn advances(self, noted: Self) -> bool {
        let distance = self.high().wrapping_sub(noted.high());
        distance != 0 && distance <= Self::AHEAD_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_near() {
        let at = |high: u16| Sequence::of(high);
        for (number, noted, fits, advances) in [
            (at(100), at(100), true, false),
            (at(99), at(100), true, false),
            (at(98), at(100), false, false),
            (at(101), at(100), true, true),
            (at(115), at(100), true, true),
            (at(116), at(100), false, false),
            (at(3), at(0xffff), true, true),
            (at(0xffff), at(0), true, false),
            (at(0x8000), at(0), false, false),
            (at(7), Sequence::NONE, true, true),
            (Sequence::NONE, at(7), true, false),
        ] {
            assert_eq!((number.fits(noted), number.advances(noted)), (fits, advances), "{number:?} behind {noted:?}");
        }
        assert!(at(0) != Sequence::NONE && at(0).is_known(), "a number may begin with zeros");
    }

    /// The help of the limits says one in 4,000.
    #[test]
    fn few_guesses_fit() {
        let fitting = (0..=u16::MAX).filter(|high| Sequence::of(*high).fits(Sequence::of(12_345))).count();
        assert_eq!(fitting, 17);
    }
}
