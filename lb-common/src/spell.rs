//! The bytes of a header, as haproxy's `doc/proxy-protocol.txt` defines them: version 1 (section 2.1) is text, version 2
//! (section 2.2) is binary.
//!
//! The text is written in steps, which the kernel runs in a function that the verifier walks once. Within a step, bytes
//! are appended without branches where it can be, and the length so far comes from the records.

use crate::addr::Addr;
use crate::packet::HEADER_ROOM;
use crate::work::Work;

/// The signature of version 2; the version with the command PROXY behind it.
const SIGNATURE: [u8; 13] = *b"\r\n\r\n\0\r\nQUIT\n\x21";

/// An address family that a header can name.
pub trait Spelled: Addr {
    /// The beginning of the text.
    const BEGIN: [u8; 11];
    /// Version 2: the address family, with the protocol TCP.
    const FAMILY_BYTE: u8;
    /// Parts of an address as text, a power of two.
    const PARTS: usize;

    /// Appends a part of the address as text, with what separates it from the part before.
    fn spell(&self, part: usize, line: &mut Line<'_>);
}

/// A text that grows.
pub struct Line<'a> {
    bytes: &'a mut [u8; HEADER_ROOM],
    len: usize,
}

impl Line<'_> {
    /// Appends the byte if `keeps` is 1. If it is 0, the next byte takes its place.
    #[inline(always)]
    fn push_if(&mut self, byte: u8, keeps: usize) {
        self.bytes[self.len & (HEADER_ROOM - 1)] = byte;
        self.len += keeps;
    }

    #[inline(always)]
    fn push(&mut self, byte: u8) {
        self.push_if(byte, 1);
    }

    /// Appends a number in decimal, without leading zeros. It has at most one digit for each unit, and one more.
    #[inline(always)]
    fn push_decimal<const N: usize>(&mut self, number: u16, units: [u32; N]) {
        let number = u32::from(number);
        for unit in units {
            self.push_if(b'0' + (number / unit % 10) as u8, is_positive(number / unit));
        }
        self.push(b'0' + (number % 10) as u8);
    }

    /// Appends a group of an IPv6 address, without leading zeros.
    #[inline(always)]
    fn push_hex(&mut self, group: u16, keeps: usize) {
        let group = u32::from(group);
        for shift in [12, 8, 4] {
            self.push_if(hex_digit(group >> shift), is_positive(group >> shift) & keeps);
        }
        self.push_if(hex_digit(group), keeps);
    }
}

/// 1 if the number is not 0; it must be below 2^31.
#[inline(always)]
const fn is_positive(number: u32) -> usize {
    (number.wrapping_neg() >> 31) as usize
}

#[inline(always)]
const fn hex_digit(number: u32) -> u8 {
    let digit = number & 15;
    // 'a' is 39 places behind what follows '9'.
    b'0' + digit as u8 + ((9_u32.wrapping_sub(digit) >> 31) * 39) as u8
}

impl Spelled for [u8; 4] {
    const BEGIN: [u8; 11] = *b"PROXY TCP4 ";
    const FAMILY_BYTE: u8 = 0x11;
    const PARTS: usize = 4;

    #[inline(always)]
    fn spell(&self, part: usize, line: &mut Line<'_>) {
        line.push_if(b'.', is_positive(part as u32));
        line.push_decimal(self[part & 3].into(), [100, 10]);
    }
}

/// The longest run of zero groups, the first of several: where it begins, and where it ends. A single group is none (RFC
/// 5952 section 4.2).
#[inline(always)]
fn zeros(addr: &[u8; 16]) -> (usize, usize) {
    const NONE: usize = 8;
    let (mut best, mut best_len, mut len) = (NONE, 1, 0);
    let (groups, _) = addr.as_chunks::<2>();
    for (index, group) in groups.iter().enumerate() {
        len = if *group == [0, 0] { len + 1 } else { 0 };
        if len > best_len {
            (best, best_len) = (index + 1 - len, len);
        }
    }
    (best, best + best_len)
}

impl Spelled for [u8; 16] {
    const BEGIN: [u8; 11] = *b"PROXY TCP6 ";
    const FAMILY_BYTE: u8 = 0x21;
    const PARTS: usize = 8;

    /// As RFC 5952 recommends, but an embedded IPv4 address is written in hexadecimal.
    #[inline(always)]
    fn spell(&self, part: usize, line: &mut Line<'_>) {
        let group = u16::from_be_bytes([self[(2 * part) & 15], self[(2 * part + 1) & 15]]);
        let (from, to) = zeros(self);
        let is_left_out = part >= from && part < to;
        line.push_if(b':', usize::from(part == from));
        line.push_if(b':', usize::from(part == from || (part != 0 && part != to && !is_left_out)));
        line.push_hex(group, usize::from(!is_left_out));
    }
}

/// Steps in which the text is written.
#[inline(always)]
const fn steps<A: Spelled>() -> u32 {
    2 * A::PARTS as u32 + 2
}

/// Appends what belongs to this step to the text in the records.
#[inline(always)]
pub fn spell_step<A: Spelled>(work: &mut Work<A>, step: u32) {
    const PORT_UNITS: [u32; 4] = [10_000, 1_000, 100, 10];
    let Work { key, text, text_len, .. } = work;
    let tuple = &key.tuple;
    let (step, mut line) = (step as usize, Line { bytes: text, len: *text_len as usize });
    if step < 2 * A::PARTS {
        let part = step & (A::PARTS - 1);
        if step < A::PARTS { &tuple.src } else { &tuple.dst }.spell(part, &mut line);
        line.push_if(b' ', usize::from(part == A::PARTS - 1));
    } else {
        let is_last = step != 2 * A::PARTS;
        line.push_decimal(if is_last { tuple.dport } else { tuple.sport }, PORT_UNITS);
        line.push(if is_last { b'\r' } else { b' ' });
        line.push_if(b'\n', usize::from(is_last));
    }
    // The byte behind the text may be one that was not kept.
    line.push_if(0, 0);
    *text_len = line.len as u32;
}

/// Writes the header that names the client and the address that it dialled, as it dialled it, to the records. Zeros
/// follow it. Runs each step of a text by `run_step`.
#[inline(always)]
pub fn spell<A: Spelled>(work: &mut Work<A>, mut run_step: impl FnMut(&mut Work<A>, u32)) {
    let (words, _) = work.text.as_chunks_mut::<8>();
    for word in words {
        *word = [0; 8];
    }
    if work.spells_v2 != 0 {
        work.text_len = write_v2(work);
    } else {
        let (begin, _) = work.text.split_at_mut(A::BEGIN.len());
        begin.copy_from_slice(&A::BEGIN);
        work.text_len = A::BEGIN.len() as u32;
        for step in 0..steps::<A>() {
            run_step(work, step);
        }
    }
    work.text_sum = sum(&work.text);
}

/// Writes the header of version 2 and returns its length.
#[inline(always)]
fn write_v2<A: Spelled>(work: &mut Work<A>) -> u32 {
    let Work { key, text, .. } = work;
    let mut len = 0;
    let mut push_all = |bytes: &[u8]| {
        for byte in bytes {
            text[len] = *byte;
            len += 1;
        }
    };
    push_all(&SIGNATURE);
    push_all(&[A::FAMILY_BYTE]);
    push_all(&(2 * size_of::<A>() as u16 + 4).to_be_bytes());
    push_all(key.tuple.src.as_bytes());
    push_all(key.tuple.dst.as_bytes());
    push_all(&key.tuple.sport.to_be_bytes());
    push_all(&key.tuple.dport.to_be_bytes());
    len as u32
}

/// The unfolded sum of 16-bit words.
#[inline(always)]
fn sum(bytes: &[u8; HEADER_ROOM]) -> u32 {
    let (words, _) = bytes.as_chunks::<4>();
    let mut total = 0;
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    // 2^16 counts one in a one's complement sum, and so does 2^32.
    let folded = (total & 0xffff_ffff) + (total >> 32);
    ((folded & 0xffff) + (folded >> 16 & 0xffff) + (folded >> 32)) as u32
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::net::Ipv6Addr;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use super::*;
    use crate::checksum;
    use crate::table::Tuple;

    fn written<A: Spelled>(tuple: &Tuple<A>, is_v2: bool) -> Vec<u8> {
        let mut work = Work::new();
        (work.key.tuple, work.spells_v2, work.text) = (*tuple, u32::from(is_v2), [0xff; HEADER_ROOM]);
        spell(&mut work, spell_step);
        let (text, rest) = work.text.split_at(work.text_len as usize);
        assert!(rest.iter().all(|byte| *byte == 0), "zeros behind the header: they are summed");
        assert_eq!(checksum::fold(work.text_sum) % 0xffff, checksum::fold(checksum::sum(&work.text)) % 0xffff);
        text.to_vec()
    }

    fn v6(text: &str) -> [u8; 16] {
        text.parse::<Ipv6Addr>().expect("an address").octets()
    }

    /// The examples of the specification, and the longest line of each family.
    #[test]
    fn version_1_is_a_line() {
        for (src, dst, sport, dport, expected) in [
            ([192, 168, 0, 1], [192, 168, 0, 11], 56_324, 443, "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"),
            ([255; 4], [255; 4], 65_535, 65_535, "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
            ([0; 4], [1, 20, 100, 10], 0, 10, "PROXY TCP4 0.0.0.0 1.20.100.10 0 10\r\n"),
        ] {
            assert_eq!(written(&Tuple { src, dst, sport, dport }, false), expected.as_bytes());
        }
        let full = v6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        let longest = written(&Tuple { src: full, dst: full, sport: 65_535, dport: 65_535 }, false);
        assert_eq!(longest.len(), 104);
    }

    #[test]
    fn addresses_of_ipv6_are_as_short_as_can_be() {
        for text in [
            "::",
            "::1",
            "1::",
            "fd77:1::2",
            "2001:db8:0:1:1:1:1:1",
            "2001:0:0:1::1",
            "2001:db8::1:0:0:1",
            "a0b:c0d0:e0f:1020:304:5006:7080:9a",
            "0:0:0:1:2:3:4:5",
            "1:2:3:4:5:6:0:0",
            "0:1:0:1:0:1:0:1",
        ] {
            let src = v6(text);
            let line = written(&Tuple { src, dst: v6("::2"), sport: 1, dport: 2 }, false);
            let expected = format!("PROXY TCP6 {} ::2 1 2\r\n", Ipv6Addr::from(src));
            assert_eq!(String::from_utf8(line).expect("text"), expected);
        }
    }

    /// Every place that zeros may have: the standard library writes the same.
    #[test]
    fn every_pattern_of_zeros_is_written_as_others_do() {
        for pattern in 0..=u8::MAX {
            let groups: [u16; 8] =
                core::array::from_fn(|index| if pattern >> index & 1 == 0 { 0 } else { 0x1ab << index });
            let address = Ipv6Addr::from(groups);
            if address.to_ipv4_mapped().is_some() {
                continue;
            }
            let line = written(&Tuple { src: address.octets(), dst: address.octets(), sport: 9, dport: 99 }, false);
            assert_eq!(String::from_utf8(line).expect("text"), format!("PROXY TCP6 {address} {address} 9 99\r\n"));
        }
    }

    #[test]
    fn version_2_is_binary() {
        let v4 = written(&Tuple { src: [10, 0, 0, 9], dst: [203, 0, 113, 7], sport: 0x1234, dport: 443 }, true);
        let mut expected = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x11, 0, 12]].concat();
        expected.extend([10, 0, 0, 9, 203, 0, 113, 7, 0x12, 0x34, 0x01, 0xbb]);
        assert_eq!(v4, expected);

        let (src, dst) = (v6("fd00::9"), v6("2001:db8::7"));
        let mut expected = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x21, 0, 36], &src, &dst].concat();
        expected.extend([0xff, 0xfe, 0, 80]);
        assert_eq!(written(&Tuple { src, dst, sport: 0xfffe, dport: 80 }, true), expected);
    }
}
