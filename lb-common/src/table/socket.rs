//! Sockets whose address was translated when they dialled, before any packet.

use super::flow::Direction;
use super::row::table_type;

table_type! {
    /// Key of `sockets4` and `sockets6`: an address as one UDP socket uses it. `Request`: the address that the socket
    /// sends to. `Reply`: the address of the backend that answers.
    #[repr(align(4))]
    pub struct SocketKey<A> {
        pub cookie: SocketCookie,
        pub addr: A,
        /// Host order.
        pub port: u16,
        pub direction: Direction,
        pub pad: u8,
    }

    /// The kernel's number of a socket (`SO_COOKIE`), in two halves: a key of IPv6 would need padding for a `u64`.
    pub struct SocketCookie {
        pub low: u32,
        pub high: u32,
    }

    /// Value of `sockets4` and `sockets6`. `Request`: the backend. `Reply`: the address that the socket dialled.
    #[repr(align(4))]
    pub struct SocketPeer<A> {
        pub addr: A,
        /// Host order.
        pub port: u16,
        /// 1 if the socket is connected to the backend, 0 if not. The agent ends connected sockets whose backend has gone.
        pub connected: u16,
        /// [`Frontend::id`](super::Frontend::id).
        pub frontend: u32,
    }

    /// Value of `dialled4` and `dialled6`. If the socket has another peer than the backend, it dialled without connecting.
    #[repr(align(4))]
    pub struct Dialled<A> {
        /// The address that the socket dialled.
        pub addr: A,
        /// The backend that it got.
        pub backend: A,
        /// Host order.
        pub port: u16,
        /// Host order.
        pub backend_port: u16,
        /// [`Frontend::id`](super::Frontend::id).
        pub frontend: u32,
    }
}

impl SocketCookie {
    pub const fn of(cookie: u64) -> Self {
        Self { low: cookie as u32, high: (cookie >> 32) as u32 }
    }

    pub const fn value(self) -> u64 {
        (self.high as u64) << 32 | self.low as u64
    }
}
