//! The inputs of one decision: the packet and its edge, the tables, time and chance.

use super::known::Known;
use crate::addr::Addr;
use crate::client::Client;
use crate::packet::{PacketMut, Refused};
use crate::parse::{Parse, Transport};
use crate::payload;
use crate::share::Occupancy;
use crate::spell::{self, Spelled};
use crate::table::{Counter, Direction, EDGE_UPLINK, EndpointKey, Flow, FlowKey, ProxyHeader};
use crate::way::{Reach, Way};
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

/// The maps as the packet path uses them.
pub trait Maps<A: Addr>: Known<A> {
    type Header: HeaderRef;

    /// [`Evictions::until_jiffies`](crate::table::Evictions) of this family.
    fn evictions_until_jiffies(&self) -> u64;
    /// [`EdgeAge::attached_jiffies`](crate::table::EdgeAge).
    fn attached_jiffies(&self, edge: u32) -> u64;
    /// [`FrontendAge::balanced_jiffies`](crate::table::FrontendAge).
    fn balanced_jiffies(&self, frontend: u32) -> u64;
    /// Whether this is an endpoint of any Service.
    fn is_endpoint(&self, key: &EndpointKey<A>) -> bool;
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
    /// Sets these bits of the edge's client ports, before a flow with such a port is inserted.
    fn note_client_ports(&self, edge: u32, bits: u64);
    fn note_hairpin(&self, edge: u32);
    /// Whether a packet that leaves by this edge entered the node by it, or by the bridge that it is a port of.
    fn has_come_back(&self, edge: u32) -> bool;
    /// The owner of the packet's frame, if its destination MAC is not the interface's.
    fn whose_frame(&self) -> Whose;
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

/// A packet, its edge, and all that the decision reads and writes.
pub struct Path<'a, A, K> {
    pub transport: Transport,
    pub edge: Edge,
    pub kernel: &'a K,
    pub work: &'a mut Work<A>,
}
