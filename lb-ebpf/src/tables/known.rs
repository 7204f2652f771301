//! [`Known`] over the maps, for the programs of tc and for that of a driver.

use core::ptr::addr_of;

use lb_common::flow;
use lb_common::forward::{self, Env, FlowRef as _, HandOver, Known, Part};
use lb_common::packet::Packet;
use lb_common::parse::TcpFlags;
use lb_common::table::{AddressBit, EdgeState, FlowKey, HOPS_ASKED, Role, Tuple, Uplink, edge_index};
use lb_common::transit;

use super::parts::FamilyTables;
use super::{FlowElement, work};
use crate::kernel::{Kernel, address_words, looks_back};
use crate::maps;
use crate::routes;
use crate::xdp::Xdp;

/// Packets that carry hardly more than headers, in bytes from the network header on. Others overtake the one that is left
/// to tc, which harms no acknowledgement.
const SHORT_BYTES: u16 = 100;
/// Seconds until a longer packet is left to tc.
const ASK_SECONDS: u32 = 4;

/// Whether a packet in transit is left to tc although the driver could send it: the redirect of tc makes the kernel ask
/// whether the next hop still has its MAC, which no lookup of a driver does (`neigh_event_send()` in
/// net/core/neighbour.c). Two hops with one element replace each other's notes, and are asked more often.
#[inline(always)]
fn asks(env: &impl Env, hop: u32, len_bytes: u16) -> bool {
    let Some(asked) = maps::hops_asked.get_ptr_mut(hop % HOPS_ASKED) else { return false };
    // SAFETY: array elements live as long as the map; an aligned word, which another CPU may write meanwhile.
    let before = unsafe { asked.read_volatile() };
    let (now, second) = (env.now_jiffies() as u32, env.second_jiffies() as u32);
    let limit = if len_bytes > SHORT_BYTES { second * ASK_SECONDS } else { second };
    let is_due = (before >> 32) as u32 != hop || now.wrapping_sub(before as u32) > limit;
    if is_due {
        // SAFETY: as above.
        unsafe { asked.write_volatile((u64::from(hop) << 32) | u64::from(now)) };
    }
    is_due
}

/// Whether a flow had paused before this packet, as it does once packets are lost. In transit, the next hop may be to
/// blame.
#[inline(always)]
fn has_paused(env: &impl Env, last_seen_jiffies: u64) -> bool {
    let busy_jiffies = env.second_jiffies() + env.second_jiffies() / 4;
    flow::quiet_jiffies(last_seen_jiffies, env.now_jiffies()) > busy_jiffies
}

#[inline(always)]
fn edge_state(edge: u32) -> EdgeState {
    let Some(state) = maps::edges.get_ptr(edge_index(edge)) else {
        return EdgeState { hairpins: 0, client_ports: 0 };
    };
    // SAFETY: array elements live as long as the map; two aligned words are read.
    unsafe {
        EdgeState { hairpins: addr_of!((*state).hairpins).read(), client_ports: addr_of!((*state).client_ports).read() }
    }
}

#[inline(always)]
fn flow<A: FamilyTables>(key: &FlowKey<A>) -> Option<FlowElement<A>> {
    match A::flows().get_ptr_mut(key) {
        None if looks_back() => A::previous().get_ptr_mut(key).map(FlowElement),
        found => found.map(FlowElement),
    }
}

#[inline(always)]
fn may_be_ours<A: FamilyTables>(addr: &A, role: Role) -> bool {
    let AddressBit { word, mask } = AddressBit::of(addr, role, address_words());
    // SAFETY: array elements live as long as the map; one aligned word is read.
    let bits = A::addresses().get_ptr(word).map_or(0, |word| unsafe { addr_of!((*word).bits).read_volatile() });
    bits & mask != 0
}

impl<A: FamilyTables> Known<A> for Kernel {
    type Flow = FlowElement<A>;

    #[inline(always)]
    fn edge_state(&self, edge: u32) -> EdgeState {
        edge_state(edge)
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey<A>) -> Option<FlowElement<A>> {
        flow(key)
    }

    #[inline(always)]
    fn may_be_ours(&self, addr: &A, role: Role) -> bool {
        may_be_ours(addr, role)
    }

    #[inline(always)]
    fn may_forward(&self) -> bool {
        self.forwards() && !self.subject.skb.is_in_vlan()
    }

    #[inline(always)]
    fn is_forwarded(&self) -> bool {
        self.subject.skb.is_marked_forwarded()
    }

    #[inline(always)]
    fn hand_over(&self, _: &impl Packet, key: &FlowKey<A>, to: &Tuple<A>, HandOver { l4, .. }: HandOver) -> bool {
        if let Some(work) = work::<A>() {
            work.take_transit(key, to, l4);
        }
        true
    }

    #[inline(always)]
    fn settle(&self, key: &FlowKey<A>, _: FlowElement<A>, _: &Tuple<A>, tcp: TcpFlags) -> bool {
        let Some(work) = work::<A>() else { return false };
        work.begin(key, tcp);
        A::run_apart(self.subject.skb, work, Part::Settle)
    }
}

impl<A: FamilyTables> Known<A> for Kernel<Xdp> {
    type Flow = FlowElement<A>;

    const HANDS_ALL_OVER: bool = true;

    #[inline(always)]
    fn edge_state(&self, edge: u32) -> EdgeState {
        edge_state(edge)
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey<A>) -> Option<FlowElement<A>> {
        flow(key)
    }

    #[inline(always)]
    fn may_be_ours(&self, addr: &A, role: Role) -> bool {
        may_be_ours(addr, role)
    }

    /// A tag in the packet makes it neither IPv4 nor IPv6 here, and the agent attaches no program where drivers take tags
    /// off.
    #[inline(always)]
    fn may_forward(&self) -> bool {
        self.forwards()
    }

    #[inline(always)]
    fn is_forwarded(&self) -> bool {
        false
    }

    /// Drivers can neither ask for a MAC nor answer with an ICMP error, and tc does both.
    #[inline(always)]
    fn hand_over(&self, packet: &impl Packet, key: &FlowKey<A>, to: &Tuple<A>, course: HandOver) -> bool {
        let HandOver { l4, is_transit } = course;
        let Some(work) = work::<A>() else { return false };
        work.take_transit(key, to, l4);
        if !is_transit {
            return self.subject.mark();
        }
        let Some(len_bytes) = transit::plain_len_on_the_way::<A>(packet, key.proto, l4) else { return false };
        self.subject.is_in_one_buffer()
            && routes::is_known_way(self.subject, work, len_bytes)
            && maps::uplinks.get_ptr(routes::egress_of(work)).is_some_and(|uplink| {
                // SAFETY: the agent replaces elements whole, and the kernel frees them only after this program run.
                unsafe { (*uplink).flags & Uplink::SENDS_FRAMES != 0 }
            })
            && !asks(self, routes::hop(work), len_bytes)
    }

    /// Packets in the middle of a flow stay in order: while some are left to tc, its others would overtake them there.
    #[inline(always)]
    fn settle(&self, key: &FlowKey<A>, entry: FlowElement<A>, to: &Tuple<A>, tcp: TcpFlags) -> bool {
        let Some(work) = work::<A>() else { return false };
        work.take_transit(key, to, 0);
        if transit::is_transit(work) && has_paused(self, entry.last_seen_jiffies()) {
            return false;
        }
        forward::keep(self, work, entry, tcp)
    }
}
