//! Destroys connected UDP sockets whose backend has gone (sock_diag(7)).
//!
//! A connected socket has its backend for good: no hook sees its datagrams. Destroyed, it fails with an error, and the
//! process can connect again. TCP connections end by themselves.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_bindings::inet_diag::{ReqV2, Request, Sockid};
use rtnetlink::sys::protocols::NETLINK_SOCK_DIAG;

use crate::netlink;

/// include/uapi/linux/sock_diag.h
const SOCK_DESTROY: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_UDP: u8 = 17;
/// A bit of the states: connected (`TCP_ESTABLISHED` in include/net/tcp_states.h).
const CONNECTED: u32 = 1 << 1;

/// Destroys the sockets of this network namespace, given by cookie, that are connected to these backends. Returns their
/// number.
pub fn destroy(gone: &BTreeSet<(u64, SocketAddr)>) -> io::Result<usize> {
    let mut destroyed = 0;
    for family in [AF_INET, AF_INET6] {
        for socket in connected(family)? {
            let cookie = u64::from_ne_bytes(socket.cookie);
            if !gone.contains(&(cookie, peer(family, &socket))) {
                continue;
            }
            let request = request(family, socket);
            match netlink::exchange(NETLINK_SOCK_DIAG, SOCK_DESTROY, 0, request.as_slice(), |_| {}) {
                Ok(()) => destroyed += 1,
                // The process has closed the socket.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(destroyed)
}

fn connected(family: u8) -> io::Result<Vec<Sockid>> {
    let mut found = Vec::new();
    let wanted = request(family, Sockid::new());
    let dump = Request::new().op_udp_diag_dump(&wanted);
    netlink::ask(NETLINK_SOCK_DIAG, &dump, |(message, _)| found.push(message.sockid))?;
    Ok(found)
}

fn request(family: u8, sockid: Sockid) -> ReqV2 {
    let mut request = ReqV2::new();
    (request.family, request.protocol, request.states) = (family, IPPROTO_UDP, CONNECTED);
    request.sockid = sockid;
    request
}

/// The address that a socket is connected to. An IPv6 socket may be connected to an IPv4 address.
fn peer(family: u8, socket: &Sockid) -> SocketAddr {
    let [a, b, c, d, ..] = socket.dst;
    let addr: IpAddr =
        if family == AF_INET { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(socket.dst).to_canonical() };
    SocketAddr::new(addr, socket.dport())
}
