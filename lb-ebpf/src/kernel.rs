//! The kernel as the packet path sees it during one program run. This file has its clock, chance and settings; `tables`
//! has its maps.

use aya_ebpf::Global;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_jiffies64};
use lb_common::client::Client;
use lb_common::flow::Timeouts;
use lb_common::forward::Env;
use lb_common::packet::ETHERNET_LEN;
use lb_common::table::edge_index;
use lb_common::way::SnatPorts;

use crate::maps;
use crate::skb::Skb;

// The agent sets these before the load, which freezes them. In ticks, converted from seconds by the kernel's HZ.
#[unsafe(no_mangle)]
static TCP_SYN_JIFFIES: Global<u64> = Global::new(60_000);
#[unsafe(no_mangle)]
static TCP_ESTABLISHED_JIFFIES: Global<u64> = Global::new(86_400_000);
#[unsafe(no_mangle)]
static TCP_CLOSING_JIFFIES: Global<u64> = Global::new(10_000);
#[unsafe(no_mangle)]
static UDP_JIFFIES: Global<u64> = Global::new(120_000);
#[unsafe(no_mangle)]
static SECOND_JIFFIES: Global<u64> = Global::new(1_000);
/// ICMP answers per second and edge.
#[unsafe(no_mangle)]
static REJECTS_PER_SEC: Global<u64> = Global::new(1_000);

/// Not 0 if evicted flows are repaired. Frozen as well, so that the verifier drops the code that is switched off.
#[unsafe(no_mangle)]
static REPAIRS_EVICTED_FLOWS: Global<u64> = Global::new(0);

/// Not 0 if the programs tell `lb-agent monitor` what happens. Frozen as well.
#[unsafe(no_mangle)]
static MONITORS: Global<u64> = Global::new(0);

/// Not 0 if flows are also looked up in the tables that these ones replace. Frozen as well, and 0 except while
/// programs are being exchanged.
#[unsafe(no_mangle)]
static LOOKS_BACK: Global<u64> = Global::new(0);

/// [`LOOKS_BACK`].
#[inline(always)]
pub fn looks_back() -> bool {
    LOOKS_BACK.load() != 0
}

/// Not 0 if a program of a driver may have translated packets before they come to tc. Frozen as well.
#[unsafe(no_mangle)]
static BEHIND_DRIVER: Global<u64> = Global::new(0);

/// [`BEHIND_DRIVER`].
#[inline(always)]
pub fn is_behind_driver() -> bool {
    BEHIND_DRIVER.load() != 0
}

/// A pod's share, in percent, of what others leave of the flow table. Frozen as well.
#[unsafe(no_mangle)]
static POD_FLOWS_PERCENT: Global<u64> = Global::new(100);
/// Entries of a flow table that are used before the kernel may evict any.
#[unsafe(no_mangle)]
static FLOW_ENTRIES_USABLE: Global<u64> = Global::new(0);

/// Half-open flows that a CPU may create, and the length of its ring.
#[unsafe(no_mangle)]
static EMBRYOS_MAX: Global<u64> = Global::new(1 << 14);

/// Most fragments that wait for the first one of their datagram: the length of the ring `parked`.
#[unsafe(no_mangle)]
static PARKED_MAX: Global<u64> = Global::new(1 << 10);

/// The length of `addresses4` and `addresses6`, a power of two.
#[unsafe(no_mangle)]
static ADDRESS_WORDS: Global<u64> = Global::new(1 << 17);

/// Not 0 if packets of the network are forwarded to endpoints of other nodes. Frozen as well.
#[unsafe(no_mangle)]
static FORWARDS: Global<u64> = Global::new(1);
/// The source ports of what is forwarded: the first, and the last.
#[unsafe(no_mangle)]
static SNAT_FIRST: Global<u64> = Global::new(SnatPorts::DEFAULT.first as u64);
#[unsafe(no_mangle)]
static SNAT_LAST: Global<u64> = Global::new(SnatPorts::DEFAULT.last as u64);

/// SO_NETNS_COOKIE of the node's network namespace: its sockets are the node's own. 0 is no namespace.
#[unsafe(no_mangle)]
static NODE_NETNS: Global<u64> = Global::new(0);
/// Not 0 if the sockets of other network namespaces are served as well: those of pods.
#[unsafe(no_mangle)]
static SERVES_POD_SOCKETS: Global<u64> = Global::new(0);

/// Not 0 if the kernel has `bpf_set_retval`, which came with Linux 5.18. Frozen as well: an older verifier refuses the
/// call.
#[unsafe(no_mangle)]
static SETS_RETVAL: Global<u64> = Global::new(1);

/// [`SETS_RETVAL`].
#[inline(always)]
pub fn sets_retval() -> bool {
    SETS_RETVAL.load() != 0
}

/// The kind of client that a socket of this network namespace is, if it is served.
#[inline(always)]
pub fn client_of_netns(cookie: u64) -> Option<Client> {
    if cookie == NODE_NETNS.load() {
        return Some(Client::Host);
    }
    if SERVES_POD_SOCKETS.load() != 0 { Some(Client::Workload) } else { None }
}

/// [`ADDRESS_WORDS`].
#[inline(always)]
pub fn address_words() -> u32 {
    ADDRESS_WORDS.load() as u32
}

/// [`PARKED_MAX`].
#[inline(always)]
pub fn parked_max() -> u64 {
    PARKED_MAX.load()
}

/// [`EMBRYOS_MAX`].
#[inline(always)]
pub fn embryos_max() -> u64 {
    EMBRYOS_MAX.load()
}

/// What a program run is about: a packet or a dial.
pub trait Subject {
    /// The length of the packet; 0 if there is none yet.
    fn bytes(&self) -> u64;

    /// Adds to a counter of this CPU.
    ///
    /// # Safety
    ///
    /// The pointer is an aligned word of a map element.
    unsafe fn add(counter: *mut u64, amount: u64);
}

/// A packet at a hook.
pub struct Frame {
    len: u32,
    /// Typed as if it had a link header: functions that programs share do not ask for its length.
    pub skb: Skb<ETHERNET_LEN>,
}

impl Subject for Frame {
    #[inline(always)]
    fn bytes(&self) -> u64 {
        self.len.into()
    }

    #[inline(always)]
    unsafe fn add(counter: *mut u64, amount: u64) {
        // SAFETY: see the trait. No run interrupts another on the same CPU: bottom halves are off.
        unsafe { *counter += amount }
    }
}

/// The kernel, and what the current run is about.
pub struct Kernel<S = Frame> {
    pub subject: S,
}

impl Kernel {
    #[inline(always)]
    pub fn new<const LINK_LEN: usize>(skb: Skb<LINK_LEN>) -> Self {
        Self { subject: Frame { len: skb.len(), skb: skb.framed() } }
    }

    /// Without a packet.
    #[inline(always)]
    pub const fn idle(skb: Skb<ETHERNET_LEN>) -> Self {
        Self { subject: Frame { len: 0, skb } }
    }
}

impl<S> Env for Kernel<S> {
    #[inline(always)]
    fn now_jiffies(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn second_jiffies(&self) -> u64 {
        SECOND_JIFFIES.load()
    }

    #[inline(always)]
    fn forwards(&self) -> bool {
        FORWARDS.load() != 0
    }

    #[inline(always)]
    fn snat_ports(&self) -> SnatPorts {
        SnatPorts { first: SNAT_FIRST.load() as u16, last: SNAT_LAST.load() as u16 }
    }

    #[inline(always)]
    fn repairs_evicted_flows(&self) -> bool {
        REPAIRS_EVICTED_FLOWS.load() != 0
    }

    #[inline(always)]
    fn monitors(&self) -> bool {
        MONITORS.load() != 0
    }

    #[inline(always)]
    fn pod_flows_percent(&self) -> u32 {
        POD_FLOWS_PERCENT.load() as u32
    }

    #[inline(always)]
    fn flow_entries_usable(&self) -> u64 {
        FLOW_ENTRIES_USABLE.load()
    }

    #[inline(always)]
    fn timeouts(&self) -> Timeouts {
        Timeouts {
            tcp_syn_jiffies: TCP_SYN_JIFFIES.load(),
            tcp_established_jiffies: TCP_ESTABLISHED_JIFFIES.load(),
            tcp_closing_jiffies: TCP_CLOSING_JIFFIES.load(),
            udp_jiffies: UDP_JIFFIES.load(),
            second_jiffies: SECOND_JIFFIES.load(),
        }
    }

    #[inline(always)]
    fn may_reject(&self, edge: u32) -> bool {
        let Some(bucket) = maps::reject_buckets.get_ptr_mut(edge_index(edge)) else { return false };
        // SAFETY: array elements live as long as the map; both fields are aligned words. Another CPU may write them
        // meanwhile, which `take` tolerates.
        unsafe { (*bucket).take(self.now_jiffies(), REJECTS_PER_SEC.load() as u32, self.second_jiffies()) }
    }
}
