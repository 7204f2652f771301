//! Receives the TCP segments that arrive in a namespace, whether or not its stack has a socket for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::netns::Netns;

/// `PACKET_OUTGOING` of `linux/if_packet.h`.
const OUTGOING: u8 = 4;
const IPPROTO_TCP: u8 = 6;

/// A segment without options that matter: its ends, flags and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
}

/// A socket that gets a copy of each packet that arrives.
pub struct Tap {
    socket: OwnedFd,
}

impl Tap {
    /// Packets that arrive after this returns are kept until they are read; up to some 20,000 of them.
    #[track_caller]
    pub fn open(netns: &Netns) -> Self {
        let socket = netns.inside(|| {
            let kind = SockType::Datagram;
            socket(AddressFamily::Packet, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
                .expect("root may open one")
        });
        setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20)).expect("root may take more than is usual");
        Self { socket }
    }

    /// The next segment, or `None` if none arrives in time.
    pub fn next(&self, limit: Duration) -> Option<Segment> {
        let limit = TimeVal::microseconds(limit.as_micros().max(1).try_into().ok()?);
        setsockopt(&self.socket, sockopt::ReceiveTimeout, &limit).expect("an option that all sockets have");
        let mut bytes = [0; 128];
        loop {
            let (count, link) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut bytes).ok()?;
            let arrives = link.is_some_and(|link| link.pkttype() != OUTGOING);
            if arrives && let Some(segment) = parse(&bytes[..count]) {
                return Some(segment);
            }
        }
    }
}

/// Reads a segment in a packet without extension headers.
fn parse(bytes: &[u8]) -> Option<Segment> {
    let (from, to, protocol, tcp): (IpAddr, IpAddr, u8, &[u8]) = match bytes.first()? >> 4 {
        4 => {
            let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?).into());
            (address(12)?, address(16)?, *bytes.get(9)?, bytes.get(usize::from(bytes[0] & 0xf) * 4..)?)
        }
        6 => {
            let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?).into());
            (address(8)?, address(24)?, *bytes.get(6)?, bytes.get(40..)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let number = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
    let (from, to) = (SocketAddr::new(from, port(0)?), SocketAddr::new(to, port(2)?));
    let segment = Segment { from, to, flags: *tcp.get(13)?, seq: number(4)?, ack: number(8)? };
    (protocol == IPPROTO_TCP).then_some(segment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw;

    #[test]
    fn what_is_built_is_read() {
        for (from, to) in [("192.0.2.1:7", "10.0.0.1:80"), ("[2001:db8::1]:7", "[fd00::1]:80")] {
            let (from, to) = (from.parse().expect("an address"), to.parse().expect("an address"));
            let wanted = Segment { from, to, flags: 0x12, seq: 1, ack: 2 };
            assert_eq!(parse(&raw::answer(&wanted)), Some(wanted));
        }
        assert_eq!(parse(&[0x45; 39]), None);
    }
}
