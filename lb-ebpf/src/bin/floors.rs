//! Floors of the measurements: programs that do only the work that the real programs cannot avoid. `cargo xtask bench`
//! runs them beside the real programs; the agent does not carry them.
//!
//! They read the configuration tables that the agent wrote, and have flow tables of their own. They take only the
//! packets of the measurements: Ethernet, no options, TCP or UDP. A program that found its rows returns `TCX_NEXT`,
//! any other run `TCX_DROP`.
#![no_std]
#![no_main]
#![allow(non_upper_case_globals, reason = "maps are named as bpftool shows them")]
#![allow(clippy::needless_borrows_for_generic_args, reason = "a key that is passed by value is copied once more")]

use core::mem::offset_of;
use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_F_PSEUDO_HDR, BPF_NOEXIST, xdp_action,
};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, ProgramArray};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_jiffies64, bpf_l4_csum_replace};
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use lb_common::addr::{Addr, Family, Proto};
use lb_common::checksum::{self, diff, port_word};
use lb_common::table::{
    Direction, EdgeState, Flow, FlowKey, FlowState, Frontend, FrontendKey, PoolElement, PoolKey, Scope, Scopes, Tuple,
    edge_index,
};

// include/uapi/linux/bpf.h, enum tcx_action_base.
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;

const ETHERNET_LEN: usize = 14;
/// Offset of the header checksum in an IPv4 header (RFC 791).
const IPV4_CHECK: usize = ETHERNET_LEN + 10;
/// Offsets of the checksum in a TCP header (RFC 9293) and a UDP header (RFC 768).
const TCP_CHECK: usize = 16;
const UDP_CHECK: usize = 6;
/// Bytes of the transport header that are read: the ports.
const PORTS_LEN: usize = 4;

/// Where a family's packets of the measurements have their headers, and its maps.
trait Wire: Addr {
    const PROTO: usize;
    const ADDRESSES: usize;
    const L4: usize;

    fn frontends() -> &'static Frontends<Self>;
    fn pools() -> &'static Pools<Self>;
    fn flows() -> &'static Flows<Self>;
}

type Frontends<A> = HashMap<FrontendKey<A>, Frontend, 1, { BPF_F_NO_PREALLOC as usize }>;
type Pools<A> = Array<PoolElement<A>, 1, { BPF_F_MMAPABLE as usize }>;
type Flows<A> = LruHashMap<FlowKey<A>, Flow<A>, 1>;

// The agent's maps, which the loader finds by their pins.
#[btf_map]
static edges: Array<EdgeState, 1> = Array::new();
#[btf_map]
static scopes: Array<Scopes, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The maps and the programs of one family.
macro_rules! family {
    (
        $addr:ty, $proto:expr, $addresses:expr, $l4:expr,
        maps: $frontends:ident $pools:ident $flows:ident,
        programs: $flow:ident $frontend:ident $request:ident $reply:ident $new:ident
    ) => {
        #[btf_map]
        static $frontends: Frontends<$addr> = HashMap::new();
        #[btf_map]
        static $pools: Pools<$addr> = Array::new();
        /// The floors' own.
        #[btf_map]
        static $flows: Flows<$addr> = LruHashMap::new();

        impl Wire for $addr {
            const PROTO: usize = ETHERNET_LEN + $proto;
            const ADDRESSES: usize = ETHERNET_LEN + $addresses;
            const L4: usize = ETHERNET_LEN + $l4;

            #[inline(always)]
            fn frontends() -> &'static Frontends<Self> {
                &$frontends
            }

            #[inline(always)]
            fn pools() -> &'static Pools<Self> {
                &$pools
            }

            #[inline(always)]
            fn flows() -> &'static Flows<Self> {
                &$flows
            }
        }

        /// Looks up a flow that does not exist.
        #[classifier]
        pub fn $flow(ctx: TcContext) -> i32 {
            no_flow::<$addr>(ctx.skb.skb)
        }

        /// Looks up a frontend that does not exist.
        #[classifier]
        pub fn $frontend(ctx: TcContext) -> i32 {
            no_frontend::<$addr>(ctx.skb.skb)
        }

        /// Translates a request of a known flow.
        #[classifier]
        pub fn $request(ctx: TcContext) -> i32 {
            established::<$addr>(ctx.skb.skb, Direction::Request)
        }

        /// Translates a reply of a known flow.
        #[classifier]
        pub fn $reply(ctx: TcContext) -> i32 {
            established::<$addr>(ctx.skb.skb, Direction::Reply)
        }

        /// Makes a flow and translates its first packet.
        #[classifier]
        pub fn $new(ctx: TcContext) -> i32 {
            new_flow::<$addr>(ctx.skb.skb)
        }
    };
}

family! {
    [u8; 4], 9, 12, 20,
    maps: frontends4 pools4 flows4,
    programs: flow4 frontend4 request4 reply4 new4
}

family! {
    [u8; 16], 6, 8, 40,
    maps: frontends6 pools6 flows6,
    programs: flow6 frontend6 request6 reply6 new6
}

/// Looks up which client ports the flows of the interface use.
#[classifier]
pub fn port(ctx: TcContext) -> i32 {
    // SAFETY: the context of this program run, as in all below.
    let edge = unsafe { (*ctx.skb.skb).ifindex };
    let Some(state) = edges.get_ptr(edge_index(edge)) else { return TCX_DROP };
    // SAFETY: array elements live as long as the map; one aligned word. Volatile, so that it is read at all.
    unsafe { addr_of!((*state).client_ports).read_volatile() };
    TCX_NEXT
}

#[inline(always)]
fn no_flow<A: Wire>(skb: *mut __sk_buff) -> i32 {
    let Some((_, key)) = key::<A>(skb, Direction::Request) else { return TCX_DROP };
    if A::flows().get_ptr(&key).is_none() { TCX_NEXT } else { TCX_DROP }
}

#[inline(always)]
fn no_frontend<A: Wire>(skb: *mut __sk_buff) -> i32 {
    let Some((_, key)) = key::<A>(skb, Direction::Request) else { return TCX_DROP };
    if A::frontends().get_ptr(dialled(&key)).is_none() { TCX_NEXT } else { TCX_DROP }
}

#[inline(always)]
fn established<A: Wire>(skb: *mut __sk_buff, direction: Direction) -> i32 {
    let Some((start, key)) = key::<A>(skb, direction) else { return TCX_DROP };
    let Some(flow) = A::flows().get_ptr(&key) else { return TCX_DROP };
    // SAFETY: the pointer comes from a look-up in this program run.
    let to = unsafe { &(*flow).to };
    translate(skb, start, &key, to)
}

#[inline(always)]
fn new_flow<A: Wire>(skb: *mut __sk_buff) -> i32 {
    let Some((start, key)) = key::<A>(skb, Direction::Request) else { return TCX_DROP };
    let Some(frontend) = A::frontends().get_ptr(dialled(&key)) else { return TCX_DROP };
    // SAFETY: the pointer comes from a look-up in this program run.
    let frontend = unsafe { addr_of!((*frontend).id).read() };
    let Some(served) = scopes.get_ptr(frontend) else { return TCX_DROP };
    // SAFETY: array elements live as long as the map; a scope is eight aligned bytes.
    let scope = Scope::from_word(unsafe { addr_of!((*served).workload).cast::<u64>().read_volatile() });
    // SAFETY: a helper without arguments.
    let random = unsafe { bpf_get_prandom_u32() };
    let slot = ((u64::from(random) * u64::from(scope.count)) >> 32) as u32;
    let Some(backend) = A::pools().get_ptr(PoolKey { pool: scope.pool, slot }.element()) else { return TCX_DROP };
    let mut to = key.tuple;
    // SAFETY: array elements live as long as the map.
    unsafe {
        copy_words::<A>(addr_of!((*backend).addr).cast(), addr_of_mut!(to.dst).cast());
        to.dport = addr_of!((*backend).port).read();
    }
    let mut flow = Flow {
        to: key.tuple.reversed(),
        frontend,
        pool: scope.pool,
        state: FlowState::New,
        marks: 0,
        seq_high: 0,
        // SAFETY: a helper without arguments.
        last_seen_jiffies: unsafe { bpf_jiffies64() },
    };
    let reply = key.partner(&to);
    if A::flows().insert(&reply, &flow, u64::from(BPF_NOEXIST)).is_err() {
        return TCX_DROP;
    }
    flow.to = to;
    if A::flows().insert(&key, &flow, u64::from(BPF_NOEXIST)).is_err() {
        return TCX_DROP;
    }
    translate(skb, start, &key, &flow.to)
}

/// The frame of a measurement with live frames, in words.
const FRAME_WORDS: usize = 16;

#[btf_map]
static template: Array<[u32; FRAME_WORDS], 1> = Array::new();
/// The program that handles the frame.
#[btf_map]
static next: ProgramArray<1> = ProgramArray::new();

/// Does nothing: shows the cost of a run itself.
#[xdp(frags)]
pub fn empty_driver(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Writes the packet into the frame, and passes it.
#[xdp(frags)]
pub fn restore_pass(ctx: XdpContext) -> u32 {
    match restore(&ctx) {
        Some(()) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Writes the packet into the frame, and lets another program handle it.
#[xdp(frags)]
pub fn restore_then(ctx: XdpContext) -> u32 {
    if restore(&ctx).is_some() {
        // SAFETY: nothing is left to drop.
        unsafe { next.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

#[inline(always)]
fn restore(ctx: &XdpContext) -> Option<()> {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + FRAME_WORDS * size_of::<u32>() > end {
        return None;
    }
    let from = template.get_ptr(0)?;
    // SAFETY: the frame has the bytes, and so has the template.
    unsafe { copy_words::<[u32; FRAME_WORDS]>(from.cast(), start as *mut u32) };
    Some(())
}

/// The frontend that a packet dials.
#[inline(always)]
fn dialled<A: Addr>(key: &FlowKey<A>) -> FrontendKey<A> {
    FrontendKey { addr: key.tuple.dst, port: key.tuple.dport, proto: key.proto, pad: 0 }
}

/// The packet's first byte, and its flow key.
#[inline(always)]
fn key<A: Wire>(skb: *mut __sk_buff, direction: Direction) -> Option<(usize, FlowKey<A>)> {
    // Volatile: the compiler would keep the value in 32 bits, and the verifier would lose the pointer.
    // SAFETY: see `port`.
    let (start, end, edge) =
        unsafe { (addr_of!((*skb).data).read_volatile(), addr_of!((*skb).data_end).read_volatile(), (*skb).ifindex) };
    let (start, end) = (start as usize, end as usize);
    if start + A::L4 + PORTS_LEN > end {
        return None;
    }
    let mut tuple = Tuple { src: A::new_zeroed(), dst: A::new_zeroed(), sport: 0, dport: 0 };
    // SAFETY: checked above; a tuple begins with its two addresses. The measured machines read unaligned words.
    let (proto, sport, dport) = unsafe {
        copy_words::<[A; 2]>((start + A::ADDRESSES) as *const u32, addr_of_mut!(tuple).cast());
        let ports = (start + A::L4) as *const u16;
        (((start + A::PROTO) as *const u8).read(), ports.read_volatile(), ports.add(1).read_volatile())
    };
    (tuple.sport, tuple.dport) = (u16::from_be(sport), u16::from_be(dport));
    let proto = if proto == Proto::TCP as u8 { Proto::TCP } else { Proto::UDP };
    Some((start, FlowKey::new(edge, direction, proto, tuple)))
}

/// Writes the tuple `to` into the packet, as `lb_common::rewrite` does.
#[inline(always)]
fn translate<A: Wire>(skb: *mut __sk_buff, start: usize, key: &FlowKey<A>, to: &Tuple<A>) -> i32 {
    let from = &key.tuple;
    let addresses = diff(from.src.sum() + from.dst.sum(), to.src.sum() + to.dst.sum());
    let ports = diff(port_word(from.sport) + port_word(from.dport), port_word(to.sport) + port_word(to.dport));
    let (check, zero) = match key.proto {
        Proto::TCP => (TCP_CHECK, 0),
        Proto::UDP | Proto::SCTP => (UDP_CHECK, u64::from(BPF_F_MARK_MANGLED_0)),
    };
    let check = (A::L4 + check) as u32;
    // SAFETY: `key` proved the bytes to be in the packet. The helpers come last: they invalidate pointers to it.
    unsafe {
        if A::FAMILY == Family::V4 {
            let check = (start + IPV4_CHECK) as *mut u16;
            check.write(checksum::adjust(check.read(), addresses));
        }
        copy_words::<[A; 2]>(addr_of!(*to).cast(), (start + A::ADDRESSES) as *mut u32);
        let target = (start + A::L4) as *mut u16;
        target.write_volatile(to.sport.to_be());
        target.add(1).write_volatile(to.dport.to_be());
        let pseudo = zero | u64::from(BPF_F_PSEUDO_HDR);
        bpf_l4_csum_replace(skb, check, 0, u64::from(addresses), pseudo);
        bpf_l4_csum_replace(skb, check, 0, u64::from(ports), zero);
    }
    TCX_NEXT
}

/// Copies a `T`, whose size is a multiple of four, in words. Volatile: otherwise the compiler makes it a call that
/// copies byte by byte.
///
/// # Safety
///
/// Both pointers must be valid for that many bytes.
#[inline(always)]
unsafe fn copy_words<T>(from: *const u32, to: *mut u32) {
    const { assert!(size_of::<T>().is_multiple_of(4)) };
    for word in 0..size_of::<T>() / 4 {
        // SAFETY: the caller vouches for the bytes.
        unsafe { to.add(word).write(from.add(word).read_volatile()) };
    }
}

// The offsets that `translate` and `key` assume.
const _: () = assert!(offset_of!(Tuple<[u8; 4]>, dst) == 4 && offset_of!(Tuple<[u8; 16]>, dst) == 16);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Not reachable: no program that still contains a panic passes the verifier.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
