//! Packets in transit: to an endpoint of another node, and from there back to the client. This node is a router for
//! them (RFC 1812): it checks the hop limit and the length, and looks up the next hop.
//!
//! The checks come before the translation, so that an ICMP error quotes the packet as its sender knows it.

use core::mem::offset_of;

use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;

use crate::addr::Proto;
#[cfg(doc)]
use crate::forward::Known;
use crate::forward::Partner;
use crate::fragment::Fragments;
use crate::packet::{Packet, PacketMut};
use crate::parse::{Headers, Parse, TcpFlags};
use crate::reject::{Answer, Message, answer};
use crate::rewrite::translate;
use crate::run::Run;
use crate::table::{Counter, Direction, EDGE_TRANSIT, FlowKey};
use crate::verdict::HookAction;
use crate::way::Way;
use crate::work::Work;

impl<A: Answer, P: PacketMut, K: Fragments<A>> Run<'_, A, P, K> {
    /// Forwards the packet that [`Run::handle`] decided to forward.
    #[inline(always)]
    pub fn forward(&mut self) -> HookAction {
        let l3 = self.packet.l3();
        let l4 = self.packet.forget_offset(self.work.l4 as usize);
        let hops = A::hops(self.packet, l3).unwrap_or(0);
        if hops <= 1 {
            return self.answer(Message::HOPS_EXCEEDED, l4);
        }
        let len_bytes = len_on_the_way(self.packet, self.work.key.proto, l4);
        match self.kernel.way(self.work, len_bytes) {
            Way::Out => {}
            Way::TooLong { mtu_bytes } => return self.answer(Message::too_big(mtu_bytes), l4),
            Way::Nowhere => return self.drop_lost(l4),
        }
        let Work { key: FlowKey { tuple, proto, .. }, to, .. } = &*self.work;
        let headers = plain(*proto, l4);
        let done = match l4 {
            0 => Ok(()),
            _ => translate(self.packet, &headers, tuple, to),
        };
        if done.and_then(|()| A::spend_hop(self.packet, l3)).is_err() {
            self.kernel.count(Counter::DropRewrite);
            return HookAction::Drop;
        }
        self.kernel.count(Counter::Forwarded);
        HookAction::SendOut
    }

    /// Drops a packet whose route is gone. Datagrams of a client would keep such a flow for ever: it is forgotten, and the
    /// next one gets another endpoint.
    #[inline(always)]
    fn drop_lost(&mut self, l4: usize) -> HookAction {
        // Noted before the flow is forgotten, which says whose packet it was.
        let dropped = self.refuse(Counter::DropNoRoute, self.work.key.proto);
        if l4 != 0 && self.work.key.proto == Proto::UDP {
            Partner::forget_both(self.kernel, self.work);
        }
        dropped
    }

    /// Answers with an ICMP error. ICMP errors and later fragments, which are translated already, are dropped without an
    /// answer (RFC 1122 section 3.2.2).
    #[inline(always)]
    fn answer(&mut self, message: Message, l4: usize) -> HookAction {
        let proto = self.work.key.proto;
        let may_answer = l4 != 0 && self.kernel.may_reject(EDGE_TRANSIT);
        let dropped = self.refuse(message.counter(), proto);
        if !may_answer {
            return dropped;
        }
        // The key names the packet's own tuple, in whichever direction it was found.
        if answer(self.packet, &plain(proto, l4), message, self.work).is_err() {
            self.kernel.count(Counter::DropRewrite);
            return HookAction::Drop;
        }
        HookAction::SendBack
    }
}

/// The headers of a packet whose ports have been read.
#[inline(always)]
fn plain(proto: Proto, l4: usize) -> Headers {
    Headers { proto, tcp: TcpFlags::default(), l4, has_ports: true, first_of: None }
}

/// The length of a packet without options and extension headers where it leaves, as [`Known::hand_over`] gets it; `None`
/// if its hop limit is used up.
#[inline(always)]
pub fn plain_len_on_the_way<A: Parse>(packet: &impl Packet, proto: Proto, l4: usize) -> Option<u16> {
    let hops = A::hops(packet, packet.l3())?;
    if hops <= 1 { None } else { Some(len_on_the_way(packet, proto, l4)) }
}

/// The length of the packet where it leaves, or of the longest segment into which the device cuts it, in bytes from the
/// network header on.
#[inline(always)]
fn len_on_the_way(packet: &impl Packet, proto: Proto, l4: usize) -> u16 {
    let segment_bytes = packet.segment_bytes();
    // SCTP is cut at its own chunks (GSO_BY_FRAGS).
    if proto == Proto::SCTP && segment_bytes != 0 {
        return 1;
    }
    if segment_bytes == 0 || l4 == 0 {
        return clamped(packet.network_len());
    }
    let transport_len = match proto {
        // The data offset, in words of four bytes (RFC 9293 section 3.1).
        Proto::TCP => match packet.header::<[u8; 1]>(l4 + TCP_DATA_OFFSET) {
            Some([offset]) => u32::from(offset >> 4) * 4,
            None => TcpHdr::LEN as u32,
        },
        Proto::UDP | Proto::SCTP => UdpHdr::LEN as u32,
    };
    clamped((l4 - packet.l3()) as u32 + transport_len + segment_bytes)
}

/// Offset of the byte with the data offset in a TCP header.
const TCP_DATA_OFFSET: usize = offset_of!(TcpHdr, _bitfield_1);

/// A packet that is longer than a network header can say was joined by the device, and is cut again.
#[inline(always)]
fn clamped(len_bytes: u32) -> u16 {
    const MAX: u32 = u16::MAX as u32;
    if len_bytes > MAX { u16::MAX } else { len_bytes as u16 }
}

/// Whether a flow sends its packets through this node: what enters by an uplink and gets another source, or is an
/// answer.
#[inline(always)]
pub fn is_transit<A: Answer>(work: &Work<A>) -> bool {
    matches!(work.key.direction, Direction::Reply) || !work.to.src.is(&work.key.tuple.src)
}
