//! A packet as the path sees it: two traits that an skb and a byte vector implement.
//!
//! Nothing here knows Services; [`parse`](crate::parse) gives the bytes a meaning.

use core::cell::Cell;

use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;

use crate::addr::{Addr, Family};
use crate::table::{Direction, Tuple};

mod sealed {
    pub trait Sealed {}
}

/// A header struct that any bytes are a valid value of. Only this module says which types are.
pub trait Header: sealed::Sealed + Copy {}

macro_rules! headers {
    ($($name:ty),*) => { $( impl sealed::Sealed for $name {} impl Header for $name {} )* };
}
headers!(EthHdr, Ipv4Hdr, Ipv6Hdr, TcpHdr, UdpHdr);

impl<const N: usize> sealed::Sealed for [u8; N] {}
impl<const N: usize> Header for [u8; N] {}

/// Offsets of headers are below this.
pub const OFFSET_MAX: usize = 1 << 14;

/// Whom a frame is for, as its destination MAC tells the interface that it came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// The interface itself.
    Interface,
    /// Everybody, or a group.
    Group,
    /// Another MAC.
    Another,
}

/// The longest fragment that is parked, in bytes from its network header on: those of links that are wider pass.
pub const PARKED_LEN_MAX: usize = 2_048;

/// The length of an untagged Ethernet header.
pub const ETHERNET_LEN: usize = size_of::<EthHdr>();

/// Bytes to look at. The first byte is the first of the link header, or of the network header where a link has none.
pub trait Packet {
    /// The length of the link header: [`ETHERNET_LEN`], or 0. Known when a program is compiled, and never asked of a packet.
    const LINK_LEN: usize;

    /// The EtherType of what follows the link header, in host order; a tag that the device took off does not count.
    fn ethertype(&self) -> u16;

    /// Offset of the network header.
    #[inline(always)]
    fn l3(&self) -> usize {
        Self::LINK_LEN
    }

    fn addressee(&self) -> Addressee;

    /// The same offset. In the kernel, one that the verifier knows nothing of but that it is below
    /// [`OFFSET_MAX`]: else it walks the rest of the program once for every way to get there.
    fn forget_bounds(&self, offset: usize) -> usize;

    /// The same number. In the kernel, one that the verifier knows nothing of, for the same reason.
    fn forget_number(&self, number: u64) -> u64;

    /// The header at `offset`, or nothing where the packet ends before it does.
    fn header<H: Header>(&self, offset: usize) -> Option<H>;

    /// Copies the source and destination at `offset` to `tuple`. Its own operation, as the kernel copies in words.
    fn read_addresses<A: Addr>(&self, offset: usize, tuple: &mut Tuple<A>) -> Option<()>;

    /// Copies everything from `offset` on; how many bytes. Nothing where they are too many.
    fn save(&self, offset: usize, to: &Cell<[u8; PARKED_LEN_MAX]>) -> Option<u32>;
}

/// Which checksum rule the change of an L4 checksum follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summed {
    /// Part of the pseudo header of this family: changes also where the device is to finish the sum
    /// (CHECKSUM_PARTIAL), and where it gave one of all bytes (CHECKSUM_COMPLETE) an IPv6 header has no checksum of its
    /// own that would cancel the change.
    PseudoHeader(Family),
    /// Part of the transport header or payload: the device will sum it itself.
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

/// The kernel refused a change; the packet must not go on half translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// Bytes to change, in the primitives that the kernel offers an skb.
pub trait PacketMut: Packet {
    /// Makes headers readable that stand behind the linear part of an skb. False where there is nothing to do: then what
    /// could not be read is not there.
    fn pull(&mut self) -> bool;

    /// Overwrites the source and destination at `offset`.
    fn write_addresses<A: Addr>(&mut self, offset: usize, tuple: &Tuple<A>) -> Result<(), Refused>;

    /// Overwrites the bytes at `offset`.
    fn write<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> Result<(), Refused>;

    /// Adds `diff` (one's complement, see [`checksum::diff`](crate::checksum::diff)) to the L4 checksum at `offset`.
    ///
    /// Only this may touch an L4 checksum: the device may still have to finish it (CHECKSUM_PARTIAL).
    fn adjust_l4_checksum(&mut self, offset: usize, diff: u32, summed: Summed, zero: ZeroSum) -> Result<(), Refused>;

    /// Cuts or grows the packet to `len` bytes.
    fn set_len(&mut self, len: u32) -> Result<(), Refused>;

    /// Makes room of `N` bytes in front of the network header, behind the link header.
    fn insert_before_network<const N: usize>(&mut self) -> Result<(), Refused>;

    /// Puts what was [saved](Packet::save) in the place of everything from `offset` on.
    fn restore(&mut self, offset: usize, from: &Cell<[u8; PARKED_LEN_MAX]>, len: u32) -> Result<(), Refused>;

    /// Sends a copy of the packet as it is now through the hook that it is at: where requests, or where replies go.
    fn send_again(&mut self, hook: Direction) -> Result<(), Refused>;
}

/// Reads a header from a byte slice: [`Packet::header`] for packets that are one.
pub fn header_of_slice<H: Header>(bytes: &[u8], offset: usize) -> Option<H> {
    let slice = bytes.get(offset..)?.get(..size_of::<H>())?;
    // SAFETY: the slice has the size of H, the read is unaligned, and any bytes are a valid `Header` (sealed).
    #[allow(unsafe_code, reason = "the one place where bytes become a header struct on the host")]
    Some(unsafe { slice.as_ptr().cast::<H>().read_unaligned() })
}
