//! The inputs of one decision: the packet and its edge, the tables, time and chance.

use crate::addr::{Addr, Proto};
use crate::client::Client;
use crate::flow::Timeouts;
use crate::packet::{PacketMut, Refused};
use crate::parse::{Parse, TcpFlags, Transport};
use crate::payload;
use crate::sequence::Sequence;
use crate::share::Occupancy;
use crate::spell::{self, Spelled};
use crate::table::{
    Affinity, AffinityKey, Counter, Direction, DropKey, EDGE_UPLINK, EdgeState, EndpointKey, Flow, FlowKey, FlowState,
    FrontendKey, MemberKey, PoolKey, ProxyHeader, Scope, SourceRangeKey, Tuple,
};
use crate::way::{Reach, SnatPorts, Way};
use crate::work::Work;

/// The edge where a packet is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// [`FlowKey::edge`].
    pub id: u32,
    pub client: Client,
}

impl Edge {
    /// The interface of a pod on this node.
    #[inline(always)]
    pub const fn workload(ifindex: u32) -> Self {
        Self { id: ifindex, client: Client::Workload }
    }

    /// All interfaces that lead to the network.
    #[inline(always)]
    pub const fn uplink() -> Self {
        Self { id: EDGE_UPLINK, client: Client::External }
    }

    /// The edge with this ID.
    #[inline(always)]
    pub const fn of(id: u32) -> Self {
        if id == EDGE_UPLINK { Self::uplink() } else { Self::workload(id) }
    }
}

/// Where a program sees packets: those that enter the node by an edge (`Request`), or leave it (`Reply`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub edge: Edge,
    pub direction: Direction,
}

/// Why a flow entry was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// The key exists.
    Exists,
    /// The table refused the entry.
    Refused,
}

/// A flow entry in its table, read field by field and changed in place. A copy costs stack; replacing an element would
/// allocate one and may evict another.
pub trait FlowRef<A>: Copy {
    /// Copies [`Flow::to`].
    fn read_to(self, to: &mut Tuple<A>);
    /// [`Flow::to`], for code that has room for it.
    fn to(self) -> Tuple<A>;
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
    /// [`Flow::has_header`].
    fn has_header(self) -> bool;
    fn set_header(self, is_due: bool);
}

/// A row of the headers in its table.
pub trait HeaderRef: Copy {
    fn read(self) -> ProxyHeader;
    /// Writes what requests change.
    fn write_request(self, row: &ProxyHeader);
    /// Writes what replies change.
    fn write_reply(self, row: &ProxyHeader);
}

/// The owner of a frame whose destination MAC is not the interface's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The node's: the interface is a port of a bridge, and the MAC is the bridge's.
    Node,
    /// Another station behind that bridge.
    Neighbour,
    /// Unknown here: the stack drops the frame.
    Stranger,
}

/// What the statistics of a frontend count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    FlowCreated,
    Translated,
    Passed,
}

/// A rare piece of the decision. In the kernel it runs in a function of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Gives a new flow a backend and a tuple.
    Place,
    /// Makes the other entry of a flow agree with the one that the packet found.
    RefreshPartner,
    /// Lets a known flow take a packet to an endpoint.
    FollowDirect,
    /// Lets a packet of a known flow change the flow's state.
    Settle,
    /// Notes that the packet is refused, rejected or dropped.
    Refuse,
    /// Tells who listens what became of the packet.
    Tell,
    /// Decides a packet of a flow whose header is due.
    DecideHeader,
}

/// The tables of Services, as packets and sockets use them.
pub trait Services<A: Addr>: Env {
    /// The ID of the frontend at this address.
    fn frontend(&self, key: &FrontendKey<A>) -> Option<u32>;
    /// One load, so that pool and count always agree.
    fn scope(&self, frontend: u32, client: Client) -> Scope;
    fn service_port(&self, frontend: u32) -> u32;
    /// Copies a backend's address to `addr` and returns its port. None if the slot has no backend.
    fn read_backend(&self, key: &PoolKey, addr: &mut A) -> Option<u16>;
    fn is_member(&self, key: &MemberKey<A>) -> bool;
    /// The [`MemberSets`](crate::table::MemberSets) of a member; 0 if the key is no member.
    fn member_sets(&self, key: &MemberKey<A>) -> u8;
    fn affinity_secs(&self, frontend: u32) -> u32;
    /// Copies the affinity of a client. False if the client is unknown.
    fn read_affinity(&self, key: &AffinityKey<A>, to: &mut Affinity<A>) -> bool;
    /// Changes the affinity in place if the client is known. If the table refuses an element, the client is not
    /// remembered.
    fn write_affinity(&self, key: &AffinityKey<A>, affinity: &Affinity<A>);
    /// The set of source ranges that applies to a frontend; 0: none.
    fn source_ranges(&self, frontend: u32) -> u32;
    /// Whether the source ranges of a frontend allow this client.
    fn is_source_allowed(&self, key: &SourceRangeKey<A>) -> bool;
    /// Counts the packet, or the dial. The implementation knows the length of the packet.
    fn count(&self, counter: Counter);
    fn count_frontend(&self, frontend: u32, event: Event);
    /// Counts the packet, or the dial, in `drop_counts`.
    fn count_drop(&self, key: &DropKey);
    /// Tells who listens. Called only if [`Env::monitors`] says so.
    fn tell(&self, sighting: &Sighting<'_, A>);
}

/// What became of a packet or a dial, for who listens.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a, A> {
    pub reason: Counter,
    /// 0: none, or it is not known.
    pub frontend: u32,
    /// As in a flow key, or [`EDGE_SOCKETS`](crate::table::EDGE_SOCKETS).
    pub edge: u32,
    pub proto: Proto,
    /// The packet as it came.
    pub tuple: &'a Tuple<A>,
    /// The backend that it got, if any.
    pub backend: Option<(&'a A, u16)>,
}

/// The maps as the packet path uses them.
pub trait Maps<A: Addr>: Services<A> {
    type Flow: FlowRef<A>;
    type Header: HeaderRef;

    /// [`Evictions::until_jiffies`](crate::table::Evictions) of this family.
    fn evictions_until_jiffies(&self) -> u64;
    /// [`EdgeAge::attached_jiffies`](crate::table::EdgeAge).
    fn attached_jiffies(&self, edge: u32) -> u64;
    /// [`FrontendAge::balanced_jiffies`](crate::table::FrontendAge).
    fn balanced_jiffies(&self, frontend: u32) -> u64;
    /// Whether this is an endpoint of any Service.
    fn is_endpoint(&self, key: &EndpointKey<A>) -> bool;
    fn flow(&self, key: &FlowKey<A>) -> Option<Self::Flow>;
    /// Fails if the key exists.
    fn insert_flow(&self, key: &FlowKey<A>, flow: &Flow<A>) -> Result<(), InsertError>;
    fn remove_flow(&self, key: &FlowKey<A>);
    /// The PROXY header that is due for a flow, by the key of its requests.
    fn header(&self, key: &FlowKey<A>) -> Option<Self::Header>;
    /// Writes a row, in place of an existing one. False if the table refuses it.
    fn write_header(&self, key: &FlowKey<A>, row: &ProxyHeader) -> bool;
    fn remove_header(&self, key: &FlowKey<A>);
    /// Entries in use in the flow table.
    fn occupancy(&self, edge: u32) -> Occupancy;
    /// When the agent last walked over all flows.
    fn walked_jiffies(&self) -> u64;
    /// Notes a spent flow by one of its keys: it may be deleted if its edge has too many. A full ring drops its oldest
    /// note.
    fn note_spent(&self, key: &FlowKey<A>);
    /// Takes the oldest note of the edge's ring, which other edges share. False if the ring is empty.
    fn take_spent(&self, edge: u32, key: &mut FlowKey<A>) -> bool;
    /// Takes a token for a half-open flow. False if none is left.
    fn take_embryo(&self) -> bool;
    /// Gives a token back.
    fn give_embryo(&self);
    /// Copies the oldest note of the ring of new flows, which the next note replaces. False if the ring is not full.
    fn read_oldest_embryo(&self, oldest: &mut FlowKey<A>) -> bool;
    /// Notes a new flow in the ring, in place of the oldest note if the ring is full.
    fn note_embryo(&self, key: &FlowKey<A>);
    /// What the flows of this edge have in common.
    fn edge_state(&self, edge: u32) -> EdgeState;
    /// Sets these bits of the edge's client ports, before a flow with such a port is inserted.
    fn note_client_ports(&self, edge: u32, bits: u64);
    fn note_hairpin(&self, edge: u32);
    /// Whether a packet that leaves by this edge entered the node by it, or by the bridge that it is a port of.
    fn has_come_back(&self, edge: u32) -> bool;
    /// The owner of the packet's frame, if its destination MAC is not the interface's.
    fn whose_frame(&self) -> Whose;
    /// Whether the packet may be forwarded to another node from here: `--forwarding`, and the packet has no VLAN tag, so
    /// that no interface of its own will see it.
    fn may_forward(&self) -> bool;
    /// Whether a packet that leaves by an uplink was forwarded by [`Run::forward`](crate::run::Run::forward).
    fn is_forwarded(&self) -> bool;
    /// Whether this is the node's address on the uplink of the hook.
    fn is_source_of_uplink(&self, addr: &A) -> bool;
    /// Notes that answers of other nodes to this port of the node are expected, before a flow with that port is
    /// inserted.
    fn note_node_port(&self, port: u16);
    /// How the node reaches the backend `to.dst` of the records. If by an uplink, `to.src` becomes its address there.
    fn reach(&self, work: &mut Work<A>) -> Reach;
    /// The way of a packet with the tuple `to` of the records, of so many bytes from the network header on.
    fn way(&self, work: &mut Work<A>, len_bytes: u16) -> Way;
    /// Notes a packet that was rejected or dropped, in place of the last one with this reason.
    fn note_drop(&self, reason: Counter, key: &FlowKey<A>);

    /// Leaves a packet in transit, and the offset of its transport header, to [`Run::forward`](crate::run::Run::forward).
    fn hand_over(&self, key: &FlowKey<A>, to: &Tuple<A>, l4: usize);

    /// Runs [`Part::Settle`] for a packet that has no records yet. False if the flow is gone.
    fn settle(&self, key: &FlowKey<A>, tcp: TcpFlags) -> bool
    where
        Self: Sized,
    {
        let mut work = Work::new();
        work.begin(key, tcp);
        Path::resumed(self, &mut work).run(Part::Settle)
    }

    /// Writes the header of the records' flow to the records. In the kernel this is a function of its own.
    #[inline(always)]
    fn spell(&self, work: &mut Work<A>)
    where
        A: Spelled,
        Self: Sized,
    {
        spell::spell(work, spell::spell_step);
    }

    /// Puts the text of the records in place of the payload of their segment. In the kernel this is a function of its own.
    #[inline(always)]
    fn replace_payload(&self, packet: &mut impl PacketMut, work: &mut Work<A>) -> Result<(), Refused>
    where
        A: Parse,
        Self: Sized,
    {
        payload::replace_payload(packet, work)
    }

    /// Does [`Path::run`] with nothing but the records. In the kernel this is a function of its own.
    #[inline(always)]
    fn run_apart(path: &mut Path<'_, A, Self>, part: Part) -> bool
    where
        Self: Sized,
    {
        Path::resumed(path.kernel, path.work).run(part)
    }
}

/// Time, chance, and settings.
pub trait Env {
    fn now_jiffies(&self) -> u64;
    fn random(&self) -> u32;
    fn timeouts(&self) -> Timeouts;
    /// [`Timeouts::second_jiffies`] alone, which each packet reads.
    fn second_jiffies(&self) -> u64;
    /// `--repair-evicted-flows`. A constant in the kernel, so that it costs nothing while it is off.
    fn repairs_evicted_flows(&self) -> bool;
    /// Whether `lb-agent monitor` listens, or did when the programs were loaded. A constant in the kernel as well.
    fn monitors(&self) -> bool;
    /// `--forwarding`. A constant in the kernel as well.
    fn forwards(&self) -> bool;
    /// `--snat-ports`.
    fn snat_ports(&self) -> SnatPorts;
    /// `--pod-flows-percent`. Also a constant in the kernel.
    fn pod_flows_percent(&self) -> u32;
    /// [`usable`](crate::share::usable).
    fn flow_entries_usable(&self) -> u64;
    /// Takes a token from the edge's bucket for ICMP answers. False if none is left.
    fn may_reject(&self, edge: u32) -> bool;
}

/// A packet, its edge, and all that the decision reads and writes.
pub struct Path<'a, A, K> {
    pub transport: Transport,
    pub edge: Edge,
    pub kernel: &'a K,
    pub work: &'a mut Work<A>,
}
