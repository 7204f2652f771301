//! One run of the decision: the edge and the packet, the tables, and time and chance.

use crate::addr::Addr;
use crate::flow::Timeouts;
use crate::parse::Transport;
use crate::sequence::Sequence;
use crate::share::Occupancy;
use crate::table::{
    Affinity, AffinityKey, Counter, EndpointKey, Flow, FlowKey, FlowState, FrontendKey, MemberKey, PoolKey, Scope,
    SourceRangeKey, Tuple,
};
use crate::work::Work;

/// Where a client is: selects one of the three scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Workload,
    Host,
    External,
}

/// The edge that a packet is seen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// [`FlowKey::edge`].
    pub id: u32,
    pub client: Client,
}

/// Why a flow entry was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// The key is taken.
    Exists,
    /// The table gave no element.
    Refused,
}

/// A flow entry in its table, read field by field and changed in place: copying it costs stack, and replacing an
/// element would allocate and may evict another.
pub trait FlowRef<A>: Copy {
    /// Copies [`Flow::to`].
    fn read_to(self, to: &mut Tuple<A>);
    fn frontend(self) -> u32;
    fn pool(self) -> u32;
    fn state(self) -> FlowState;
    fn last_seen_jiffies(self) -> u64;
    fn touch(self, now_jiffies: u64);
    fn set_state(self, state: FlowState);
    /// [`Flow::sequence`].
    fn sequence(self) -> Sequence;
    fn set_sequence(self, sequence: Sequence);
    fn set_pool(self, pool: u32);
}

/// Whose a frame is that came in for another MAC than that of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The node's: the interface is a port of a bridge, and the MAC is the bridge's.
    Node,
    /// Somebody else's behind that bridge.
    Neighbour,
    /// Nobody's here: the stack drops it.
    Stranger,
}

/// What the frontends' clients did, for the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    FlowCreated,
    Translated,
    Passed,
}

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A new flow gets a backend and a tuple.
    Place,
    /// The other entry of a flow is made to agree with the one that the packet found.
    RefreshPartner,
    /// A packet to an endpoint itself goes the way of a known flow.
    FollowDirect,
}

/// The maps, as the path uses them.
pub trait Tables<A: Addr> {
    type Flow: FlowRef<A>;

    /// Id of the frontend with this address.
    fn frontend(&self, key: &FrontendKey<A>) -> Option<u32>;
    /// One load: pool and count can never disagree.
    fn scope(&self, frontend: u32, client: Client) -> Scope;
    fn service_port(&self, frontend: u32) -> u32;
    /// Copies a backend's address. Its port, or nothing where no backend has this place.
    fn read_backend(&self, key: &PoolKey, addr: &mut A) -> Option<u16>;
    fn is_member(&self, key: &MemberKey<A>) -> bool;
    /// The [`MemberSets`](crate::table::MemberSets) of a member; 0 where it is none.
    fn member_sets(&self, key: &MemberKey<A>) -> u8;
    fn affinity_secs(&self, frontend: u32) -> u32;

    /// The set of source ranges that a frontend asks; 0: none.
    fn source_ranges(&self, frontend: u32) -> u32;
    /// [`Evictions::until_jiffies`](crate::table::Evictions) of this family.
    fn evictions_until_jiffies(&self) -> u64;
    /// [`EdgeAge::attached_jiffies`](crate::table::EdgeAge).
    fn attached_jiffies(&self, edge: u32) -> u64;
    /// [`FrontendAge::balanced_jiffies`](crate::table::FrontendAge).
    fn balanced_jiffies(&self, frontend: u32) -> u64;
    /// Copies what is remembered of a client. False where there is nothing.
    fn read_affinity(&self, key: &AffinityKey<A>, to: &mut Affinity<A>) -> bool;
    /// In place where the client is known. Where the table gives no element, the client is not remembered.
    fn write_affinity(&self, key: &AffinityKey<A>, affinity: &Affinity<A>);
    /// Whether the source ranges of a frontend let this client in.
    fn is_source_allowed(&self, key: &SourceRangeKey<A>) -> bool;
    /// Whether this is an endpoint of any Service.
    fn is_endpoint(&self, key: &EndpointKey<A>) -> bool;
    fn flow(&self, key: &FlowKey<A>) -> Option<Self::Flow>;
    /// Fails where the key exists.
    fn insert_flow(&self, key: &FlowKey<A>, flow: &Flow<A>) -> Result<(), InsertError>;
    fn remove_flow(&self, key: &FlowKey<A>);
    /// Entries of the flow table.
    fn occupancy(&self, edge: u32) -> Occupancy;
    /// When somebody last looked through all flows.
    fn walked_jiffies(&self) -> u64;
    /// Notes a flow, by one of its keys, that may go when its edge has too many: over an older one where there is no room.
    fn note_spent(&self, key: &FlowKey<A>);
    /// Takes the oldest flow that was noted of this edge, or of another one with the same place. False where there is none.
    fn take_spent(&self, edge: u32, key: &mut FlowKey<A>) -> bool;
    /// Takes a token for a flow that is half open. False where there are as many of them as there may be.
    fn take_embryo(&self) -> bool;
    /// Gives the token back.
    fn give_embryo(&self);
    /// Notes a new flow in a ring, over the one that has stood there for longest; that one's key goes to `oldest`.
    /// False where there is none.
    fn note_embryo(&self, key: &FlowKey<A>, oldest: &mut FlowKey<A>) -> bool;
    /// Whether a pod behind this edge has ever reached itself: only then can a reply arrive at ingress.
    fn has_hairpins(&self, edge: u32) -> bool;
    /// [`EdgeState::client_ports`](crate::table::EdgeState::client_ports) of an edge.
    fn client_ports(&self, edge: u32) -> u64;
    /// Sets these bits of it, before a flow that they stand for is inserted.
    fn note_client_ports(&self, edge: u32, bits: u64);
    fn note_hairpin(&self, edge: u32);
    /// Whether the packet that leaves by this edge came to the node's stack by it, or by the bridge that it is a port of.
    fn has_come_back(&self, edge: u32) -> bool;
    /// Whose the frame is that the packet came in by, if it is for another MAC than that of its interface.
    fn whose_frame(&self) -> Whose;
    /// One packet more; the implementation knows its length.
    fn count(&self, counter: Counter);
    fn count_frontend(&self, frontend: u32, event: Event);

    /// [`Path::run`] from what the records hold alone; in the kernel in a function of its own.
    #[inline(always)]
    fn run_apart<E: Env>(path: &mut Path<'_, A, Self, E>, part: Part) -> bool
    where
        Self: Sized,
    {
        Path::resumed(path.tables, path.env, path.work).run(part)
    }
}

/// Time and chance.
pub trait Env {
    fn now_jiffies(&self) -> u64;
    fn random(&self) -> u32;
    fn timeouts(&self) -> Timeouts;
    /// [`Timeouts::second_jiffies`] alone: read for every packet.
    fn second_jiffies(&self) -> u64;
    /// `--repair-evicted-flows`; in the kernel a constant, so that it costs nothing where it is off.
    fn repairs_evicted_flows(&self) -> bool;
    /// `--pod-flows-percent`, a constant likewise.
    fn pod_flows_percent(&self) -> u32;
    /// [`usable`](crate::share::usable).
    fn flow_entries_usable(&self) -> u64;
}

/// A packet, where it is seen, and what the decision is made of.
pub struct Path<'a, A, T, E> {
    pub transport: Transport,
    pub edge: Edge,
    pub tables: &'a T,
    pub env: &'a E,
    pub work: &'a mut Work<A>,
}
