//! A tunnel between two namespaces whose packets begin with the network header, as those of WireGuard do: a tun device
//! at either end, and threads that carry packets from one to the other.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use lb_tests::address::{FAMILIES, Net, add_address, flag, host_prefix, vip};
use lb_tests::dial::{Dial, Outcome};
use lb_tests::netns::Netns;
use tun_tap::{Iface, Mode};

/// The device at the far end.
const FAR_NAME: &str = "tun0";

/// Longer than any packet here.
const PACKET_MAX: usize = 70_000;

/// The order in which fragments arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragments {
    AsSent,
    /// The fragment after the first one of a datagram overtakes it.
    FirstOvertaken,
}

pub struct Tunnel {
    near: Netns,
    name: &'static str,
    pub far: Netns,
    carriers: Vec<JoinHandle<()>>,
}

impl Tunnel {
    /// Makes the tunnel from `name` in `near` to a namespace of its own, which has these addresses and sends everything
    /// through the tunnel. `near` has routes to them.
    pub fn new(test: &str, (near, name): (&Netns, &'static str), addresses: [IpAddr; 2], order: Fragments) -> Self {
        let far = Netns::create(test, name);
        let open = |netns: &Netns, name: &str| {
            let device =
                netns.inside(|| Iface::without_packet_info(name, Mode::Tun)).expect("root may make a tun device");
            netns.ip(&[format!("link set {name} up")]);
            Arc::new(device)
        };
        let (here, there) = (open(near, name), open(&far, FAR_NAME));
        let carriers = vec![
            thread::spawn({
                let (here, there) = (Arc::clone(&here), Arc::clone(&there));
                move || carry(&here, &there, order)
            }),
            thread::spawn(move || carry(&there, &here, order)),
        ];
        for (family, address) in FAMILIES.into_iter().zip(addresses) {
            far.ip(&[add_address(family, &host_prefix(address), FAR_NAME)]);
            far.run("ip", &[flag(family), "route", "add", "default", "dev", FAR_NAME]);
            near.run("ip", &[flag(family), "route", "add", &host_prefix(address), "dev", name]);
        }
        Self { near: near.clone(), name, far, carriers }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // Deleting the device ends the thread that reads from it.
        self.near.ip(&[format!("link delete {}", self.name)]);
        self.far.ip(&[format!("link delete {FAR_NAME}")]);
        for carrier in self.carriers.drain(..) {
            // The thread reports its own panic.
            let _ = carrier.join();
        }
    }
}

/// Carries packets until a device is deleted.
fn carry(from: &Iface, to: &Iface, order: Fragments) {
    let mut packet = vec![0; PACKET_MAX];
    let mut overtaken: Option<Vec<u8>> = None;
    while let Ok(len) = from.recv(&mut packet) {
        let bytes = &packet[..len];
        if order == Fragments::FirstOvertaken && overtaken.is_none() && is_first_fragment(bytes) {
            overtaken = Some(bytes.to_vec());
            continue;
        }
        // A device that is down loses packets, as a network does.
        let _ = to.send(bytes);
        if let Some(first) = overtaken.take() {
            let _ = to.send(&first);
        }
    }
}

/// Whether this is a first fragment: by the IPv4 header, or by a fragment header directly after the IPv6 header.
fn is_first_fragment(packet: &[u8]) -> bool {
    let bits = |offset: usize| packet.get(offset..offset + 2).map(|bits| u16::from_be_bytes([bits[0], bits[1]]));
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => bits(6).is_some_and(|bits| bits & 0x3fff == 0x2000),
        Some(6) => packet[6] == 44 && bits(42).is_some_and(|bits| bits & 0xfff9 == 1),
        _ => false,
    }
}

/// The same number in both families.
pub fn both(net: Net, number: u8) -> [IpAddr; 2] {
    FAMILIES.map(|family| net.host(family, number))
}

/// Checks TCP with bulk data, and UDP of one packet and of fragments: the server that answers, and the client's address
/// as it sees it.
#[track_caller]
pub fn served(dial: Dial<'_>, number: u8, who: &str, clients: [IpAddr; 2]) {
    for (family, client) in FAMILIES.into_iter().zip(clients) {
        let to = vip(family, number, 80);
        let mut held = dial.held(to);
        assert_eq!((held.answer.who.as_str(), held.answer.client.ip()), (who, client), "{to}");
        held.transfer(1 << 20).expect("bulk goes both ways");
        let asking = dial.asking(to);
        for len in [5, 4_000] {
            let Outcome::Answered(answer) = asking.ask(&"f".repeat(len)) else { panic!("{len} bytes to {to}") };
            assert_eq!((answer.who.as_str(), answer.client.ip()), (who, client), "{len} bytes to {to}");
        }
    }
}
