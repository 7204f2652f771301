//! A packet as the path sees it: two traits, implemented for an skb and for a byte vector.
//!
//! Nothing here knows Services; [`parse`](crate::parse) interprets the bytes.

use core::cell::Cell;
use core::num::NonZero;

use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;

use crate::addr::{Addr, Family};
use crate::checksum;
use crate::table::{Direction, Tuple};

mod sealed {
    pub trait Sealed {}
}

/// A header struct for which any bytes are a valid value. Only this module implements it.
pub trait Header: sealed::Sealed + Copy {}

macro_rules! headers {
    ($($name:ty),*) => { $( impl sealed::Sealed for $name {} impl Header for $name {} )* };
}
headers!(EthHdr, Ipv4Hdr, Ipv6Hdr, TcpHdr, UdpHdr);

impl<const N: usize> sealed::Sealed for [u8; N] {}
impl<const N: usize> Header for [u8; N] {}

/// The identification of a datagram, plus one: an `Option` of it is a single number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramId(NonZero<u64>);

impl DatagramId {
    #[inline(always)]
    pub const fn new(identification: u32) -> Self {
        Self(NonZero::<u64>::MIN.saturating_add(identification as u64))
    }

    #[inline(always)]
    pub const fn get(self) -> u32 {
        (self.0.get() - 1) as u32
    }

    /// The number; 0: None.
    #[inline(always)]
    pub fn to_number(id: Option<Self>) -> u64 {
        id.map_or(0, |Self(number)| number.get())
    }

    #[inline(always)]
    pub fn from_number(number: u64) -> Option<Self> {
        NonZero::new(number).map(Self)
    }
}

/// The addressee of a frame, by its destination MAC, for the interface that it came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// The interface itself.
    Interface,
    /// Broadcast or multicast.
    Group,
    /// Another MAC.
    Another,
}

/// The longest fragment that is parked, in bytes from its network header on. Longer ones, of wider links, pass.
pub const PARKED_LEN_MAX: usize = 2_048;

/// Room for the longest PROXY header: 107 bytes of version 1. A power of two, so that a mask bounds an offset.
pub const HEADER_ROOM: usize = 128;

/// The length of an untagged Ethernet header.
pub const ETHERNET_LEN: usize = size_of::<EthHdr>();

/// Reads a packet. Offset 0 is the link header, or the network header if the link has none.
pub trait Packet {
    /// The length of the link header: [`ETHERNET_LEN`], or 0. A constant of each compiled program.
    const LINK_LEN: usize;

    /// The EtherType behind the link header, in host order. A VLAN tag that the device took off does not count.
    fn ethertype(&self) -> u16;

    /// Offset of the network header.
    #[inline(always)]
    fn l3(&self) -> usize {
        Self::LINK_LEN
    }

    fn addressee(&self) -> Addressee;

    /// Bytes from the network header on.
    fn network_len(&self) -> u32;

    /// Payload bytes of the segments into which the device cuts the packet; 0: it stays whole.
    fn segment_bytes(&self) -> u32;

    /// The unfolded sum of the bytes from `start` to `end`, which are a multiple of four. None if they are too many or
    /// do not exist. In the kernel it runs in a function of its own.
    #[inline(always)]
    fn sum_words(&self, start: usize, end: usize) -> Option<u32>
    where
        Self: Sized,
    {
        sum_words(self, start, end)
    }

    /// The same offset. In the kernel, the verifier forgets how it was found. Otherwise it would walk the rest of the
    /// program once for each way to find one.
    #[inline(always)]
    fn forget_offset(&self, offset: usize) -> usize {
        offset
    }

    /// The same datagram, which the verifier forgets as well.
    #[inline(always)]
    fn forget_datagram(&self, id: Option<DatagramId>) -> Option<DatagramId> {
        id
    }

    /// The header at `offset`. None if the packet ends before the header does.
    fn header<H: Header>(&self, offset: usize) -> Option<H>;

    /// Copies source and destination at `offset` to `tuple`. An operation of its own, because the kernel copies in
    /// words.
    fn read_addresses<A: Addr>(&self, offset: usize, tuple: &mut Tuple<A>) -> Option<()>;

    /// The address at `offset`.
    fn address<A: Addr>(&self, offset: usize) -> Option<A>;

    /// Source and destination at `offset`, for code that has room for them.
    fn addresses<A: Addr>(&self, offset: usize) -> Option<[A; 2]>;

    /// Whether it was re-injected by [`PacketMut::send_copy`].
    fn is_copy(&self) -> bool;

    /// Copies everything from `offset` on and returns its length. None if it is too long.
    fn save(&self, offset: usize, to: &Cell<[u8; PARKED_LEN_MAX]>) -> Option<u32>;
}

/// Which rule a change of an L4 checksum follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summed {
    /// The pseudo header of this family changed. This also applies if the device is to finish the sum
    /// (CHECKSUM_PARTIAL). For IPv6 it also changes the device's sum of all bytes (CHECKSUM_COMPLETE), because an IPv6
    /// header has no checksum of its own that would cancel the change.
    PseudoHeader(Family),
    /// The transport header or payload changed. A device that is to finish the sum adds these bytes itself.
    Payload,
}

/// What a stored L4 checksum of zero means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroSum {
    /// Nothing special (TCP).
    Valid,
    /// "No checksum": stays zero, and a computed zero becomes 0xffff (UDP, RFC 768).
    Absent,
}

impl ZeroSum {
    /// A finished checksum after the words that it covers changed by `diff`.
    #[inline(always)]
    pub fn adjust(self, check: u16, diff: u32) -> u16 {
        if check == 0 && self == Self::Absent {
            return 0;
        }
        match checksum::adjust(check, diff) {
            0 if self == Self::Absent => 0xffff,
            check => check,
        }
    }
}

/// The kernel refused a change. A packet that is half translated must not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// Most words that are summed: the longest header that an ICMP error quotes. A longer chain of extension headers is not
/// answered.
const SUMMED_WORDS_MAX: usize = 64;

/// See [`Packet::sum_words`].
#[inline(always)]
pub fn sum_words(packet: &impl Packet, start: usize, end: usize) -> Option<u32> {
    let (mut sum, mut offset) = (0, start);
    for _ in 0..SUMMED_WORDS_MAX {
        if offset >= end {
            return Some(sum);
        }
        sum += checksum::sum(&packet.header::<[u8; 4]>(offset)?);
        offset += 4;
    }
    None
}

/// Changes bytes of a packet in their place.
pub trait Rewrite: Packet {
    /// Overwrites the source and destination at `offset`.
    fn write_addresses<A: Addr>(&mut self, offset: usize, tuple: &Tuple<A>) -> Result<(), Refused>;

    /// Overwrites the bytes at `offset`.
    fn write<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> Result<(), Refused>;

    /// Adds `diff` (one's complement, see [`checksum::diff`](crate::checksum::diff)) to the L4 checksum at `offset`.
    ///
    /// Nothing else may touch an L4 checksum: the device may still have to finish it (CHECKSUM_PARTIAL).
    fn adjust_l4_checksum(&mut self, offset: usize, diff: u32, summed: Summed, zero: ZeroSum) -> Result<(), Refused>;
}

/// Changes a packet, with the primitives that the kernel offers for an skb.
pub trait PacketMut: Rewrite {
    /// Pulls headers into the linear part of an skb. False if nothing was pulled: bytes that could not be read do not
    /// exist.
    fn pull(&mut self) -> bool;

    /// Cuts or grows the packet to `len` bytes.
    fn set_len(&mut self, len: u32) -> Result<(), Refused>;

    /// Makes room for `N` bytes between link header and network header.
    fn insert_before_network<const N: usize>(&mut self) -> Result<(), Refused>;

    /// Replaces everything from `offset` on with what was [saved](Packet::save).
    fn restore(&mut self, offset: usize, from: &Cell<[u8; PARKED_LEN_MAX]>, len: u32) -> Result<(), Refused>;

    /// Overwrites the bytes at `offset` with the first `len` ones.
    fn write_text(&mut self, offset: usize, bytes: &[u8; HEADER_ROOM], len: usize) -> Result<(), Refused>;

    /// Re-injects a copy of the packet as it is now at ingress, marked. The copy follows the packet.
    fn send_copy(&mut self) -> Result<(), Refused>;

    /// Whether it was re-injected by [`PacketMut::send_copy`]. Takes the mark off.
    fn take_copy(&mut self) -> bool;

    /// Re-injects a copy of the packet as it is now at its hook: ingress for requests, egress for replies.
    fn send_again(&mut self, hook: Direction) -> Result<(), Refused>;
}

/// Reads a header from a byte slice: [`Packet::header`] for packets in memory.
pub fn header_of_slice<H: Header>(bytes: &[u8], offset: usize) -> Option<H> {
    let slice = bytes.get(offset..)?.get(..size_of::<H>())?;
    // SAFETY: the slice has the size of H, the read is unaligned, and any bytes are a valid `Header` (sealed).
    #[allow(unsafe_code, reason = "the one place where bytes become a header struct on the host")]
    Some(unsafe { slice.as_ptr().cast::<H>().read_unaligned() })
}
