//! The straight way: packets of established flows, and packets that concern no Service.
//!
//! Nearly all packets are such packets. This code and its records are small enough to stay in the caches under load.
//! It leaves every other packet, unchanged and uncounted, to [`path`](crate::path), which would decide all packets
//! alike.

use crate::addr::{Addr, Proto};
use crate::client::Client;
use crate::flow;
use crate::forward::{Env, Event, FlowRef, HandOver, Hook, Known};
use crate::packet::{Addressee, Packet, Refused, Rewrite};
use crate::parse::{Headers, Parse, Plain, TcpFlags, Transport};
use crate::rewrite::translate;
use crate::table::{Action, Counter, DIRECT, Direction, EdgeState, FlowKey, Role, Tuple};
use crate::verdict::HookAction;

/// What a packet is, by its ports and flags, and by the bits of the address that it dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// It concerns no Service.
    Stranger,
    /// It may be of a known flow.
    Flow(Plain),
    /// It needs [`Run::handle`](crate::run::Run::handle).
    Other,
}

/// Handles a packet at a hook. Returns `None`, without any effect, if the packet needs
/// [`Run::handle`](crate::run::Run::handle).
#[inline(always)]
pub fn run<A: Parse, K: Known<A>>(packet: &mut impl Rewrite, hook: Hook, kernel: &K) -> Option<HookAction> {
    match glance(packet, hook, kernel) {
        Glance::Stranger => Some(HookAction::Next),
        Glance::Flow(plain) => known_flow(packet, plain, hook, kernel),
        Glance::Other => None,
    }
}

/// Judges a packet without looking for its flow. Asks in the order of cost: most packets are strangers by their ports
/// alone.
#[inline(always)]
pub fn glance<A: Parse, K: Known<A>>(packet: &impl Packet, hook: Hook, kernel: &K) -> Glance {
    if matches!(hook.direction, Direction::Request) {
        match packet.addressee() {
            Addressee::Interface => {}
            Addressee::Another => return Glance::Other,
            Addressee::Group => return Glance::Stranger,
        }
    }
    let Some(plain) = A::parse_plain(packet) else { return Glance::Other };
    let state = kernel.edge_state(hook.edge.id);
    let arrival = Arrival::new(hook, plain.transport, kernel);
    match arrival.likeness::<A, K>(&plain, &state, kernel) {
        Likeness::Stranger => Glance::Stranger,
        Likeness::Flow => Glance::Flow(plain),
        Likeness::Other => Glance::Other,
        Likeness::First => match A::destination(packet) {
            Some(dst) if !arrival.may_be_ours(&dst, state.may_have_client_port(plain.sport), kernel) => {
                Glance::Stranger
            }
            _ => Glance::Other,
        },
    }
}

/// Handles a packet that may be of a known flow. Returns `None`, without any effect, if the packet needs
/// [`Run::handle`](crate::run::Run::handle).
#[inline(always)]
pub fn known_flow<A: Parse, K: Known<A>>(
    packet: &mut impl Rewrite,
    plain: Plain,
    hook: Hook,
    kernel: &K,
) -> Option<HookAction> {
    let Hook { edge, direction } = hook;
    let arrival = Arrival::new(hook, plain.transport, kernel);
    let [src, dst] = A::source_and_destination(packet)?;
    let tuple = Tuple { src, dst, sport: plain.sport, dport: plain.dport };
    let mut key = FlowKey { edge: edge.id, tuple, proto: plain.transport.proto, direction, pad: 0 };
    let Ok(answered) = arrival.answered(&plain, &mut key, kernel) else { return None };
    let Some(entry) = answered.or_else(|| kernel.flow(&key)) else {
        return if arrival.is_strange(&key, kernel) { Some(HookAction::Next) } else { None };
    };
    // Numbers differ on both sides of the node, or a copy has a mark to lose.
    if entry.has_header() || (matches!(hook.direction, Direction::Request) && packet.is_copy()) {
        return None;
    }
    // Read first: a flow that has ended may be deleted at once.
    let frontend = entry.frontend();
    let to = arrival.follow(&key, entry, kernel)?;
    let is_transit = arrival.is_transit(&key, &to);
    let direction = key.direction;
    if frontend == DIRECT && key.tuple.has_ports_of(&to) {
        return Some(HookAction::Next);
    }
    if is_transit || K::HANDS_ALL_OVER {
        if !kernel.hand_over(packet, &key, &to, HandOver { l4: A::plain_l4(packet), is_transit }) {
            return None;
        }
        count(kernel, frontend, direction);
        return Some(if is_transit { HookAction::Forward } else { HookAction::ToBackend });
    }
    count(kernel, frontend, direction);
    if perform(packet, &plain, &key.tuple, &to).is_err() {
        kernel.count(Counter::DropRewrite);
        return Some(HookAction::Drop);
    }
    Some(HookAction::of_translated(direction, &key.tuple, &to))
}

/// Counts a packet that gets a new tuple.
#[inline(always)]
fn count<A: Addr>(kernel: &impl Known<A>, frontend: u32, direction: Direction) {
    kernel.count(match direction {
        Direction::Request => Counter::RequestTranslated,
        Direction::Reply => Counter::ReplyTranslated,
    });
    kernel.count_frontend(frontend, Event::Translated);
}

#[inline(always)]
fn perform<A: Parse>(
    packet: &mut impl Rewrite,
    &Plain { transport: Transport { proto, tcp }, .. }: &Plain,
    from: &Tuple<A>,
    to: &Tuple<A>,
) -> Result<(), Refused> {
    let l4 = A::plain_l4(packet);
    translate(packet, &Headers { proto, tcp, l4, has_ports: true, first_of: None }, from, to)
}

/// Completes a packet that was [handed over](Known::hand_over): gives it a new tuple, in place of its own.
#[inline(always)]
pub fn complete<A: Parse>(
    packet: &mut impl Rewrite,
    proto: Proto,
    [from, to]: &[Tuple<A>; 2],
    is_transit: bool,
) -> Result<(), Refused> {
    let plain = Plain { transport: Transport { proto, tcp: TcpFlags::default() }, sport: 0, dport: 0 };
    perform(packet, &plain, from, to)?;
    if is_transit {
        let l3 = packet.l3();
        A::spend_hop(packet, l3)?;
    }
    Ok(())
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
    /// Something that only the whole path knows.
    Other,
}

/// An answer to the node itself.
struct Own;

/// A packet at a hook, without its addresses.
struct Arrival {
    hook: Hook,
    transport: Transport,
    /// Whether evicted flows are repaired.
    repairs: bool,
}

impl Arrival {
    /// What the packet may be.
    #[inline(always)]
    fn likeness<A: Addr, K: Known<A>>(&self, plain: &Plain, state: &EdgeState, kernel: &K) -> Likeness {
        if matches!(self.hook.direction, Direction::Reply) && self.may_be_own_request(plain, kernel) {
            return Likeness::Other;
        }
        let client_port = match self.hook.direction {
            // The answer of another node's endpoint enters by the hook of its requests as well.
            Direction::Request if self.may_be_answer(plain, state) => {
                return if self.transport.opens() { Likeness::Other } else { Likeness::Flow };
            }
            // The reply of a pod to itself enters by the hook of its requests.
            Direction::Request if self.is_workload() && state.has_hairpins() => return Likeness::Other,
            Direction::Request => plain.sport,
            Direction::Reply => plain.dport,
        };
        let opens = self.transport.opens();
        if !state.may_have_client_port(client_port) {
            return match self.hook.direction {
                Direction::Request if opens => Likeness::First,
                Direction::Reply if self.may_come_home(plain.sport, state) => Likeness::Other,
                Direction::Request | Direction::Reply => Likeness::Stranger,
            };
        }
        // A SYN to a known flow ends it or repeats the first one.
        let is_syn = opens && self.transport.proto == Proto::TCP;
        if is_syn && matches!(self.hook.direction, Direction::Request) { Likeness::First } else { Likeness::Flow }
    }

    /// An arrival at a hook of this kernel.
    #[inline(always)]
    fn new(hook: Hook, transport: Transport, env: &impl Env) -> Self {
        Self { hook, transport, repairs: env.repairs_evicted_flows() }
    }

    /// Whether the packet may be the node's own and want the tuple of a forwarded flow.
    #[inline(always)]
    fn may_be_own_request<A: Addr, K: Known<A>>(&self, plain: &Plain, kernel: &K) -> bool {
        !self.is_workload() && kernel.forwards() && kernel.snat_ports().contains(plain.sport) && !kernel.is_forwarded()
    }

    /// Whether the packet may be an answer of another node's endpoint, by the port that it is for.
    #[inline(always)]
    fn may_be_answer(&self, plain: &Plain, state: &EdgeState) -> bool {
        let enters = matches!(self.hook.direction, Direction::Request);
        enters && !self.is_workload() && state.may_have_node_port(plain.dport)
    }

    /// The flow of an answer of another node's endpoint. The key is then that of the answer. An error if the node itself
    /// may have asked: the whole path decides.
    #[inline(always)]
    fn answered<A: Addr, K: Known<A>>(
        &self,
        plain: &Plain,
        key: &mut FlowKey<A>,
        kernel: &K,
    ) -> Result<Option<K::Flow>, Own> {
        if !matches!(self.hook.direction, Direction::Request) || self.is_workload() {
            return Ok(None);
        }
        if !self.may_be_answer(plain, &kernel.edge_state(key.edge)) {
            return Ok(None);
        }
        key.direction = Direction::Reply;
        let found = kernel.flow(key);
        if found.is_some_and(|entry| entry.frontend() == DIRECT) {
            return Err(Own);
        }
        let found = found.filter(|entry| !entry.to().dst.is(&key.tuple.dst));
        if found.is_none() {
            key.direction = Direction::Request;
        }
        Ok(found)
    }

    /// Whether the packet is between the network and an endpoint of another node.
    #[inline(always)]
    fn is_transit<A: Addr>(&self, key: &FlowKey<A>, to: &Tuple<A>) -> bool {
        let enters = matches!(self.hook.direction, Direction::Request) && !self.is_workload();
        enters && (matches!(key.direction, Direction::Reply) || !to.src.is(&key.tuple.src))
    }

    #[inline(always)]
    const fn is_workload(&self) -> bool {
        matches!(self.hook.edge.client, Client::Workload)
    }

    /// Whether a packet of no known flow concerns no Service.
    #[inline(always)]
    fn is_strange<A: Addr>(&self, key: &FlowKey<A>, kernel: &impl Known<A>) -> bool {
        match self.hook.direction {
            Direction::Request if self.transport.opens() => !self.may_be_ours(&key.tuple.dst, false, kernel),
            Direction::Request => !self.repairs,
            Direction::Reply => !self.may_come_home(key.tuple.sport, &kernel.edge_state(key.edge)),
        }
    }

    /// Whether the client may dial this address for a Service. Pods may also dial an endpoint directly, and so may clients
    /// in the network by TCP, from a port that a flow has.
    #[inline(always)]
    fn may_be_ours<A: Addr>(&self, dst: &A, has_flow: bool, kernel: &impl Known<A>) -> bool {
        let is_tcp = self.transport.proto == Proto::TCP;
        let may_dial_endpoint = self.is_workload() || (has_flow && is_tcp && kernel.forwards());
        kernel.may_be_ours(dst, Role::Frontend) || (may_dial_endpoint && kernel.may_be_ours(dst, Role::Endpoint))
    }

    /// Whether a packet to a pod may be a request of that same pod.
    #[inline(always)]
    fn may_come_home(&self, sport: u16, state: &EdgeState) -> bool {
        (self.transport.opens() || self.repairs) && self.is_workload() && state.may_have_client_port(sport)
    }

    /// The new tuple of a packet of a known flow. `None` if the packet may be of another flow, or its hairpin is to be
    /// sent back.
    #[inline(always)]
    fn follow<A: Addr, K: Known<A>>(&self, key: &FlowKey<A>, entry: K::Flow, kernel: &K) -> Option<Tuple<A>> {
        let tcp = self.transport.tcp;
        let (state, noted) = (entry.state(), entry.sequence());
        let quiet_jiffies = flow::quiet_jiffies(entry.last_seen_jiffies(), kernel.now_jiffies());
        let is_request = matches!(key.direction, Direction::Request);
        let is_of_flow = match self.transport.proto {
            Proto::TCP => is_request || !(tcp.has(TcpFlags::SYN) && state.has_ended()),
            Proto::UDP | Proto::SCTP => !is_request || self.is_served(entry, kernel),
        };
        let to = entry.to();
        let may_leave =
            if self.is_transit(key, &to) { kernel.may_forward() } else { !is_request || to.src.is(&key.tuple.src) };
        if !is_of_flow || !may_leave {
            return None;
        }
        if !flow::is_steady(state, tcp) || quiet_jiffies >= kernel.second_jiffies() {
            let is_over = || flow::is_over(key.proto, state, quiet_jiffies, &kernel.timeouts());
            if self.transport.proto == Proto::UDP && is_request && is_over() {
                return None;
            }
            return if kernel.settle(key, entry, &to, tcp) { Some(to) } else { None };
        }
        if tcp.sequence() != noted && flow::is_noted(state, tcp, noted) {
            entry.set_sequence(tcp.sequence());
        }
        Some(to)
    }

    /// Whether the frontend of a flow still balances over the flow's pool. The agent quarantines the IDs of frontends,
    /// so the frontend is still at the packet's destination.
    #[inline(always)]
    fn is_served<A: Addr, K: Known<A>>(&self, entry: K::Flow, kernel: &K) -> bool {
        let frontend = entry.frontend();
        let scope = kernel.scope(frontend, self.hook.edge.client);
        frontend != DIRECT && matches!(scope.action, Action::Balance) && scope.pool == entry.pool()
    }
}
