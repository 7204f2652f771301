//! The records that a decision works on. They carry nothing from one packet to the next.

use crate::addr::{Addr, Proto};
use crate::header::located::Located;
use crate::header::rules::{Edit, Segment};
use crate::packet::HEADER_ROOM;
use crate::parse::TcpFlags;
use crate::table::{
    Affinity, AffinityKey, Counter, DIRECT, Direction, EndpointKey, Fate, Flow, FlowKey, FlowState, Fragment,
    FragmentKey, FrontendKey, MemberKey, ProxyHeader, Scope, ScopeFlags, SourceRangeKey, Tuple,
};
use crate::verdict::{Course, DropReason, HookAction};
use crate::way::Reach;

/// What is fixed of a new flow before its tuple is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Pin {
    Nothing = 0,
    /// The backend that the client used last.
    LastBackend = 1,
    /// The backend of the flow's hash.
    Hash = 2,
    /// The backend of the flow's hash, and the source port, by which the backend knows the connection.
    Tuple = 3,
}

/// What a packet means for the PROXY header of its flow: a value of [`Work::wish`].
pub(crate) struct HeaderWish;

impl HeaderWish {
    pub const NOTHING: u32 = 0;
    /// The flow's header is due.
    pub const DUE: u32 = 1;
    /// It opens a flow that needs a header, of version 1.
    pub const NEW_V1: u32 = 2;
    /// The same, of version 2.
    pub const NEW_V2: u32 = 4;
    /// A bit beside these two: the flow had a connection before.
    pub const RENEWS: u32 = 8;

    /// The wish of a packet that opens a flow to a frontend with this scope.
    #[inline(always)]
    pub const fn of_new(scope: Scope) -> u32 {
        if scope.has(ScopeFlags::HEADER_V2) {
            Self::NEW_V2
        } else if scope.has(ScopeFlags::HEADER_V1) {
            Self::NEW_V1
        } else {
            Self::NOTHING
        }
    }
}

/// The records that a decision works on. In the kernel they are in a per-CPU map, because all of a program shares 512
/// bytes of stack.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Work<A> {
    /// The packet's own flow key. The parser writes its tuple.
    pub key: FlowKey<A>,
    /// The packet's new tuple.
    pub(crate) to: Tuple<A>,
    /// The key of the flow's other entry.
    pub(crate) partner_key: FlowKey<A>,
    /// A key of another flow: one that holds the wanted tuple, a spent one, or the oldest half-open one.
    pub(crate) other_key: FlowKey<A>,
    /// The entry to insert.
    pub(crate) flow: Flow<A>,
    /// The destination, as a key of the frontends and of the endpoints.
    pub(crate) frontend_key: FrontendKey<A>,
    pub(crate) endpoint_key: EndpointKey<A>,
    /// The client, as a key of the source ranges.
    pub(crate) source_key: SourceRangeKey<A>,
    pub(crate) affinity_key: AffinityKey<A>,
    /// The backend that the flow is pinned to, and when its client last opened a flow.
    pub(crate) affinity: Affinity<A>,
    pub(crate) member_key: MemberKey<A>,
    /// 1 if the destination MAC is not the interface's.
    pub(crate) stray: u32,
    /// Flows deleted for the new one. In a local variable, the verifier would walk each possible number separately.
    pub(crate) given_up: u32,
    pub(crate) pin: Pin,
    /// Slots of the pool to choose from.
    pub(crate) count: u16,
    /// Why no flow was created.
    pub(crate) refused: DropReason,
    /// The frontend whose flow takes the packet. Also of a request whose header is due, until it is counted.
    pub(crate) frontend: u32,
    /// What became of the packet.
    pub(crate) reason: Counter,
    /// The packet's flags, for parts of the decision that are functions of their own.
    pub(crate) tcp: TcpFlags,
    /// The datagram that the packet is a fragment of, and its note.
    pub(crate) fragment_key: FragmentKey<A>,
    pub(crate) fragment: Fragment<A>,
    /// Whether the new flow's backend may be on another node.
    pub(crate) masquerades: u32,
    /// 1: a flow to another node may take over the port of one that is over or idle.
    pub(crate) takes_over: u32,
    /// How the node reaches the new flow's backend.
    pub(crate) reach: Reach,
    /// Offset of the transport header of a packet that is forwarded; 0: the packet is translated already.
    pub(crate) l4: u32,
    /// [`HeaderWish`].
    pub(crate) wish: u32,
    /// How the packet continues, once its header is dealt with.
    pub(crate) course: Course,
    /// The segment of the packet, and what becomes of it.
    pub(crate) located: Located,
    pub(crate) edit: Edit,
    /// The bytes of a header, with zeros behind them, and their number.
    pub(crate) text: [u8; HEADER_ROOM],
    pub(crate) text_len: u32,
    /// The sum of the text.
    pub(crate) text_sum: u32,
    /// Whether the header is of version 2.
    pub(crate) spells_v2: u32,
    /// The record of the kernel's route lookup: `struct bpf_fib_lookup` in include/uapi/linux/bpf.h.
    pub route: [u32; 16],
}

impl<A: Addr> Work<A> {
    /// Empty records.
    pub fn new() -> Self {
        let addr = A::new_zeroed();
        let tuple = Tuple { src: addr, dst: addr, sport: 0, dport: 0 };
        let key = FlowKey::new(0, Direction::Request, Proto::TCP, tuple);
        let state = FlowState::New;
        let flow = Flow { to: tuple, frontend: 0, pool: 0, state, marks: 0, seq_high: 0, last_seen_jiffies: 0 };
        let frontend_key = FrontendKey { addr, port: 0, proto: Proto::TCP, pad: 0 };
        let endpoint_key = EndpointKey { addr, port: 0, pad: 0 };
        let source_key = SourceRangeKey::of_prefix(0, addr, 0);
        let affinity_key = AffinityKey { service_port: 0, client: addr };
        let affinity = Affinity { addr, port: 0, pad: 0, last_seen_secs: 0 };
        let member_key = MemberKey { service_port: 0, addr, port: 0, pad: 0 };
        let (proto, direction) = (Proto::TCP, Direction::Request);
        let fragment_key = FragmentKey { edge: 0, src: addr, dst: addr, id: 0, proto, direction, pad: 0 };
        let fate = Fate::Dropped;
        let fragment = Fragment { src: addr, dst: addr, fate, pad: [0; 3], parked: 0, since_jiffies: 0 };
        Self {
            key,
            to: tuple,
            partner_key: key,
            other_key: key,
            flow,
            frontend_key,
            endpoint_key,
            source_key,
            affinity_key,
            affinity,
            member_key,
            stray: 0,
            given_up: 0,
            pin: Pin::Nothing,
            count: 0,
            refused: DropReason::FlowTable,
            frontend: DIRECT,
            reason: Counter::Rejected,
            tcp: TcpFlags::default(),
            fragment_key,
            fragment,
            masquerades: 0,
            takes_over: 0,
            reach: Reach::Stack,
            l4: 0,
            wish: HeaderWish::NOTHING,
            course: Course::Stack,
            located: Located::NOWHERE,
            edit: Segment::NONE.unchanged(ProxyHeader::new(0, false, false)),
            text: [0; HEADER_ROOM],
            text_len: 0,
            text_sum: 0,
            spells_v2: 0,
            route: [0; 16],
        }
    }

    /// Takes over a packet whose key is complete.
    #[inline(always)]
    pub const fn begin(&mut self, key: &FlowKey<A>, tcp: TcpFlags) {
        self.key.set(key);
        self.tcp = tcp;
    }

    /// Forgets the last packet, for the debug channel: a decision writes only what it needs.
    #[inline(always)]
    pub fn forget_outcome(&mut self) {
        let addr = A::new_zeroed();
        let nothing = Tuple { src: addr, dst: addr, sport: 0, dport: 0 };
        self.key.tuple.set(&nothing);
        self.to.set(&nothing);
        (self.reason, self.frontend) = (Counter::RequestTranslated, DIRECT);
    }

    /// Why the packet was let go or refused, or that it got a flow, and its frontend: [`Counter::RequestTranslated`] if
    /// it is of a known flow or of no Service.
    #[inline(always)]
    pub const fn outcome(&self) -> (Counter, u32) {
        (self.reason, self.frontend)
    }

    /// What the hook does with the translated packet.
    #[inline(always)]
    pub(crate) fn translated(&self, direction: Direction) -> HookAction {
        HookAction::of_translated(direction, &self.key.tuple, &self.to)
    }

    /// Takes over a packet that is to be forwarded.
    #[inline(always)]
    pub const fn take_transit(&mut self, key: &FlowKey<A>, to: &Tuple<A>, l4: usize) {
        self.key.set(key);
        self.to.set(to);
        self.l4 = l4 as u32;
    }

    /// Forwards the packet, whose addresses are those of the new tuple already.
    #[inline(always)]
    pub(crate) const fn forward_translated(&mut self) -> HookAction {
        self.l4 = 0;
        HookAction::Forward
    }

    /// Whether the packet keeps its tuple. Most packets of direct flows do.
    #[inline(always)]
    pub(crate) const fn is_untouched(&self, frontend: u32) -> bool {
        frontend == DIRECT && self.key.tuple.has_ports_of(&self.to)
    }

    /// The packet's new tuple, after a verdict to translate.
    #[inline(always)]
    pub const fn to(&self) -> &Tuple<A> {
        &self.to
    }

    /// The same, for what completes it.
    #[inline(always)]
    pub const fn to_mut(&mut self) -> &mut Tuple<A> {
        &mut self.to
    }
}

impl<A: Addr> Default for Work<A> {
    fn default() -> Self {
        Self::new()
    }
}
