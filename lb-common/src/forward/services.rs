//! What packets and sockets ask alike: the tables of Services, time, chance and settings.

use crate::addr::{Addr, Proto};
use crate::client::Client;
use crate::flow::Timeouts;
use crate::table::{
    Affinity, AffinityKey, Counter, DropKey, FrontendKey, MemberKey, PoolKey, Scope, SourceRangeKey, Tuple,
};
use crate::way::SnatPorts;

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

/// What the statistics of a frontend count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    FlowCreated,
    Translated,
    Passed,
}
