//! Datagram sockets that answer from the address to which the question was sent, among many local addresses.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::Socket;

use crate::address::Family;

/// Room for the packet information of either family.
const CONTROL_BYTES: usize = 128;

/// A datagram, its sender, and its local destination address.
pub struct Received {
    pub count: usize,
    pub client: SocketAddr,
    asked: IpAddr,
}

/// Makes the kernel report the destination of each datagram.
pub fn tell_destinations(socket: &Socket, family: Family) {
    let told = match family {
        Family::V4 => setsockopt(socket, sockopt::Ipv4PacketInfo, &true),
        Family::V6 => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true),
    };
    told.expect("an option that all datagram sockets have");
}

/// Receives a datagram; an error if none arrives in time.
pub fn receive(socket: &UdpSocket, bytes: &mut [u8]) -> io::Result<Received> {
    let mut control = vec![0; CONTROL_BYTES];
    let mut parts = [IoSliceMut::new(bytes)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let client = message.address.as_ref().and_then(socket_address);
    let asked = message.cmsgs()?.find_map(|told| match told {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into()),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into()),
        _ => None,
    });
    match (client, asked) {
        (Some(client), Some(asked)) => Ok(Received { count: message.bytes, client, asked }),
        _ => Err(io::Error::other("a datagram from nowhere")),
    }
}

/// Answers a datagram.
pub fn answer(socket: &UdpSocket, received: &Received, bytes: &[u8]) -> io::Result<()> {
    let (parts, client) = ([IoSlice::new(bytes)], SockaddrStorage::from(received.client));
    let send = |from: ControlMessage| {
        sendmsg(socket.as_raw_fd(), &parts, &[from], MsgFlags::empty(), Some(&client)).map(|_| ()).map_err(Into::into)
    };
    match received.asked {
        IpAddr::V4(asked) => {
            let address = libc::in_addr { s_addr: u32::from(asked).to_be() };
            send(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: address,
                ipi_addr: address,
            }))
        }
        IpAddr::V6(asked) => {
            let address = libc::in6_addr { s6_addr: asked.octets() };
            send(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 }))
        }
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::from((address.ip(), address.port())));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::from((address.ip(), address.port()))))
}
