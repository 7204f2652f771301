//! Captures packets that a program re-injects at its hook; in a test run they go to the loopback device.
//!
//! They are captured in a network namespace of their own, and never reach a hook.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::EDGE;
use crate::netns::run;

/// `PACKET_OUTGOING` of `linux/if_packet.h`: the loopback device receives every packet that it sends.
const OUTGOING: u8 = 4;

/// The interface by which packets leave.
pub const UPLINK: &str = "up0";

/// The router behind it.
pub const NEXT_HOP_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const NEXT_HOPS: [(&str, &str); 2] = [("-4", "169.254.0.1"), ("-6", "fe80::7")];

/// A network namespace that a thread can enter.
pub struct Home(File);

impl Home {
    /// Moves the calling thread there.
    pub fn enter(&self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace");
    }
}

/// The namespace, and a socket that captures from its loopback device.
pub struct Replays {
    home: Home,
    socket: OwnedFd,
}

impl Replays {
    pub fn open() -> Self {
        let opened = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
            run(Command::new("ip").args(["link", "set", "lo", "up"]));
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll);
            let socket = socket.expect("root may open a packet socket");
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(10, 0)).expect("an option of all sockets");
            Self { home: Self::home(), socket }
        });
        opened.join().expect("it says itself why not")
    }

    /// Leads all packets of the calling thread's namespace out by one uplink, with these addresses of the node, also those
    /// that test runs bring in by the loopback device.
    pub fn lead_out(nodes: [IpAddr; 2]) {
        let ip = |args: &str| run(Command::new("ip").args(args.split(' ')));
        ip(&format!("link add {UPLINK} type veth peer name net0"));
        for link in [UPLINK, "net0"] {
            // Long fragments fit.
            ip(&format!("link set {link} mtu 9000 up"));
        }
        for node in nodes {
            let (family, bits, more) = if node.is_ipv4() { ("-4", 32, "") } else { ("-6", 128, " nodad") };
            ip(&format!("{family} addr add {node}/{bits} dev {UPLINK}{more}"));
        }
        let mac = NEXT_HOP_MAC.map(|byte| format!("{byte:02x}")).join(":");
        for (family, router) in NEXT_HOPS {
            ip(&format!("{family} neigh add {router} lladdr {mac} nud permanent dev {UPLINK}"));
            ip(&format!("{family} route add default via {router} onlink dev {UPLINK}"));
        }
        for key in ["ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{key}"), "1").expect("root may set it");
        }
    }

    /// The network namespace of the calling thread.
    pub fn home() -> Home {
        Home(File::open("/proc/thread-self/ns/net").expect("every thread is in one"))
    }

    /// Moves the calling thread to the namespace that captures.
    pub fn enter(&self) {
        self.home.enter();
    }

    /// The next `count` packets.
    pub fn take(&self, count: u64) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.next()).collect()
    }

    fn next(&self) -> Vec<u8> {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let received = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut bytes);
            let (count, link) = received.expect("a packet that was sent to the hook again");
            if link.is_some_and(|link| link.pkttype() != OUTGOING && link.ifindex() == EDGE as usize) {
                bytes.truncate(count);
                return bytes;
            }
        }
    }
}
