//! Counters, and the small tables that describe the dataplane itself.

use super::flow::EDGE_UPLINK;
use super::row::table_type;
use crate::addr::Family;

/// Elements of `counters`, with room for new counters.
pub const COUNTERS_MAX: u32 = 64;

/// Elements of `edges` and `edge_ages`, a power of two.
pub const EDGES_MAX: u32 = 1 << 16;

/// The element of `reject_buckets` for packets in transit: a flood of rejected ones must not stop their errors.
pub const EDGE_TRANSIT: u32 = EDGES_MAX - 1;

/// The element of an interface, selected by the low bits of its index.
#[inline(always)]
pub const fn edge_index(edge: u32) -> u32 {
    edge & (EDGES_MAX - 1)
}

table_type! {
    /// Value of the per-CPU array `counters`, indexed by [`Counter`].
    pub struct CounterValue {
        pub packets: u64,
        pub bytes: u64,
    }

    /// Value of the per-CPU array `frontend_stats`, indexed by frontend id.
    pub struct FrontendStats {
        /// Flows created.
        pub flows: u64,
        /// Packets translated, both directions.
        pub packets: u64,
        /// Bytes of these packets, headers included.
        pub bytes: u64,
        /// Packets that opened a connection (or UDP datagrams) and were left to the external balancer.
        pub passed_packets: u64,
        pub passed_bytes: u64,
    }

    /// Value of `edges`, indexed by the low bits of an interface index.
    pub struct EdgeState {
        /// Hairpin flows created behind this interface. While 0, no reply can arrive at its ingress. For the uplinks: bits
        /// as below, of the ports of this node to which endpoints of other nodes reply.
        pub hairpins: u64,
        /// Bit n: a flow of this edge has, or had, a client port in `n << 10 ..= n << 10 | 1023`. A packet with any
        /// other client port belongs to no flow. Bits are set and never cleared.
        pub client_ports: u64,
    }

    /// Value of `edge_flows`, indexed as `edges`: entries in the flow tables. Evictions by the kernel are not counted,
    /// so each walk over the tables counts anew.
    #[repr(align(8))]
    pub struct EdgeFlows {
        pub entries4: i32,
        pub entries6: i32,
    }

    /// Value of `flow_totals` (one element): all edges together.
    pub struct FlowTotals {
        pub entries: EdgeFlows,
        /// jiffies64 of the last completed walk.
        pub walked_jiffies: u64,
    }

    /// Value of `spent_rings`, by family: how many spent flows were noted in the ring, and how many were taken from
    /// it.
    pub struct SpentRing {
        pub noted: [u32; 2],
        pub taken: [u32; 2],
    }

    /// Value of `edge_ages`, indexed as `edges`.
    pub struct EdgeAge {
        /// Since when our programs have been attached; 0: unknown. For the uplinks, the latest of them.
        pub attached_jiffies: u64,
    }

    /// Value of `frontend_ages`, indexed by frontend id.
    pub struct FrontendAge {
        /// Since when each scope that balances has done so without a break; 0: unknown.
        pub balanced_jiffies: u64,
    }

    /// Value of `evictions`, indexed by family (0: IPv4): whether clients of evicted flows may still send.
    pub struct Evictions {
        /// One TCP timeout after the flow table was last seen full; 0: never.
        pub until_jiffies: u64,
    }

    /// Value of `reject_buckets`, indexed as `edges`: a token bucket for ICMP answers. A flood spends only its own
    /// edge's tokens.
    pub struct RejectBucket {
        pub tokens: u32,
        /// The low half of jiffies64.
        pub refilled_jiffies: u32,
    }

    /// Value of `owner` (one element): the dataplane that the maps belong to.
    pub struct Owner {
        /// SO_NETNS_COOKIE of the network namespace that the programs are attached in.
        pub netns_cookie: u64,
        /// [`LAYOUT_VERSION`](super::LAYOUT_VERSION) of the agent that made the maps.
        pub layout_version: u16,
        /// [`CONNECTIONS_VERSION`](super::CONNECTIONS_VERSION), likewise.
        pub connections_version: u16,
        /// Kernel ticks per second, the unit of [`Flow::last_seen_jiffies`](super::Flow::last_seen_jiffies).
        pub jiffies_per_sec: u32,
    }
}

/// Rings of spent flows, and their length. Edges share rings.
pub const SPENT_RINGS: u32 = 64;
pub const SPENT_RING_LEN: u32 = 256;

/// The ring of an edge. All uplinks share one.
#[inline(always)]
pub const fn spent_ring(edge: u32) -> u32 {
    if edge == EDGE_UPLINK { 0 } else { 1 + edge % (SPENT_RINGS - 1) }
}

impl EdgeFlows {
    /// The entries of a family.
    #[inline(always)]
    pub const fn entries(&self, family: Family) -> u64 {
        let entries = match family {
            Family::V4 => self.entries4,
            Family::V6 => self.entries6,
        };
        // Below 0 if entries were removed while a walk counted anew.
        if entries < 0 { 0 } else { entries.unsigned_abs() as u64 }
    }
}

impl EdgeState {
    /// The bit of [`EdgeState::client_ports`] for a port.
    #[inline(always)]
    pub const fn client_port_bit(port: u16) -> u64 {
        1 << (port >> 10)
    }

    /// Whether a flow of the edge may have this client port.
    #[inline(always)]
    pub const fn may_have_client_port(&self, port: u16) -> bool {
        self.client_ports & Self::client_port_bit(port) != 0
    }

    /// Whether a flow that leads to another node may have this port of the node. For the uplinks.
    #[inline(always)]
    pub const fn may_have_node_port(&self, port: u16) -> bool {
        self.hairpins & Self::client_port_bit(port) != 0
    }

    /// Whether the edge has ever had a hairpin flow. Only then can a reply arrive at its ingress.
    #[inline(always)]
    pub const fn has_hairpins(&self) -> bool {
        self.hairpins != 0
    }
}

/// Declares [`Counter`]: number, name and meaning in one table. Numbers are stable; new ones are appended.
macro_rules! counters {
    ($( $(#[doc = $meaning:literal])+ $variant:ident = $index:literal, $name:literal; )*) => {
        /// Index into `counters`.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Counter { $( $(#[doc = $meaning])+ $variant = $index, )* }

        impl Counter {
            /// All counters, in order of their index.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// The name in tables and metrics.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// What it counts, in a sentence: the doc comment of its declaration.
            pub const fn meaning(self) -> &'static str {
                match self { $( Self::$variant => concat!($($meaning),+).trim_ascii(), )* }
            }
        }
    };
}

counters! {
    /// A packet of a known or new flow, client to backend.
    RequestTranslated = 0, "request_translated";
    /// A packet of a known flow, backend to client.
    ReplyTranslated = 1, "reply_translated";
    /// A flow was created (counted with its first packet).
    FlowCreated = 2, "flow_created";
    /// A new flow to a frontend that passes (Proxy): left to the external balancer.
    PassedProxy = 3, "passed_proxy";
    /// An IP fragment whose first one passed or has no ports, or is not known and was not waited for: left alone.
    PassedFragment = 4, "passed_fragment";
    /// Answered with ICMP port unreachable.
    Rejected = 5, "rejected";
    /// To be rejected, but the answer was over the rate limit of its interface: dropped.
    DropRejectLimit = 6, "drop_reject_limit";
    /// Local traffic policy without a local endpoint.
    DropNoLocalEndpoint = 7, "drop_no_local_endpoint";
    /// The pool had no backend in the slot (a torn view of the tables; never expected).
    DropNoBackend = 8, "drop_no_backend";
    /// No free source port towards any backend tried.
    DropNoPort = 9, "drop_no_port";
    /// The flow table refused the entry.
    DropFlowTable = 10, "drop_flow_table";
    /// A packet that could not be rewritten (helper refused).
    DropRewrite = 11, "drop_rewrite";
    /// An ICMP redirect about a translated flow: it names a backend that the client never dialled.
    DropRedirect = 12, "drop_redirect";
    /// An ICMP error about a translated flow.
    IcmpTranslated = 13, "icmp_translated";
    /// A connection to an endpoint itself was noted, so that no flow takes its tuple.
    DirectNoted = 14, "direct_noted";
    /// A new flow whose source is in none of the frontend's ranges.
    DropSourceRange = 15, "drop_source_range";
    /// A flow had been quiet for too long and was deleted.
    FlowCollected = 16, "flow_collected";
    /// A half-open flow was deleted for a new one: there were more of them than `--embryos-max`.
    EmbryoEvicted = 17, "embryo_evicted";
    /// A fragment went where the first one of its datagram had gone.
    FragmentTranslated = 18, "fragment_translated";
    /// A fragment of a datagram whose first one was rejected or dropped.
    DropFragment = 19, "drop_fragment";
    /// A fragment that overtook the first one of its datagram waits for it.
    FragmentParked = 20, "fragment_parked";
    /// A fragment was sent through the program again: a first one for which others waited, then each of those.
    FragmentReplayed = 21, "fragment_replayed";
    /// A parked fragment was lost: the first one of its datagram did not come in time.
    DropParked = 22, "drop_parked";
    /// A flow that was evicted came back by the hash of its connection (counted with the flows created).
    FlowRepaired = 23, "flow_repaired";
    /// A flow that had ended, was answered, or was quiet for longest, was deleted for new ones of the same interface: it had
    /// its share of the table.
    EdgeFlowEvicted = 24, "edge_flow_evicted";
    /// A new flow of an interface that has its share of the flow table, and none that may go.
    DropEdgeFlows = 25, "drop_edge_flows";
    /// A socket connected, or sent its first datagram to an address, and got a backend.
    SocketTranslated = 26, "socket_translated";
    /// A socket was refused its connection or datagram (ECONNREFUSED): no endpoint.
    SocketRefused = 27, "socket_refused";
    /// A packet was forwarded to an endpoint of another node, or from there to its client.
    Forwarded = 28, "forwarded";
    /// A packet of a known flow to or from an endpoint of another node, to which no route leads any more.
    DropNoRoute = 29, "drop_no_route";
    /// A packet to or from an endpoint of another node that its way does not take: answered with packet too big.
    TooLong = 30, "too_long";
    /// A packet to or from an endpoint of another node whose hop limit was used up: answered with time exceeded.
    HopsExceeded = 31, "hops_exceeded";
    /// A new flow to a frontend whose endpoints are on other nodes, to which no uplink leads: left to the stack.
    PassedNoRoute = 32, "passed_no_route";
    /// A PROXY header was sent to a backend, for the first time or again.
    HeaderSent = 33, "header_sent";
    /// A backend acknowledged its PROXY header.
    HeaderAcknowledged = 34, "header_acknowledged";
    /// A segment in place of the PROXY header, which a client's stack never sends, or one before the backend's answer.
    DropHeaderForged = 35, "drop_header_forged";
    /// A packet of a flow whose PROXY header can not be added: its state was evicted, or the packet is a fragment.
    DropHeaderLost = 36, "drop_header_lost";
    /// A packet of a known flow was translated in the driver of an uplink (`--xdp`), before it came to tc.
    InDriver = 37, "in_driver";
}

#[cfg(test)]
mod tests {
    use super::Counter;

    #[test]
    fn counters_stand_at_their_index() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
    }

    #[test]
    fn every_counter_says_what_it_counts() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            let meaning = counter.meaning();
            assert!(meaning.starts_with(char::is_uppercase) && meaning.ends_with('.'), "{counter:?}: {meaning:?}");
            assert!(meaning.len() > 2 * counter.name().len().min(10), "{counter:?} is only named: {meaning:?}");
            let others = &Counter::ALL[index + 1..];
            assert!(others.iter().all(|other| other.meaning() != meaning), "{counter:?} says what another one says");
        }
    }
}
