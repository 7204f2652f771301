//! The straight way: packets of established flows, and packets that concern no Service.
//!
//! Nearly all packets are such packets. This code and its records are small enough to stay in the caches under load.
//! It leaves every other packet, unchanged and uncounted, to [`path`](crate::path), which would decide all packets
//! alike.

use crate::addr::{Addr, Proto};
use crate::client::Client;
use crate::flow;
use crate::forward::{Edge, Env, Event, FlowRef, Tables};
use crate::fragment::Fragments;
use crate::packet::{Addressee, PacketMut, Refused};
use crate::parse::{FirstOf, Headers, Parse, Plain, TcpFlags, Transport};
use crate::rewrite::translate;
use crate::table::{Action as Decided, Counter, DIRECT, Direction, EdgeState, FlowKey, Role, Tuple};
use crate::verdict::Action;

/// Handles a packet that comes in at `edge`. Returns `None`, without any effect, if the packet needs
/// [`path::ingress`](crate::path::ingress).
#[inline(always)]
pub fn ingress<A: Parse, T: Tables<A> + Fragments<A>, E: Env>(
    packet: &mut impl PacketMut,
    edge: Edge,
    tables: &T,
    env: &E,
) -> Option<Action> {
    match packet.addressee() {
        Addressee::Interface => at_hook(packet, (edge, Direction::Request), tables, env),
        Addressee::Another => None,
        Addressee::Group => Some(Action::Next),
    }
}

/// As [`ingress`], for a packet that goes out at `edge` and [`path::egress`](crate::path::egress).
#[inline(always)]
pub fn egress<A: Parse, T: Tables<A> + Fragments<A>, E: Env>(
    packet: &mut impl PacketMut,
    edge: Edge,
    tables: &T,
    env: &E,
) -> Option<Action> {
    at_hook(packet, (edge, Direction::Reply), tables, env)
}

/// Asks in the order of cost: most packets are strangers by their ports alone.
#[inline(always)]
fn at_hook<A: Parse, T: Tables<A> + Fragments<A>, E: Env>(
    packet: &mut impl PacketMut,
    (edge, direction): (Edge, Direction),
    tables: &T,
    env: &E,
) -> Option<Action> {
    let plain = A::parse_plain(packet)?;
    let state = tables.edge_state(edge.id);
    let hook =
        Hook { client: edge.client, direction, transport: plain.transport, repairs: env.repairs_evicted_flows() };
    let likeness = hook.likeness(&plain, &state)?;
    if likeness == Likeness::Stranger {
        return Some(Action::Next);
    }
    let [src, dst] = A::source_and_destination(packet)?;
    let tuple = Tuple { src, dst, sport: plain.sport, dport: plain.dport };
    let key = FlowKey { edge: edge.id, tuple, proto: plain.transport.proto, direction, pad: 0 };
    let flow = if likeness == Likeness::Flow { tables.flow(&key) } else { None };
    match flow {
        Some(entry) => {
            // Read first: a flow that has ended may be deleted at once.
            let frontend = entry.frontend();
            let to = hook.follow(&key, entry, tables, env)?;
            if frontend == DIRECT && key.tuple.has_ports_of(&to) {
                return Some(Action::Next);
            }
            tables.count(match direction {
                Direction::Request => Counter::RequestTranslated,
                Direction::Reply => Counter::ReplyTranslated,
            });
            tables.count_frontend(frontend, Event::Translated);
            if perform(packet, &plain, &key.tuple, &to).is_err() {
                tables.count(Counter::DropRewrite);
                return Some(Action::Drop);
            }
            Some(Action::of_translated(direction, &key.tuple, &to))
        }
        None if hook.is_strange(&key, &state, tables) => Some(Action::Next),
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

/// What is the same for all addresses.
struct Hook {
    client: Client,
    direction: Direction,
    transport: Transport,
    /// Whether evicted flows are repaired.
    repairs: bool,
}

impl Hook {
    /// What the packet may be. `None` if the packet needs the whole path.
    #[inline(always)]
    fn likeness(&self, plain: &Plain, state: &EdgeState) -> Option<Likeness> {
        let client_port = match self.direction {
            // The reply of a pod to itself enters by the hook of its requests.
            Direction::Request if self.is_workload() && state.has_hairpins() => return None,
            Direction::Request => plain.sport,
            Direction::Reply => plain.dport,
        };
        let opens = self.transport.opens();
        if !state.may_have_client_port(client_port) {
            return match self.direction {
                Direction::Request if opens => Some(Likeness::First),
                Direction::Reply if self.may_come_home(plain.sport, state) => None,
                Direction::Request | Direction::Reply => Some(Likeness::Stranger),
            };
        }
        // A SYN to a known flow ends it or repeats the first one.
        let is_syn = opens && self.transport.proto == Proto::TCP;
        if is_syn && matches!(self.direction, Direction::Request) {
            Some(Likeness::First)
        } else {
            Some(Likeness::Flow)
        }
    }

    #[inline(always)]
    const fn is_workload(&self) -> bool {
        matches!(self.client, Client::Workload)
    }

    /// Whether a packet of no known flow concerns no Service.
    #[inline(always)]
    fn is_strange<A: Addr>(&self, key: &FlowKey<A>, state: &EdgeState, tables: &impl Fragments<A>) -> bool {
        let opens = self.transport.opens();
        match self.direction {
            Direction::Request if opens => {
                // Pods may also dial an endpoint directly.
                let may_be = |role| tables.may_be_ours(&key.tuple.dst, role);
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
    fn follow<A: Addr, T: Tables<A>, E: Env>(
        &self,
        key: &FlowKey<A>,
        entry: T::Flow,
        tables: &T,
        env: &E,
    ) -> Option<Tuple<A>> {
        let tcp = self.transport.tcp;
        let (state, noted) = (entry.state(), entry.sequence());
        let quiet_jiffies = flow::quiet_jiffies(entry.last_seen_jiffies(), env.now_jiffies());
        let is_request = matches!(self.direction, Direction::Request);
        let is_of_flow = match self.transport.proto {
            Proto::TCP => is_request || !(tcp.has(TcpFlags::SYN) && state.has_ended()),
            Proto::UDP | Proto::SCTP => !is_request || self.is_served(entry, tables),
        };
        let to = entry.to();
        if !is_of_flow || (is_request && !to.src.is(&key.tuple.src)) {
            return None;
        }
        if !flow::is_steady(state, tcp) || quiet_jiffies >= env.second_jiffies() {
            let is_over = || flow::is_over(key.proto, state, quiet_jiffies, &env.timeouts());
            if self.transport.proto == Proto::UDP && is_request && is_over() {
                return None;
            }
            return if tables.settle(env, key, tcp) { Some(to) } else { None };
        }
        if tcp.sequence() != noted && flow::is_noted(state, tcp, noted) {
            entry.set_sequence(tcp.sequence());
        }
        Some(to)
    }

    /// Whether the frontend of a flow still balances over the flow's pool. The agent quarantines the IDs of frontends,
    /// so the frontend is still at the packet's destination.
    #[inline(always)]
    fn is_served<A: Addr, T: Tables<A>>(&self, entry: T::Flow, tables: &T) -> bool {
        let frontend = entry.frontend();
        let scope = tables.scope(frontend, self.client);
        frontend != DIRECT && matches!(scope.action, Decided::Balance) && scope.pool == entry.pool()
    }
}
