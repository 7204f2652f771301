//! Captures every packet of every interface of a namespace.
//!
//! Egress packets are captured after the traffic-control hooks, ingress packets before them.

use std::fmt;
use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::address::UPLINK;
use crate::deadline;
use crate::netns::Netns;

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_ICMPV6: u8 = 58;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

/// Bytes that the kernel keeps for a slow reader: the packets of a bulk transfer count with all their pages.
const BUFFER: usize = 64 << 20;

/// `PACKET_OUTGOING` of `linux/if_packet.h`.
const OUTGOING: u8 = 4;

/// The direction of a packet, from the namespace's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
}

/// The content of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carries {
    Syn,
    Reset,
    /// Any other segment.
    Tcp,
    Udp,
    /// A message of this type, of the packet's own family.
    Icmp(u8),
    Other(u8),
}

/// One packet on one interface. Ports are zero if the packet has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Index of the interface in the namespace.
    pub interface: usize,
    pub direction: Direction,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub carries: Carries,
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { interface, direction, source, destination, carries } = self;
        write!(f, "{direction:?} on {interface}: {carries:?} {source} -> {destination}")
    }
}

/// A running capture. It ends when dropped.
pub struct Capture {
    netns: Netns,
    stop: Arc<AtomicBool>,
    sink: Arc<Sink>,
    thread: Option<JoinHandle<()>>,
}

/// What a capture has got.
#[derive(Default)]
struct Sink {
    seen: Mutex<Vec<Packet>>,
    /// Packets that the kernel did not keep for the capture.
    lost: AtomicU32,
}

impl Capture {
    /// Captures on all interfaces except the loopback. Packets sent after this returns are captured.
    pub fn start(netns: &Netns) -> Self {
        let (stop, sink) = (Arc::new(AtomicBool::new(false)), Arc::new(Sink::default()));
        let tap = netns.inside(open);
        let (told, own) = (Arc::clone(&stop), Arc::clone(&sink));
        let thread = netns.thread(move || listen(&tap, &told, &own));
        Self { netns: netns.clone(), stop, sink, thread: Some(thread) }
    }

    /// The packets captured so far. Panics if one was lost: what is not here would prove nothing.
    #[track_caller]
    pub fn seen(&self) -> Vec<Packet> {
        let seen = self.sink.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lost = self.sink.lost.load(Ordering::SeqCst);
        assert_eq!(lost, 0, "the capture in {} has lost packets", self.netns.name());
        seen
    }

    /// Waits for a packet.
    #[track_caller]
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Packet) -> bool) -> Packet {
        let found = deadline::within(deadline::PATIENCE, || self.seen().into_iter().find(&is_it));
        match found {
            Some(packet) => packet,
            None => panic!("no such packet in {}: {what}; seen were\n{}", self.netns.name(), self.listing()),
        }
    }

    /// All packets captured before this call. A marker packet from `from` to the balancer's side of the uplink follows
    /// them; its capture proves that none is missing.
    #[track_caller]
    pub fn all_until_now(&self, from: &Netns) -> Vec<Packet> {
        let family = crate::address::Family::V4;
        let marker = from.inside(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("any port");
            // Port 9 is discard; no server needs to listen.
            socket.send_to(b"marker", (UPLINK.host(family, 1), 9)).expect("there is a route to the balancer");
            socket.local_addr().expect("it is bound").port()
        });
        self.wait_for("the marker", |packet| packet.carries == Carries::Udp && packet.source.port() == marker);
        self.seen()
    }

    fn listing(&self) -> String {
        let lines: Vec<String> = self.seen().iter().map(|packet| format!("  {packet}")).collect();
        lines.join("\n")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // The thread reports its own panic.
            let _ = thread.join();
        }
    }
}

fn open() -> OwnedFd {
    let tap = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .expect("root may open a packet socket");
    setsockopt(&tap, sockopt::RcvBufForce, &BUFFER).expect("root may exceed the limit");
    count_losses(&tap);
    tap
}

/// From now on each packet tells how many were lost before it.
fn count_losses(socket: &impl AsFd) {
    setsockopt(socket, sockopt::RxqOvfl, &1).expect("an option that all sockets have");
    setsockopt(socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000)).expect("an option that all sockets have");
}

fn listen(tap: &OwnedFd, told: &AtomicBool, sink: &Sink) {
    while !told.load(Ordering::SeqCst) {
        receive(tap, sink);
    }
}

/// Takes one packet, if there is one, and how many were lost before it: so a marker that is seen tells of all before it.
fn receive(tap: &impl AsRawFd, sink: &Sink) -> bool {
    let mut bytes = [0; 128];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut control = nix::cmsg_space!(u32);
    let received = recvmsg::<LinkAddr>(tap.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
    // None within the time limit.
    let Ok(message) = received else { return false };
    for control in message.cmsgs().expect("there is room for a number") {
        if let ControlMessageOwned::RxqOvfl(lost) = control {
            sink.lost.store(lost, Ordering::SeqCst);
        }
    }
    let (count, Some(link)) = (message.bytes, message.address) else { return true };
    let direction = if link.pkttype() == OUTGOING { Direction::Out } else { Direction::In };
    if let Some(packet) = parse(&bytes[..count], link.ifindex(), direction)
        && !packet.source.ip().is_loopback()
    {
        sink.seen.lock().unwrap_or_else(PoisonError::into_inner).push(packet);
    }
    true
}

/// Parses an IP packet without options or extension headers.
fn parse(bytes: &[u8], interface: usize, direction: Direction) -> Option<Packet> {
    let (source, destination, protocol, rest) = match bytes.first()? >> 4 {
        4 => {
            let header = usize::from(bytes[0] & 0xf) * 4;
            let address = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(octets).into())
            };
            (address(12)?, address(16)?, *bytes.get(9)?, bytes.get(header..)?)
        }
        6 => {
            let address = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(octets).into())
            };
            (address(8)?, address(24)?, *bytes.get(6)?, bytes.get(40..)?)
        }
        _ => return None,
    };
    let port = |at: usize| rest.get(at..at + 2).map(|word| u16::from_be_bytes([word[0], word[1]]));
    let has_ports = matches!(protocol, IPPROTO_TCP | IPPROTO_UDP);
    let (from, to) = if has_ports { (port(0)?, port(2)?) } else { (0, 0) };
    let carries = match protocol {
        IPPROTO_TCP if rest.get(13)? & (TCP_SYN | TCP_ACK) == TCP_SYN => Carries::Syn,
        IPPROTO_TCP if rest[13] & TCP_RST != 0 => Carries::Reset,
        IPPROTO_TCP => Carries::Tcp,
        IPPROTO_UDP => Carries::Udp,
        IPPROTO_ICMP | IPPROTO_ICMPV6 => Carries::Icmp(*rest.first()?),
        other => Carries::Other(other),
    };
    let (source, destination) = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
    Some(Packet { interface, direction, source, destination, carries })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_syn_is_read() {
        let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        bytes.extend([0x30, 0x39, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0]);
        let packet = parse(&bytes, 3, Direction::Out).expect("a packet");
        assert_eq!(packet.to_string(), "Out on 3: Syn 10.0.0.1:12345 -> 10.0.0.2:80");
        bytes[33] = 0x12;
        assert_eq!(parse(&bytes, 3, Direction::In).expect("a packet").carries, Carries::Tcp);
        bytes[33] = 0x14;
        assert_eq!(parse(&bytes, 3, Direction::In).expect("a packet").carries, Carries::Reset);
    }

    /// A socket with room for a few datagrams, and a reader that begins late. Unlike a tap it needs no privilege.
    #[test]
    fn lost_packets_are_counted() {
        let (sink, socket) = (Sink::default(), UdpSocket::bind("127.0.0.1:0").expect("any port"));
        setsockopt(&socket, sockopt::RcvBuf, &4096).expect("an option that all sockets have");
        count_losses(&socket);
        let to = socket.local_addr().expect("it is bound");
        let send = || {
            socket.send_to(&[0; 256], to).expect("loopback takes it");
        };
        (0..64).for_each(|_| send());
        while receive(&socket, &sink) {}
        assert_eq!(sink.lost.load(Ordering::SeqCst), 0, "those that were kept came before the lost ones");
        send();
        assert!(receive(&socket, &sink), "there is room again");
        assert!(sink.lost.load(Ordering::SeqCst) > 32, "most were lost");
    }

    #[test]
    fn what_is_no_packet_is_none() {
        assert_eq!(parse(&[], 1, Direction::In), None);
        assert_eq!(parse(&[0x45; 19], 1, Direction::In), None);
        assert_eq!(parse(&[0x60; 39], 1, Direction::In), None);
        assert_eq!(parse(&[0x10; 60], 1, Direction::In), None);
    }
}
