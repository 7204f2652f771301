//! The straight way: packets of established flows, and packets that concern no Service.
//!
//! Nearly all packets are such packets. This code and its records are small enough to stay in the caches under load.
//! It leaves every other packet, unchanged and uncounted, to [`path`](crate::path), which would decide all packets
//! alike.

use crate::addr::{Addr, Proto};
use crate::client::Client;
use crate::flow;
use crate::forward::{Event, FlowRef, Hook, Maps};
use crate::fragment::Fragments;
use crate::packet::{Addressee, PacketMut, Refused};
use crate::parse::{FirstOf, Headers, Parse, Plain, TcpFlags, Transport};
use crate::rewrite::translate;
use crate::table::{Action, Counter, DIRECT, Direction, EdgeState, FlowKey, Role, Tuple};
use crate::verdict::HookAction;

/// Handles a packet at a hook. Returns `None`, without any effect, if the packet needs
/// [`path::run`](crate::path::run).
///
/// Asks in the order of cost: most packets are strangers by their ports alone.
#[inline(always)]
pub fn run<A: Parse, K: Fragments<A>>(packet: &mut impl PacketMut, hook: Hook, kernel: &K) -> Option<HookAction> {
    if matches!(hook.direction, Direction::Request) {
        match packet.addressee() {
            Addressee::Interface => {}
            Addressee::Another => return None,
            Addressee::Group => return Some(HookAction::Next),
        }
    }
    let plain = A::parse_plain(packet)?;
    let Hook { edge, direction } = hook;
    let state = kernel.edge_state(edge.id);
    let arrival = Arrival { hook, transport: plain.transport, repairs: kernel.repairs_evicted_flows() };
    let likeness = arrival.likeness(&plain, &state)?;
    if likeness == Likeness::Stranger {
        return Some(HookAction::Next);
    }
    let [src, dst] = A::source_and_destination(packet)?;
    let tuple = Tuple { src, dst, sport: plain.sport, dport: plain.dport };
    let key = FlowKey { edge: edge.id, tuple, proto: plain.transport.proto, direction, pad: 0 };
    let flow = if likeness == Likeness::Flow { kernel.flow(&key) } else { None };
    match flow {
        Some(entry) => {
            // Read first: a flow that has ended may be deleted at once.
            let frontend = entry.frontend();
            let to = arrival.follow(&key, entry, kernel)?;
            if frontend == DIRECT && key.tuple.has_ports_of(&to) {
                return Some(HookAction::Next);
            }
            kernel.count(match direction {
                Direction::Request => Counter::RequestTranslated,
                Direction::Reply => Counter::ReplyTranslated,
            });
            kernel.count_frontend(frontend, Event::Translated);
            if perform(packet, &plain, &key.tuple, &to).is_err() {
                kernel.count(Counter::DropRewrite);
                return Some(HookAction::Drop);
            }
            Some(HookAction::of_translated(direction, &key.tuple, &to))
        }
        None if arrival.is_strange(&key, &state, kernel) => Some(HookAction::Next),
        None => None,
    }
}

#[inline(always)]
fn perform<A: Parse>(
    packet: &mut impl PacketMut,
    &Plain { transport: Transport { proto, tcp }, l4, .. }: &Plain,
    from: &Tuple<A>,
    to: &Tuple<A>,
) -> Result<(), Refused> {
    translate(packet, &Headers { proto, tcp, l4, first_of: FirstOf::NONE }, from, to)
}

/// What a packet may be, by its ports and flags alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    /// Neither of a flow nor the first packet of one.
    Stranger,
    /// Of no known flow, but it may open one.
    First,
    /// Of a known flow, or else as the others.
    Flow,
}

/// A packet at a hook, without its addresses.
struct Arrival {
    hook: Hook,
    transport: Transport,
    /// Whether evicted flows are repaired.
    repairs: bool,
}

impl Arrival {
    /// What the packet may be. `None` if the packet needs the whole path.
    #[inline(always)]
    fn likeness(&self, plain: &Plain, state: &EdgeState) -> Option<Likeness> {
        let client_port = match self.hook.direction {
            // The reply of a pod to itself enters by the hook of its requests.
            Direction::Request if self.is_workload() && state.has_hairpins() => return None,
            Direction::Request => plain.sport,
            Direction::Reply => plain.dport,
        };
        let opens = self.transport.opens();
        if !state.may_have_client_port(client_port) {
            return match self.hook.direction {
                Direction::Request if opens => Some(Likeness::First),
                Direction::Reply if self.may_come_home(plain.sport, state) => None,
                Direction::Request | Direction::Reply => Some(Likeness::Stranger),
            };
        }
        // A SYN to a known flow ends it or repeats the first one.
        let is_syn = opens && self.transport.proto == Proto::TCP;
        if is_syn && matches!(self.hook.direction, Direction::Request) {
            Some(Likeness::First)
        } else {
            Some(Likeness::Flow)
        }
    }

    #[inline(always)]
    const fn is_workload(&self) -> bool {
        matches!(self.hook.edge.client, Client::Workload)
    }

    /// Whether a packet of no known flow concerns no Service.
    #[inline(always)]
    fn is_strange<A: Addr>(&self, key: &FlowKey<A>, state: &EdgeState, kernel: &impl Fragments<A>) -> bool {
        let opens = self.transport.opens();
        match self.hook.direction {
            Direction::Request if opens => {
                // Pods may also dial an endpoint directly.
                let may_be = |role| kernel.may_be_ours(&key.tuple.dst, role);
                !(may_be(Role::Frontend) || (self.is_workload() && may_be(Role::Endpoint)))
            }
            Direction::Request => !self.repairs,
            Direction::Reply => !self.may_come_home(key.tuple.sport, state),
        }
    }

    /// Whether a packet to a pod may be a request of that same pod.
    #[inline(always)]
    fn may_come_home(&self, sport: u16, state: &EdgeState) -> bool {
        (self.transport.opens() || self.repairs) && self.is_workload() && state.may_have_client_port(sport)
    }

    /// The new tuple of a packet of a known flow. `None` if the packet may be of another flow, or its hairpin is to be
    /// sent back.
    #[inline(always)]
    fn follow<A: Addr, K: Maps<A>>(&self, key: &FlowKey<A>, entry: K::Flow, kernel: &K) -> Option<Tuple<A>> {
        let tcp = self.transport.tcp;
        let (state, noted) = (entry.state(), entry.sequence());
        let quiet_jiffies = flow::quiet_jiffies(entry.last_seen_jiffies(), kernel.now_jiffies());
        let is_request = matches!(self.hook.direction, Direction::Request);
        let is_of_flow = match self.transport.proto {
            Proto::TCP => is_request || !(tcp.has(TcpFlags::SYN) && state.has_ended()),
            Proto::UDP | Proto::SCTP => !is_request || self.is_served(entry, kernel),
        };
        let to = entry.to();
        if !is_of_flow || (is_request && !to.src.is(&key.tuple.src)) {
            return None;
        }
        if !flow::is_steady(state, tcp) || quiet_jiffies >= kernel.second_jiffies() {
            let is_over = || flow::is_over(key.proto, state, quiet_jiffies, &kernel.timeouts());
            if self.transport.proto == Proto::UDP && is_request && is_over() {
                return None;
            }
            return if kernel.settle(key, tcp) { Some(to) } else { None };
        }
        if tcp.sequence() != noted && flow::is_noted(state, tcp, noted) {
            entry.set_sequence(tcp.sequence());
        }
        Some(to)
    }

    /// Whether the frontend of a flow still balances over the flow's pool. The agent quarantines the IDs of frontends,
    /// so the frontend is still at the packet's destination.
    #[inline(always)]
    fn is_served<A: Addr, K: Maps<A>>(&self, entry: K::Flow, kernel: &K) -> bool {
        let frontend = entry.frontend();
        let scope = kernel.scope(frontend, self.hook.edge.client);
        frontend != DIRECT && matches!(scope.action, Action::Balance) && scope.pool == entry.pool()
    }
}
