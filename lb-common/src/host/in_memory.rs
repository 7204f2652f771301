//! A packet in memory, as the packet path reads and changes it.

use std::cell::Cell;

use crate::addr::Addr;
use crate::checksum;
use crate::packet::HEADER_ROOM;
use crate::packet::PARKED_LEN_MAX;
use crate::packet::{
    Addressee, ETHERNET_LEN, Header, Packet, PacketMut, Refused, Rewrite, Summed, ZeroSum, header_of_slice,
};
use crate::parse::ETHERTYPE_IPV4;
use crate::table::{Direction, Tuple};
use crate::verdict::HookAction;

/// A packet in memory, on a link whose header has this length.
pub struct InMemory<const LINK_LEN: usize> {
    /// The MAC of the interface where the packet is seen.
    interface: [u8; 6],
    /// The bytes from the link header on, or from the network header on if the link has none.
    pub bytes: Vec<u8>,
    /// The link header that was taken off. What a device reports beside the bytes is read from it.
    taken_off: Vec<u8>,
    /// The checksum that the device is to finish (CHECKSUM_PARTIAL): where the sum starts, and where it goes.
    pub offload: Option<(usize, usize)>,
    /// Frames that are re-injected at the same hook.
    pub again: Vec<Vec<u8>>,
    /// Frames that are re-injected behind the packet, marked as copies.
    pub copies: Vec<Vec<u8>>,
    /// Whether it is such a copy.
    pub is_copy: bool,
}

impl InMemory<ETHERNET_LEN> {
    /// A frame at an interface with this MAC.
    pub fn new(frame: &[u8], interface: [u8; 6]) -> Self {
        Self {
            interface,
            bytes: frame.to_vec(),
            taken_off: Vec::new(),
            offload: None,
            again: Vec::new(),
            copies: Vec::new(),
            is_copy: false,
        }
    }

    /// The same packet on a link without a header.
    pub fn bare(self) -> InMemory<0> {
        let Self { interface, mut bytes, offload, again, copies, is_copy, .. } = self;
        let taken_off = bytes.drain(..bytes.len().min(ETHERNET_LEN)).collect();
        let offload = offload.map(|(start, check)| (start - ETHERNET_LEN, check - ETHERNET_LEN));
        InMemory { interface, bytes, taken_off, offload, again, copies, is_copy }
    }

    /// The packet as a local socket sends it: the L4 checksum holds the sum of the pseudo header only.
    pub fn offload(mut self) -> Self {
        let is_v4 = self.ethertype() == ETHERTYPE_IPV4;
        let (addresses, start, proto) = if is_v4 {
            (26..34, 14 + usize::from(self.bytes[14] & 15) * 4, self.bytes[23])
        } else {
            let skip = match self.bytes[20] {
                0 | 43 | 60 => (usize::from(self.bytes[55]) + 1) * 8,
                51 => (usize::from(self.bytes[55]) + 2) * 4,
                _ => 0,
            };
            (22..54, 54 + skip, if skip > 0 { self.bytes[54] } else { self.bytes[20] })
        };
        let said_len = if is_v4 { 14 + self.be16(16) } else { 54 + self.be16(18) };
        if said_len != self.bytes.len() {
            // Truncated: no socket sends that.
            return self;
        }
        let check = match proto {
            6 => start + 16,
            17 => start + 6,
            _ => return self,
        };
        if is_v4 && self.be16(20) & 0x3fff != 0 {
            // Fragments are summed before they are made (skb_checksum_help() in net/ipv4/ip_output.c).
            return self;
        }
        if self.bytes.get(check..check + 2).is_none_or(|check| check == [0, 0]) {
            return self;
        }
        let pseudo_len = u32::try_from(self.bytes.len() - start).expect("a short packet");
        let seed = words(&self.bytes[addresses]) + words(&pseudo_len.to_be_bytes()) + words(&[0, proto]);
        self.bytes[check..check + 2].copy_from_slice(&checksum::fold(seed).to_ne_bytes());
        self.offload = Some((start, check));
        self
    }

    fn be16(&self, offset: usize) -> usize {
        usize::from(u16::from_be_bytes([self.bytes[offset], self.bytes[offset + 1]]))
    }
}

impl InMemory<0> {
    /// The same packet with the header that was taken off, swapped if the packet goes back: as on a link with a
    /// header.
    pub fn framed(self, action: HookAction) -> InMemory<ETHERNET_LEN> {
        let Self { interface, bytes, mut taken_off, offload, again, copies, is_copy } = self;
        if action == HookAction::SendBack {
            let (to, from) = taken_off.split_at_mut(6);
            to.swap_with_slice(&mut from[..6]);
        }
        let offload = offload.map(|(start, check)| (start + ETHERNET_LEN, check + ETHERNET_LEN));
        let bytes = [taken_off, bytes].concat();
        InMemory { interface, bytes, taken_off: Vec::new(), offload, again, copies, is_copy }
    }
}

impl<const LINK_LEN: usize> InMemory<LINK_LEN> {
    fn ethernet<H: Header>(&self, offset: usize) -> Option<H> {
        header_of_slice(if LINK_LEN == 0 { &self.taken_off } else { &self.bytes }, offset)
    }

    /// The destination MAC of the frame.
    pub fn mac(&self) -> [u8; 6] {
        self.ethernet(0).unwrap_or(self.interface)
    }

    /// The bytes that the device puts on the wire.
    pub fn finish(mut self) -> Vec<u8> {
        if let Some((start, check)) = self.offload {
            let sum = match !checksum::fold(words(&self.bytes[start..])) {
                0 => 0xffff,
                sum => sum,
            };
            self.bytes[check..check + 2].copy_from_slice(&sum.to_ne_bytes());
        }
        self.bytes
    }
}

/// The unfolded sum of bytes. An odd last byte is followed by a zero (RFC 1071).
fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum()
}

impl<const LINK_LEN: usize> Packet for InMemory<LINK_LEN> {
    const LINK_LEN: usize = LINK_LEN;

    fn ethertype(&self) -> u16 {
        self.ethernet::<[u8; 2]>(12).map_or(0, u16::from_be_bytes)
    }

    fn network_len(&self) -> u32 {
        u32::try_from(self.bytes.len() - LINK_LEN).expect("a packet")
    }

    fn segment_bytes(&self) -> u32 {
        0
    }

    fn addressee(&self) -> Addressee {
        match self.mac() {
            mac if mac == self.interface => Addressee::Interface,
            [first, ..] if first & 1 == 1 => Addressee::Group,
            _ => Addressee::Another,
        }
    }

    fn header<H: Header>(&self, offset: usize) -> Option<H> {
        header_of_slice(&self.bytes, offset)
    }

    fn read_addresses<A: Addr>(&self, offset: usize, tuple: &mut Tuple<A>) -> Option<()> {
        let bytes = self.bytes.get(offset..offset + 2 * size_of::<A>())?;
        tuple.src = A::read_from_prefix(bytes).ok()?.0;
        tuple.dst = A::read_from_suffix(bytes).ok()?.1;
        Some(())
    }

    fn address<A: Addr>(&self, offset: usize) -> Option<A> {
        A::read_from_prefix(self.bytes.get(offset..)?).ok().map(|(addr, _)| addr)
    }

    fn addresses<A: Addr>(&self, offset: usize) -> Option<[A; 2]> {
        let addr = A::new_zeroed();
        let mut tuple = Tuple { src: addr, dst: addr, sport: 0, dport: 0 };
        self.read_addresses(offset, &mut tuple)?;
        Some([tuple.src, tuple.dst])
    }

    fn is_copy(&self) -> bool {
        self.is_copy
    }

    fn save(&self, offset: usize, to: &Cell<[u8; PARKED_LEN_MAX]>) -> Option<u32> {
        let bytes = self.bytes.get(offset..)?;
        let mut saved = [0; PARKED_LEN_MAX];
        saved.get_mut(..bytes.len())?.copy_from_slice(bytes);
        to.set(saved);
        u32::try_from(bytes.len()).ok()
    }
}

impl<const LINK_LEN: usize> Rewrite for InMemory<LINK_LEN> {
    fn write_addresses<A: Addr>(&mut self, offset: usize, tuple: &Tuple<A>) -> Result<(), Refused> {
        let addresses = [tuple.src.as_bytes(), tuple.dst.as_bytes()].concat();
        self.bytes.get_mut(offset..offset + addresses.len()).ok_or(Refused)?.copy_from_slice(&addresses);
        Ok(())
    }

    fn write<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> Result<(), Refused> {
        self.bytes.get_mut(offset..offset + N).ok_or(Refused)?.copy_from_slice(bytes);
        Ok(())
    }

    fn adjust_l4_checksum(&mut self, offset: usize, diff: u32, summed: Summed, zero: ZeroSum) -> Result<(), Refused> {
        let check = u16::from_ne_bytes(self.header::<[u8; 2]>(offset).ok_or(Refused)?);
        if check == 0 && zero == ZeroSum::Absent {
            return Ok(());
        }
        // As inet_proto_csum_replace_by_diff() in net/core/utils.c: an unfinished checksum holds a sum, not its
        // complement.
        if self.offload.is_some() {
            return match summed {
                Summed::PseudoHeader(_) => self.write(offset, &(!checksum::adjust(!check, diff)).to_ne_bytes()),
                Summed::Payload => Ok(()),
            };
        }
        self.write(offset, &zero.adjust(check, diff).to_ne_bytes())
    }
}

impl<const LINK_LEN: usize> PacketMut for InMemory<LINK_LEN> {
    fn pull(&mut self) -> bool {
        false
    }

    fn set_len(&mut self, len: u32) -> Result<(), Refused> {
        if self.offload.is_some_and(|(_, check)| check + 2 > len as usize) {
            return Err(Refused);
        }
        self.bytes.resize(len as usize, 0);
        Ok(())
    }

    fn insert_before_network<const N: usize>(&mut self) -> Result<(), Refused> {
        self.bytes.splice(LINK_LEN..LINK_LEN, [0; N]);
        self.offload = self.offload.map(|(start, check)| (start + N, check + N));
        Ok(())
    }

    fn restore(&mut self, offset: usize, from: &Cell<[u8; PARKED_LEN_MAX]>, len: u32) -> Result<(), Refused> {
        self.bytes.truncate(offset);
        self.bytes.extend(&from.get()[..len as usize]);
        Ok(())
    }

    fn write_text(&mut self, offset: usize, bytes: &[u8; HEADER_ROOM], len: usize) -> Result<(), Refused> {
        self.bytes.get_mut(offset..offset + len).ok_or(Refused)?.copy_from_slice(&bytes[..len]);
        Ok(())
    }

    fn send_copy(&mut self) -> Result<(), Refused> {
        let whole = Self {
            bytes: self.bytes.clone(),
            taken_off: self.taken_off.clone(),
            again: vec![],
            copies: vec![],
            ..*self
        };
        let taken_off = whole.taken_off.clone();
        self.copies.push([taken_off, whole.finish()].concat());
        Ok(())
    }

    fn take_copy(&mut self) -> bool {
        std::mem::take(&mut self.is_copy)
    }

    fn send_again(&mut self, _: Direction) -> Result<(), Refused> {
        self.again.push([self.taken_off.clone(), self.bytes.clone()].concat());
        Ok(())
    }
}
