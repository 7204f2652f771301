//! Many connections of one balancer address through one node to two endpoints of other nodes. kube-proxy's masquerading
//! lets two of them choose one port at the same moment, and one SYN is lost.
//!
//! Both ends are raw: the machine has not as many file descriptors. A segment says by its numbers to which connection it
//! belongs, so each end sees whether it got what the other end of this very connection sent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lb_tests::address::{self, FAMILIES, Family, vip};
use lb_tests::manifest::suffix;
use lb_tests::netns::Netns;
use lb_tests::nodes::{Cluster, NAMES, Node, client};
use lb_tests::raw::{self, Segment, Sender, Tap};
use socket2::{Domain, Protocol, Socket, Type};

use crate::publish::service;

/// Open at once, in each family.
const CONNECTIONS: u16 = 50_000;
/// The client's first port; each of its ports is used once.
const FIRST_PORT: u16 = 10_000;
/// Two endpoints, each with room for 32,536 connections.
const FLAGS: [&str; 6] = ["--uplink-interfaces", "auto", "--snat-ports", "33000-65535", "--flows-max", "262144"];
const SNAT_PORTS: RangeInclusive<u16> = 33_000..=65_535;
/// How often the node itself dials the endpoints meanwhile, from ports in the same range.
const OWN: u16 = 64;
/// The endpoints' port, which no socket has.
const PORT: u16 = 8000;
/// Segments on their way at once: queues are not what is tested.
const BATCH: usize = 512;
/// How long an answer may take before the segment counts as lost.
const LOST: Duration = Duration::from_secs(1);

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// CT-08: no connection is lost or reset, no two have one tuple, and each gets its own answers. Connections of the node
/// itself, from ports in the same range, live on.
#[test]
fn ct_08_fifty_thousand_connections_share_two_endpoints() {
    let cluster = Cluster::start("octsnat", &FLAGS);
    let endpoints = [cluster.node(2), cluster.node(3)];
    let shop = service(1, "VIP");
    let mut objects = vec![shop.object()];
    for family in FAMILIES {
        let slice = shop.slice(suffix(family)).address_type(family).port("web", "TCP", PORT);
        let endpoint = |node: &Node| (node.pod("a").address(family), NAMES[usize::from(node.number) - 1]);
        let slice = endpoints.map(endpoint).into_iter().fold(slice, |slice, (pod, node)| slice.endpoint(pod, node));
        objects.push(slice.object());
    }
    cluster.apply("shop", &objects);
    // Neither stack knows the connections.
    let quiet = "table inet quiet { chain out { type filter hook output priority 0; tcp flags & rst == rst drop; }\n }";
    for netns in [&cluster.outside, &endpoints[0].pod("a").netns, &endpoints[1].pod("a").netns] {
        netns.nft(quiet);
    }
    for family in FAMILIES {
        let responders = endpoints.map(|node| Responder::start(&node.pod("a").netns, family));
        // Before the others, and when most ports are taken.
        let mut own = dial_as_node(&cluster, family, 0..OWN);
        let started = Instant::now();
        let mut many = Many::new(&cluster.outside, family);
        many.exchange(SYN);
        let connected = started.elapsed();
        own.extend(dial_as_node(&cluster, family, OWN..2 * OWN));
        // All are open: each is asked once more.
        many.exchange(ACK);
        let Many { lost_syns, lost, .. } = many;
        println!(
            "{family:?}: {CONNECTIONS} connections in {connected:?}, asked in {:?}, lost {lost_syns} SYNs, {lost} others",
            started.elapsed()
        );
        // A port is drawn 32 times. With three of four taken, one SYN in ten thousand finds none.
        assert!(lost_syns <= usize::from(CONNECTIONS) / 1_000, "{lost_syns} SYNs were lost");
        assert_eq!(lost, 0, "segments of established connections were lost");
        for stream in &own {
            assert!(stream.take_error().expect("it is open").is_none(), "a connection of the node lives on");
        }
        let seen = responders.map(Responder::stop);
        let node = cluster.node(1).address(family);
        for seen in &seen {
            assert_eq!(seen.strays, 0, "segments of another connection");
            assert!(seen.clients.keys().all(|from| from.ip() == node && SNAT_PORTS.contains(&from.port())));
            assert!(seen.clients.len() > 20_000, "each endpoint has its share: {}", seen.clients.len());
        }
        let connections: BTreeSet<u32> = seen.iter().flat_map(|seen| seen.clients.values().copied()).collect();
        assert_eq!(connections.len(), usize::from(CONNECTIONS + 2 * OWN), "no two have one tuple");
    }
}

/// Connections of the node itself to both endpoints, from these ports of the range.
fn dial_as_node(cluster: &Cluster, family: Family, ports: Range<u16>) -> Vec<TcpStream> {
    let node = cluster.node(1);
    let dial = |index: u16| {
        let endpoint = cluster.node(2 + u8::try_from(index % 2).expect("one bit")).pod("a").address(family);
        let from = SocketAddr::new(node.address(family), SNAT_PORTS.start() + index);
        let to = SocketAddr::new(endpoint, PORT);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).expect("sockets are left");
        socket.bind(&from.into()).expect("the port is free");
        socket.connect(&to.into()).unwrap_or_else(|error| panic!("{from} -> {to}: {error}"));
        socket.into()
    };
    node.netns.inside(|| ports.map(dial).collect())
}

/// The client's end of all connections.
struct Many {
    sender: Sender,
    tap: Tap,
    from: IpAddr,
    to: SocketAddr,
    /// By port: the number that the endpoint expects next.
    expected: BTreeMap<u16, u32>,
    /// Segments without an answer: SYNs, and those of established connections.
    lost_syns: usize,
    lost: usize,
}

impl Many {
    fn new(netns: &Netns, family: Family) -> Self {
        let (from, to) = (client(1, family), vip(family, 1, 80));
        let (sender, tap) = (Sender::open(netns, family).routed_as(from), Tap::open(netns));
        Self { sender, tap, from, to, expected: BTreeMap::new(), lost_syns: 0, lost: 0 }
    }

    /// The client's number of a connection.
    fn number(port: u16) -> u32 {
        0x5000_0000 + u32::from(port)
    }

    /// Sends one segment on each connection, and again where no answer comes.
    fn exchange(&mut self, flags: u8) {
        let ports: Vec<u16> = (FIRST_PORT..FIRST_PORT + CONNECTIONS).collect();
        for batch in ports.chunks(BATCH) {
            let mut missing: BTreeSet<u16> = batch.iter().copied().collect();
            for round in 0.. {
                assert!(round < 5, "{} connections have no answer", missing.len());
                self.send_on(missing.iter().copied(), flags);
                self.collect(&mut missing, flags);
                if missing.is_empty() {
                    break;
                }
                *(if flags == SYN { &mut self.lost_syns } else { &mut self.lost }) += missing.len();
            }
            if flags == SYN {
                // The third segment, without which the connection is half-open.
                let mut missing = batch.iter().copied().collect();
                self.send_on(batch.iter().copied(), ACK);
                self.collect(&mut missing, ACK);
                self.lost += missing.len();
            }
        }
    }

    fn send_on(&self, ports: impl Iterator<Item = u16>, flags: u8) {
        for port in ports {
            self.send(port, flags);
        }
    }

    fn send(&self, port: u16, flags: u8) {
        let (seq, ack) = match flags {
            SYN => (Self::number(port), 0),
            _ => (Self::number(port) + 1, self.expected[&port]),
        };
        let from = SocketAddr::new(self.from, port);
        self.sender.send(self.to.ip(), &raw::answer(&Segment { from, to: self.to, flags, seq, ack }));
    }

    /// Takes the answers, each of which must be this connection's.
    fn collect(&mut self, missing: &mut BTreeSet<u16>, flags: u8) {
        while !missing.is_empty() {
            let Some(segment) = self.tap.next(LOST) else { return };
            if segment.from != self.to {
                continue;
            }
            let port = segment.to.port();
            assert_eq!(segment.flags, flags | ACK, "{segment:?}");
            assert_eq!(segment.ack, Self::number(port) + 1, "the answer of another connection: {segment:?}");
            if flags == SYN {
                self.expected.insert(port, segment.seq.wrapping_add(1));
            } else {
                assert_eq!(segment.seq, self.expected[&port], "the answer of another connection: {segment:?}");
            }
            missing.remove(&port);
        }
    }
}

/// What an endpoint has seen.
#[derive(Default)]
struct Seen {
    /// By client as it is seen here: the number of its connection.
    clients: BTreeMap<SocketAddr, u32>,
    /// Segments whose numbers belong to another connection.
    strays: usize,
}

/// An endpoint: it answers SYNs, and each acknowledgement with one of its own.
struct Responder {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Responder {
    fn start(netns: &Netns, family: Family) -> Self {
        let (tap, sender, stop) = (Tap::open(netns), Sender::open(netns, family), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut seen = Seen::default();
            while !told.load(Ordering::SeqCst) {
                let Some(segment) = tap.next(Duration::from_millis(50)) else { continue };
                if segment.to.port() == PORT && family == address::family(segment.to.ip()) {
                    seen.answer(&sender, &segment);
                }
            }
            seen
        });
        Self { stop, thread }
    }

    fn stop(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("it reports its own panic")
    }
}

impl Seen {
    fn answer(&mut self, sender: &Sender, segment: &Segment) {
        // The number of this end: of the client's port, so that a mix-up is seen.
        let number = u32::from(segment.from.port()) << 8;
        let (flags, seq, ack) = if segment.flags == SYN {
            let known = *self.clients.entry(segment.from).or_insert(segment.seq);
            self.strays += usize::from(known != segment.seq);
            (SYN | ACK, number, segment.seq.wrapping_add(1))
        } else {
            let known = self.clients.get(&segment.from);
            let is_its_own = known == Some(&segment.seq.wrapping_sub(1)) && segment.ack == number + 1;
            self.strays += usize::from(!is_its_own);
            (ACK, number + 1, segment.seq)
        };
        let (from, to) = (segment.to, segment.from);
        sender.send(to.ip(), &raw::answer(&Segment { from, to, flags, seq, ack }));
    }
}
