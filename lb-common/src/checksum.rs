//! The Internet checksum (RFC 1071) and its incremental change (RFC 1624).
//!
//! Sums are of 16-bit words in the byte order of memory: the algorithm works in either order.

/// Folds an unfolded sum to 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The one's complement difference `new - old` of two unfolded sums, as [`adjust`] and the kernel take it.
#[inline(always)]
pub const fn diff(old: u32, new: u32) -> u32 {
    fold(new) as u32 + !fold(old) as u32
}

/// The stored checksum after the words that it covers changed by `diff`.
#[inline(always)]
pub const fn adjust(check: u16, diff: u32) -> u16 {
    !fold(!check as u32 + fold(diff) as u32)
}

/// The unfolded sum of an even number of bytes.
#[inline(always)]
pub fn sum<const N: usize>(bytes: &[u8; N]) -> u32 {
    const { assert!(N.is_multiple_of(2)) };
    let mut total = 0;
    for pair in bytes.as_chunks::<2>().0 {
        total += u32::from(u16::from_ne_bytes(*pair));
    }
    total
}

/// A port in host order as a word in memory.
#[inline(always)]
pub const fn port_word(port: u16) -> u32 {
    u16::from_ne_bytes(port.to_be_bytes()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incremental_change_equals_full_sum() {
        let mut words = [0x4500_u16, 0x0054, 0x1c46, 0x4000, 0x4006, 0xac10, 0x0a63, 0xac10, 0x0a0c, 0xffff, 0];
        let full = |words: &[u16]| !fold(words.iter().map(|w| u32::from(*w)).sum());
        for index in 0..words.len() {
            for value in [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff] {
                let (before, old) = (full(&words), words[index]);
                words[index] = value;
                let incremental = adjust(before, diff(u32::from(old), u32::from(value)));
                // 0 and 0xffff are the same number in one's complement.
                assert_eq!(incremental % 0xffff, full(&words) % 0xffff, "word {index}: {old:#x} -> {value:#x}");
            }
        }
    }
}
