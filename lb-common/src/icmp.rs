//! ICMP errors about translated flows: the embedded packet and the outer addresses become what the reader knows, so
//! that the error reaches the socket that dialled (RFC 5508 section 4).
//!
//! Redirects about such flows are dropped: they would name an address that the reader never sent to.

use core::mem::offset_of;

use network_types::icmp::Icmpv4Hdr;
use network_types::tcp::TcpHdr;

use crate::addr::{Addr, Family, Proto};
use crate::checksum;
use crate::client::Client;
use crate::forward::{FlowRef as _, HeaderRef as _, Hook, Maps, Whose, Work, is_heard, whose};
use crate::packet::{Packet, PacketMut, Refused, Summed, ZeroSum};
use crate::parse::{Network, Parse};
use crate::reject::Answer;
use crate::rewrite::turn_round;
use crate::run::Run;
use crate::table::{Counter, DIRECT, Direction, FlowKey, Tuple};
use crate::transit::is_transit;
use crate::verdict::HookAction;

/// The header of an ICMP error in front of the embedded packet; ICMPv6 has the same (RFC 792, RFC 4443).
const HEADER_LEN: usize = size_of::<Icmpv4Hdr>();

/// An ICMPv6 redirect in front of its options: type to reserved, target, destination (RFC 4861 section 4.5).
const REDIRECT6_LEN: usize = HEADER_LEN + 2 * 16;
/// The option that quotes the packet, and its length in front of the packet (RFC 4861 section 4.6.3).
const REDIRECTED_OPTION: u8 = 4;
const REDIRECTED_OPTION_LEN: usize = 8;

/// What an ICMP message means for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Error,
    Redirect,
    Other,
}

/// The packet that a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// One of a flow whose other end is at this node.
    Flow,
    /// A hairpin reply of the pod that complains: the message goes back to the pod.
    OwnReply,
    /// One of a flow between the network and an endpoint of another node.
    Transit,
}

/// The kind of the message at `l4`, by its type: RFC 792 for IPv4, RFC 4443 and RFC 4861 for IPv6.
#[inline(always)]
fn kind<A: Addr>(packet: &impl Packet, l4: usize) -> Kind {
    let Some([kind]) = packet.header::<[u8; 1]>(l4) else { return Kind::Other };
    match (A::FAMILY, kind) {
        (Family::V4, 3 | 4 | 11 | 12) | (Family::V6, 1..=4) => Kind::Error,
        (Family::V4, 5) | (Family::V6, 137) => Kind::Redirect,
        _ => Kind::Other,
    }
}

impl<A: Answer, P: PacketMut, K: Maps<A>> Run<'_, A, P, K> {
    /// Handles an ICMP message at `l4`. At ingress (`Request`) the client complains about replies. At egress (`Reply`)
    /// the network or the backend complains about requests.
    ///
    /// A function of its own: ordinary packets need none of it.
    #[inline(never)]
    pub(crate) fn message(&mut self, l4: usize) -> HookAction {
        self.packet.pull();
        let kind = kind::<A>(self.packet, l4);
        let embedded = match (kind, A::FAMILY) {
            (Kind::Other, _) => return HookAction::Next,
            (Kind::Redirect, Family::V6) => redirected(self.packet, l4),
            (Kind::Redirect, Family::V4) | (Kind::Error, _) => Some(l4 + HEADER_LEN),
        };
        let Some(embedded) = embedded else { return HookAction::Next };
        let Some(inner_l4) = self.read_embedded(embedded) else { return HookAction::Next };
        let Some(about) = self.look_up() else { return HookAction::Next };
        if kind == Kind::Redirect {
            self.kernel.count(Counter::DropRedirect);
            return HookAction::Drop;
        }
        self.kernel.count(Counter::IcmpTranslated);
        let done = self
            .renumber_quoted(l4, inner_l4)
            .and_then(|()| translate(self.packet, l4, inner_l4, about, self.work))
            .and_then(|()| if about == About::OwnReply { turn_round(self.packet) } else { Ok(()) });
        if done.is_err() {
            self.kernel.count(Counter::DropRewrite);
            return HookAction::Drop;
        }
        match about {
            About::Flow => self.work.translated(self.work.key.direction),
            About::OwnReply => HookAction::SendBack,
            About::Transit => self.work.forward_translated(),
        }
    }

    /// An error about a request whose flow's header is due: the quoted number becomes the one that the client sent. Else it
    /// would take the error for a forged one (RFC 5927).
    #[inline(always)]
    fn renumber_quoted(&mut self, l4: usize, inner_l4: usize) -> Result<(), Refused> {
        let (kernel, work) = (self.kernel, &mut *self.work);
        if work.key.proto != Proto::TCP || matches!(work.key.direction, Direction::Request) {
            return Ok(());
        }
        work.partner_key.set_partner(&work.key, &work.to);
        let Some(row) = kernel.header(&work.partner_key) else { return Ok(()) };
        let Some(quoted) = self.packet.header::<[u8; 4]>(inner_l4 + offset_of!(TcpHdr, seq)) else { return Ok(()) };
        let known = row.read().quoted(u32::from_be_bytes(quoted)).to_be_bytes();
        self.packet.write(inner_l4 + offset_of!(TcpHdr, seq), &known)?;
        let diff = checksum::diff(checksum::sum(&quoted), checksum::sum(&known));
        let check = l4 + offset_of!(Icmpv4Hdr, check);
        self.packet.adjust_l4_checksum(check, diff, Summed::Payload, ZeroSum::Valid)
    }

    /// Reads the embedded packet at `l3`, of which a router may have kept only eight bytes behind the network header.
    /// Leaves the key of its flow entry in `work` and returns the offset of its transport header.
    #[inline(always)]
    fn read_embedded(&mut self, l3: usize) -> Option<usize> {
        let (packet, work) = (&*self.packet, &mut *self.work);
        let embedded = &mut work.to;
        let Network::Carries { number, l4, .. } = A::network(packet, l3, embedded) else { return None };
        let proto = Proto::from_number(number)?;
        let l4 = packet.forget_offset(l4);
        let [s0, s1, d0, d1] = packet.header::<[u8; 4]>(l4)?;
        embedded.sport = u16::from_be_bytes([s0, s1]);
        embedded.dport = u16::from_be_bytes([d0, d1]);
        work.key.edge = self.hook.edge.id;
        work.key.proto = proto;
        work.key.direction = self.hook.direction;
        work.key.pad = 0;
        work.key.tuple.set_reversed(&work.to);
        Some(l4)
    }

    /// Finds the flow and leaves the new tuple of its packets in `work`. None if no translated flow is found.
    #[inline(always)]
    fn look_up(&mut self) -> Option<About> {
        let (Hook { edge, direction }, kernel, work) = (self.hook, self.kernel, &mut *self.work);
        if let Some(entry) = kernel.flow(&work.key) {
            entry.read_to(&mut work.to);
            let is_translated = !work.is_untouched(entry.frontend()) && is_heard(entry.frontend(), kernel, work);
            if !is_translated {
                return None;
            }
            let is_transit = matches!(edge.client, Client::External) && is_transit(work);
            if direction == Direction::Reply || !is_transit {
                return Some(About::Flow);
            }
            return if kernel.may_forward() { Some(About::Transit) } else { None };
        }
        if direction == Direction::Request && matches!(edge.client, Client::External) {
            return self.look_up_answer();
        }
        let may_be_own = direction == Direction::Request && matches!(edge.client, Client::Workload);
        if !may_be_own || !kernel.edge_state(edge.id).has_hairpins() || whose(kernel, work) != Whose::Node {
            return None;
        }
        work.key.direction = Direction::Reply;
        let entry = kernel.flow(&work.key)?;
        entry.read_to(&mut work.to);
        if work.is_untouched(entry.frontend()) { None } else { Some(About::OwnReply) }
    }

    /// As [`Self::look_up`], for what the network says about packets to an endpoint of another node.
    #[inline(always)]
    fn look_up_answer(&mut self) -> Option<About> {
        let (kernel, work) = (self.kernel, &mut *self.work);
        work.key.direction = Direction::Reply;
        let entry = kernel.flow(&work.key)?;
        entry.read_to(&mut work.to);
        if entry.frontend() == DIRECT {
            // The node's own connection, with another port.
            let is_ours = !work.is_untouched(DIRECT) && whose(kernel, work) == Whose::Node;
            return if is_ours { Some(About::Flow) } else { None };
        }
        let is_transit = !work.to.dst.is(&work.key.tuple.dst) && kernel.may_forward();
        if is_transit && is_heard(entry.frontend(), kernel, work) { Some(About::Transit) } else { None }
    }
}

/// The offset of the packet that an ICMPv6 redirect quotes. Linux puts that option first, or behind one with the
/// target's link-layer address.
#[inline(always)]
fn redirected(packet: &impl Packet, l4: usize) -> Option<usize> {
    let mut option = l4 + REDIRECT6_LEN;
    for _ in 0..2 {
        let [kind, units] = packet.header::<[u8; 2]>(option)?;
        if kind == REDIRECTED_OPTION {
            return Some(option + REDIRECTED_OPTION_LEN);
        }
        option = packet.forget_offset(option + usize::from(units) * 8);
    }
    None
}

/// Gives the embedded packet at `inner_l4` and the outer addresses the form that the reader of the message knows.
#[inline(always)]
fn translate<A: Parse>(
    packet: &mut impl PacketMut,
    l4: usize,
    inner_l4: usize,
    about: About,
    work: &mut Work<A>,
) -> Result<(), Refused> {
    let Work { key: FlowKey { tuple: known, direction, .. }, to, partner_key, flow, other_key, .. } = work;
    // The embedded packet went the opposite way of the flow entry that was found.
    let (inner, before, after) = (&mut partner_key.tuple, &mut flow.to, &mut other_key.tuple);
    inner.set_reversed(to);
    let is_request = matches!(direction, Direction::Request);
    let ([s0, s1], [d0, d1]) = (inner.sport.to_be_bytes(), inner.dport.to_be_bytes());
    packet.write(inner_l4, &[s0, s1, d0, d1])?;
    A::write_addresses(packet, l4 + HEADER_LEN, known, inner)?;
    let l3 = packet.l3();
    if matches!(A::network(packet, l3, before), Network::Other | Network::Short(_)) {
        return Err(Refused);
    }
    after.dst = to.dst;
    // An error from the other end itself seems to come from the address that the reader dialled. An error from a
    // router keeps its source, but an endpoint of another node may not know the way to the client's routers.
    let is_replaced = before.src.is(&known.src) || (about == About::Transit && is_request);
    after.src = if is_replaced { to.src } else { before.src };
    A::write_addresses(packet, l3, before, after)?;
    adjust_checksums(packet, l4, [&*known, &*inner], [&*before, &*after])
}

/// The checksum of the message covers the embedded packet. An embedded IPv4 header sums to zero before and after.
#[inline(always)]
fn adjust_checksums<A: Addr>(
    packet: &mut impl PacketMut,
    l4: usize,
    inner: [&Tuple<A>; 2],
    outer: [&Tuple<A>; 2],
) -> Result<(), Refused> {
    let check = l4 + offset_of!(Icmpv4Hdr, check);
    let ports = inner.map(|tuple| checksum::port_word(tuple.sport) + checksum::port_word(tuple.dport));
    let addresses = |tuple: &Tuple<A>| tuple.src.sum() + tuple.dst.sum();
    let [old, new] = match A::FAMILY {
        Family::V4 => ports,
        Family::V6 => [ports[0] + addresses(inner[0]), ports[1] + addresses(inner[1])],
    };
    packet.adjust_l4_checksum(check, checksum::diff(old, new), Summed::Payload, ZeroSum::Valid)?;
    match A::FAMILY {
        Family::V4 => Ok(()),
        Family::V6 => {
            let diff = checksum::diff(addresses(outer[0]), addresses(outer[1]));
            packet.adjust_l4_checksum(check, diff, Summed::PseudoHeader(A::FAMILY), ZeroSum::Valid)
        }
    }
}
