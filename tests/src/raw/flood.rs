//! A flood of connections that are never completed.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};

use crate::address::{FAR, Family};
use crate::netns::Netns;

/// A socket that sends SYNs from spoofed addresses, each from another.
pub struct Flood {
    socket: Socket,
    to: SocketAddr,
    next: u32,
}

impl Flood {
    pub fn new(netns: &Netns, to: SocketAddr) -> Self {
        let socket = netns.inside(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)));
        let socket = socket.expect("root may open a raw socket");
        socket.set_header_included_v4(true).expect("an option that raw sockets have");
        Self { socket, to, next: 0 }
    }

    pub fn send(&mut self, count: u32) {
        let IpAddr::V4(vip) = self.to.ip() else { panic!("{} is of the other family", self.to) };
        for number in self.next..self.next + count {
            let IpAddr::V4(source) = FAR.host(Family::V4, (number % 250) as u8 + 1) else {
                unreachable!("of this family")
            };
            let packet = PacketBuilder::ipv4(source.octets(), vip.octets(), 64).tcp(
                (1 + number / 250) as u16,
                self.to.port(),
                number,
                1024,
            );
            let mut bytes = Vec::new();
            packet.syn().write(&mut bytes, &[]).expect("memory takes all");
            // A full queue drops some; enough are sent.
            let _ = self.socket.send_to(&bytes, &self.to.into());
        }
        self.next += count;
    }
}

/// Sends in a thread of its own, again and again, for as long as `work` takes, also if that panics.
pub fn flood_during(mut send: impl FnMut() + Send, work: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                send();
            }
        });
        let done = catch_unwind(AssertUnwindSafe(work));
        is_over.store(true, Ordering::SeqCst);
        done.unwrap_or_else(|panic| resume_unwind(panic));
    });
}
