//! The programs of the cgroup hooks: sockets that connect or send a datagram get a backend before they have a packet,
//! and are shown the address that they dialled.
//!
//! An IPv6 socket may dial an IPv4 address (`::ffff:192.0.2.1`). TCP then enters the hooks of IPv6. UDP sends through
//! those of IPv4 and receives through those of IPv6.

use core::intrinsics::{self, AtomicOrdering};
use core::marker::PhantomData;
use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use lb_common::addr::Proto;
use lb_common::client::Client;
use lb_common::socket::{self, Dial, DialAction, Sockets, Way};
use lb_common::table::{Backend, Dialled, SocketCookie, SocketKey, SocketPeer};

use crate::kernel::{Kernel, Subject, client_of_netns, sets_retval};
use crate::linear::copy_words;
use crate::tables::FamilyTables;

// kernel/bpf/cgroup.c: what a program of these hooks returns.
const DENY: i32 = 0;
const ALLOW: i32 = 1;
const ECONNREFUSED: i32 = 111;

/// Declares the program of each hook, which has the hook's name.
macro_rules! hooks {
    ($( $(#[doc = $what:literal])+ $program:ident($ctx:ident): $handle:expr; )*) => {
        $(
            $(#[doc = $what])+
            #[cgroup_sock_addr($program)]
            pub fn $program($ctx: SockAddrContext) -> i32 {
                $handle
            }
        )*
    };
}
hooks! {
    /// A socket connects to an IPv4 address.
    connect4(ctx): dial(&Peer::<[u8; 4]>::v4(ctx), Way::Connect);
    /// A socket connects to an IPv6 address, or to a mapped one.
    connect6(ctx): dial6(ctx, Way::Connect);
    /// A socket sends a datagram to an IPv4 address.
    sendmsg4(ctx): dial(&Peer::<[u8; 4]>::v4(ctx), Way::Datagram);
    /// A socket sends a datagram to an IPv6 address.
    sendmsg6(ctx): dial6(ctx, Way::Datagram);
    /// A socket reads the source of an IPv4 datagram.
    recvmsg4(ctx): received(&Peer::<[u8; 4]>::v4(ctx));
    /// A socket reads the source of an IPv6 datagram, or a mapped one.
    recvmsg6(ctx): match Peer::<[u8; 4]>::mapped(&ctx) {
        Some(peer) => received(&peer),
        None => received(&Peer::<[u8; 16]>::v6(ctx)),
    };
    /// A process asks for the peer of an IPv4 socket.
    getpeername4(ctx): shown(&Peer::<[u8; 4]>::v4(ctx));
    /// A process asks for the peer of an IPv6 socket.
    getpeername6(ctx): match Peer::<[u8; 4]>::mapped(&ctx) {
        Some(peer) => shown(&peer),
        None => shown(&Peer::<[u8; 16]>::v6(ctx)),
    };
}

/// A dial, counted with atomic operations: programs at interfaces interrupt those of sockets and write the same
/// counters.
struct Socket {
    ctx: *mut bpf_sock_addr,
}

impl Socket {
    #[inline(always)]
    fn kernel<A>(peer: &Peer<A>) -> Kernel<Self> {
        Kernel { subject: Self { ctx: peer.ctx.sock_addr } }
    }
}

impl Subject for Socket {
    #[inline(always)]
    fn bytes(&self) -> u64 {
        0
    }

    #[inline(always)]
    unsafe fn add(counter: *mut u64, amount: u64) {
        // SAFETY: see the trait.
        unsafe { intrinsics::atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, amount) };
    }
}

impl<A: FamilyTables> Sockets<A> for Kernel<Socket> {
    #[inline(always)]
    fn read_note(&self, _: SocketCookie, to: &mut Dialled<A>) -> bool {
        // SAFETY: the socket of the context.
        let known = unsafe { A::dialled().get_ptr_mut(&SockAddrContext::new(self.subject.ctx)) };
        if known.is_null() {
            return false;
        }
        // SAFETY: the row of this socket. Threads that use one socket at once may read half of a change, as if they had
        // dialled in another order.
        unsafe { copy_words::<Dialled<A>>(known.cast(), addr_of_mut!(*to).cast()) };
        true
    }

    #[inline(always)]
    fn has_note_of_another(&self, _: SocketCookie, to: &Backend<A>) -> bool {
        // SAFETY: the socket of the context.
        let known = unsafe { A::dialled().get_ptr_mut(&SockAddrContext::new(self.subject.ctx)) };
        // SAFETY: as above.
        !known.is_null() && !unsafe { &*known }.is_to(to)
    }

    #[inline(always)]
    fn write_note(&self, _: SocketCookie, note: &Dialled<A>) -> bool {
        // SAFETY: the socket of the context.
        let known = unsafe { A::dialled().get_or_insert_ptr_mut(&SockAddrContext::new(self.subject.ctx), None) };
        if known.is_null() {
            return false;
        }
        // SAFETY: as above.
        unsafe { copy_words::<Dialled<A>>(addr_of!(*note).cast(), known.cast()) };
        true
    }

    #[inline(always)]
    fn forget_note(&self, _: SocketCookie) {
        // SAFETY: the socket of the context. Most sockets have no note.
        let _ = unsafe { A::dialled().delete(sock(self.subject.ctx)) };
    }

    #[inline(always)]
    fn read_peer(&self, key: &SocketKey<A>, to: &mut SocketPeer<A>) -> bool {
        let Some(known) = A::sockets().get_ptr(key) else { return false };
        // SAFETY: the pointer comes from a lookup in this program run. If the element is reused meanwhile, the datagram
        // goes to a backend that is verified, or shows the address of another one.
        unsafe { copy_words::<SocketPeer<A>>(known.cast(), addr_of_mut!(*to).cast()) };
        true
    }

    #[inline(always)]
    fn write_peer(&self, key: &SocketKey<A>, peer: &SocketPeer<A>) -> bool {
        A::sockets().insert(key, peer, 0).is_ok()
    }
}

/// The socket of a hook.
#[inline(always)]
fn sock(ctx: *mut bpf_sock_addr) -> *mut bpf_sock {
    // SAFETY: a field of the context: the socket, never null at these hooks.
    unsafe { addr_of!((*ctx).__bindgen_anon_1.sk).read_volatile() }
}

/// The address in the context of a hook, as an address of family `A`.
struct Peer<A> {
    ctx: SockAddrContext,
    /// The first word of the address in `user_ip6`; `user_ip4` holds it if there is none.
    word: Option<usize>,
    family: PhantomData<A>,
}

impl<A> Peer<A> {
    #[inline(always)]
    const fn new(ctx: SockAddrContext, word: Option<usize>) -> Self {
        Self { ctx, word, family: PhantomData }
    }

    #[inline(always)]
    fn port(&self) -> u16 {
        // SAFETY: a field of the context.
        u16::from_be(unsafe { addr_of!((*self.ctx.sock_addr).user_port).read_volatile() } as u16)
    }

    #[inline(always)]
    fn set_port(&self, port: u16) {
        // SAFETY: as above; the hooks let programs write it.
        unsafe { addr_of_mut!((*self.ctx.sock_addr).user_port).write_volatile(port.to_be().into()) }
    }

    #[inline(always)]
    fn proto(&self) -> Option<Proto> {
        // SAFETY: a field of the context.
        match unsafe { addr_of!((*self.ctx.sock_addr).protocol).read_volatile() } {
            6 => Some(Proto::TCP),
            17 => Some(Proto::UDP),
            _ => None,
        }
    }

    /// The kind of client that the socket is, if it is served.
    #[inline(always)]
    fn client(&self) -> Option<Client> {
        // SAFETY: the context of this run.
        client_of_netns(unsafe { bpf_get_netns_cookie(self.ctx.as_ptr()) })
    }

    #[inline(always)]
    fn cookie(&self) -> SocketCookie {
        // SAFETY: the context of this run.
        SocketCookie::of(unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) })
    }
}

impl Peer<[u8; 4]> {
    #[inline(always)]
    const fn v4(ctx: SockAddrContext) -> Self {
        Self::new(ctx, None)
    }

    /// The IPv4 address in a mapped one; `None` if the address is not mapped.
    #[inline(always)]
    fn mapped(ctx: &SockAddrContext) -> Option<Self> {
        // SAFETY: fields of the context.
        let word = |index: usize| unsafe { addr_of!((*ctx.sock_addr).user_ip6[index]).read_volatile() };
        let is_mapped = word(0) | word(1) == 0 && word(2) == 0xffff_u32.to_be();
        if is_mapped { Some(Self::new(SockAddrContext::new(ctx.sock_addr), Some(3))) } else { None }
    }
}

impl Peer<[u8; 16]> {
    #[inline(always)]
    const fn v6(ctx: SockAddrContext) -> Self {
        Self::new(ctx, Some(0))
    }
}

/// The addresses of a family in the context of a hook.
trait SocketFamily: FamilyTables {
    fn read(peer: &Peer<Self>) -> Self;
    fn write(peer: &Peer<Self>, addr: &Self);
    /// The source that a datagram names, else the address that the socket is bound to; zeroes if there is none.
    fn source(peer: &Peer<Self>, way: Way) -> Self;
}

impl SocketFamily for [u8; 4] {
    #[inline(always)]
    fn read(peer: &Peer<Self>) -> Self {
        // SAFETY: fields of the context.
        unsafe {
            match peer.word {
                None => addr_of!((*peer.ctx.sock_addr).user_ip4).read_volatile(),
                Some(word) => addr_of!((*peer.ctx.sock_addr).user_ip6[word]).read_volatile(),
            }
        }
        .to_ne_bytes()
    }

    #[inline(always)]
    fn write(peer: &Peer<Self>, addr: &Self) {
        let addr = u32::from_ne_bytes(*addr);
        // SAFETY: as above; the hooks let programs write them.
        unsafe {
            match peer.word {
                None => addr_of_mut!((*peer.ctx.sock_addr).user_ip4).write_volatile(addr),
                Some(word) => addr_of_mut!((*peer.ctx.sock_addr).user_ip6[word]).write_volatile(addr),
            }
        }
    }

    #[inline(always)]
    fn source(peer: &Peer<Self>, way: Way) -> Self {
        if way == Way::Datagram {
            // SAFETY: fields of the context; each exists at the hook of datagrams of its family.
            let named = unsafe {
                match peer.word {
                    None => addr_of!((*peer.ctx.sock_addr).msg_src_ip4).read_volatile(),
                    Some(word) => addr_of!((*peer.ctx.sock_addr).msg_src_ip6[word]).read_volatile(),
                }
            };
            if named != 0 {
                return named.to_ne_bytes();
            }
        }
        // SAFETY: a field of the socket.
        unsafe { addr_of!((*sock(peer.ctx.sock_addr)).src_ip4).read_volatile() }.to_ne_bytes()
    }
}

impl SocketFamily for [u8; 16] {
    #[inline(always)]
    fn read(peer: &Peer<Self>) -> Self {
        // SAFETY: fields of the context.
        octets(|word| unsafe { addr_of!((*peer.ctx.sock_addr).user_ip6[word]).read_volatile() })
    }

    #[inline(always)]
    fn write(peer: &Peer<Self>, addr: &Self) {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = *addr;
        let words = [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]];
        for (index, word) in words.into_iter().enumerate() {
            // SAFETY: as above; the hooks let programs write them.
            unsafe {
                addr_of_mut!((*peer.ctx.sock_addr).user_ip6[index]).write_volatile(u32::from_ne_bytes(word));
            }
        }
    }

    #[inline(always)]
    fn source(peer: &Peer<Self>, way: Way) -> Self {
        if way == Way::Datagram {
            // SAFETY: fields of the context, which exist at the hooks of datagrams.
            let word = |word: usize| unsafe { addr_of!((*peer.ctx.sock_addr).msg_src_ip6[word]).read_volatile() };
            let words = [word(0), word(1), word(2), word(3)];
            if words[0] | words[1] | words[2] | words[3] != 0 {
                return octets(|word| words[word]);
            }
        }
        // SAFETY: fields of the socket.
        octets(|word| unsafe { addr_of!((*sock(peer.ctx.sock_addr)).src_ip6[word]).read_volatile() })
    }
}

#[inline(always)]
fn octets(word: impl Fn(usize) -> u32) -> [u8; 16] {
    let [a, b, c, d] = [word(0), word(1), word(2), word(3)].map(u32::to_ne_bytes);
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}

/// The address and port in the context.
#[inline(always)]
fn address<A: SocketFamily>(peer: &Peer<A>) -> Backend<A> {
    Backend { addr: A::read(peer), port: peer.port() }
}

#[inline(always)]
fn set_address<A: SocketFamily>(peer: &Peer<A>, to: &Backend<A>) {
    A::write(peer, &to.addr);
    peer.set_port(to.port);
}

#[inline(always)]
fn dial6(ctx: SockAddrContext, way: Way) -> i32 {
    match Peer::<[u8; 4]>::mapped(&ctx) {
        Some(peer) => dial(&peer, way),
        None => dial(&Peer::<[u8; 16]>::v6(ctx), way),
    }
}

#[inline(always)]
fn dial<A: SocketFamily>(peer: &Peer<A>, way: Way) -> i32 {
    let Some(proto) = peer.proto() else { return ALLOW };
    let Some(client) = peer.client() else { return ALLOW };
    let to = address(peer);
    let dial = Dial { socket: peer.cookie(), client, source: A::source(peer, way), to, proto, way };
    match socket::dial(&dial, &Socket::kernel(peer)) {
        DialAction::Leave => ALLOW,
        DialAction::Translate(backend) => {
            set_address(peer, &backend);
            ALLOW
        }
        DialAction::Refuse => {
            // Without it, the process gets EPERM.
            if sets_retval() {
                // SAFETY: a helper without pointers.
                unsafe { bpf_set_retval(-ECONNREFUSED) };
            }
            DENY
        }
        DialAction::Deny => DENY,
    }
}

/// Shows the source of a datagram as the address that the socket sent to.
#[inline(always)]
fn received<A: SocketFamily>(peer: &Peer<A>) -> i32 {
    if peer.client().is_none() {
        return ALLOW;
    }
    if let Some(dialled) = socket::dialled(peer.cookie(), &address(peer), &Socket::kernel(peer)) {
        set_address(peer, &dialled);
    }
    ALLOW
}

/// Shows the peer of a socket as the address that it dialled.
#[inline(always)]
fn shown<A: SocketFamily>(peer: &Peer<A>) -> i32 {
    let at = address(peer);
    let mut note = Dialled::unknown(at.addr);
    if Socket::kernel(peer).read_note(SocketCookie::of(0), &mut note)
        && let Some(dialled) = note.shown_as(&at)
    {
        set_address(peer, &dialled);
    }
    ALLOW
}
