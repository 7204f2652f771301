//! PROXY headers that the node adds, with real stacks at both ends: a backend that requires the header and speaks first,
//! streams in both directions, SYN cookies, and a network that loses packets.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lb_tests::address::{FAMILIES, Family, REMOTE_PODS, vip};
use lb_tests::deadline::until_true;
use lb_tests::lab::{Cni, Setup};
use lb_tests::manifest::{NODE, OTHER_NODE, ingress};
use lb_tests::netns::Netns;
use lb_tests::scene::Scene;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use lb_tests::scene::outside::{UPLINKS, client};

/// The last part of the balancer's address.
const NUMBER: u8 = 71;
pub const PORT: u16 = 7_100;
/// SYNs and headers that are lost cost a second and more.
const PATIENCE: Duration = Duration::from_mins(1);

/// A backend that requires a header. It greets with what the header says, and when its client has closed, answers with
/// the number of bytes and their sum.
pub struct Backend {
    stop: Arc<AtomicBool>,
    /// Connections that their clients have reset.
    resets: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Backend {
    pub fn start(netns: &Netns) -> Self {
        let (stop, resets) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let all = [(Ipv4Addr::UNSPECIFIED, PORT).into(), (Ipv6Addr::UNSPECIFIED, PORT).into()];
        let threads = all.map(|all: SocketAddr| {
            let listener = netns.inside(|| {
                let socket = Socket::new(Domain::for_address(all), Type::STREAM, None)?;
                if all.is_ipv6() {
                    socket.set_only_v6(true)?;
                }
                socket.bind(&all.into())?;
                socket.listen(512)?;
                socket.set_nonblocking(true)?;
                std::io::Result::Ok(TcpListener::from(socket))
            });
            let (listener, stop) = (listener.expect("the port is free"), Arc::clone(&stop));
            let resets = Arc::clone(&resets);
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            let resets = Arc::clone(&resets);
                            thread::spawn(move || serve(stream, &resets));
                        }
                        Err(_) => thread::sleep(Duration::from_millis(5)),
                    }
                }
            })
        });
        Self { stop, resets, threads: threads.into() }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // The thread reports its own panic.
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, resets: &AtomicU64) {
    // What else fails here is missed by the client.
    let outcome = (|| {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let announced = announced(&mut stream)?;
        writeln!(stream, "{announced}")?;
        let (mut count, mut total, mut bytes) = (0, 0_u64, vec![0; 64 * 1024]);
        loop {
            let read = stream.read(&mut bytes)?;
            if read == 0 {
                return writeln!(stream, "{count} {total}");
            }
            total = bytes[..read].iter().fold(total, |total, byte| summed(total, *byte));
            count += read;
        }
    })();
    if outcome.is_err_and(|error: std::io::Error| error.kind() == ErrorKind::ConnectionReset) {
        resets.fetch_add(1, Ordering::SeqCst);
    }
}

fn summed(total: u64, byte: u8) -> u64 {
    total.wrapping_mul(31).wrapping_add(byte.into())
}

/// The client that the header names.
fn announced(stream: &mut TcpStream) -> std::io::Result<SocketAddr> {
    // Where headers are optional, servers look at what comes first, once.
    let mut first = [0; 128];
    let len = stream.peek(&mut first)?;
    let is_text = first.starts_with(b"PROXY ") && first[..len].contains(&b'\n');
    let is_binary = first.starts_with(b"\r\n\r\n\0\r\nQUIT\n") && len >= 16 + usize::from(first[15]);
    assert!(len == 0 || is_text || is_binary, "{:?} comes first", &first[..len]);
    let mut start = [0; 6];
    stream.read_exact(&mut start)?;
    if &start == b"PROXY " {
        let (mut line, mut byte) = (String::new(), [0]);
        while byte[0] != b'\n' {
            stream.read_exact(&mut byte)?;
            line.push(char::from(byte[0]));
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let address = words[1].parse().map_err(std::io::Error::other)?;
        return Ok(SocketAddr::new(address, words[3].parse().map_err(std::io::Error::other)?));
    }
    let mut rest = [0; 10];
    stream.read_exact(&mut rest)?;
    assert_eq!([&start[..], &rest[..7]].concat(), b"\r\n\r\n\0\r\nQUIT\n\x21", "no header");
    let mut addresses = vec![0; usize::from(u16::from_be_bytes([rest[8], rest[9]]))];
    stream.read_exact(&mut addresses)?;
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    let octets = |len: usize| addresses[..len].to_vec();
    Ok(match rest[7] {
        0x11 => SocketAddr::new(<[u8; 4]>::try_from(octets(4)).expect("four").into(), port(8)),
        0x21 => SocketAddr::new(<[u8; 16]>::try_from(octets(16)).expect("sixteen").into(), port(32)),
        other => panic!("{other:#x} is no family"),
    })
}

/// What a client does with its connection.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    /// Waits for the greeting before it sends.
    Listens(usize),
    /// Sends at once.
    Talks(usize),
    /// Sends with the acknowledgement that ends the handshake.
    Waits(usize),
    /// Sends with the SYN (TCP Fast Open).
    Hurries(usize),
    /// Sends at once, by Multipath TCP.
    Spreads(usize),
    /// Waits for the greeting, and asks every second whether the backend is still there.
    Probes,
    /// Resets the connection at once.
    Resets,
}

impl Client {
    fn socket(self, to: SocketAddr) -> std::io::Result<Socket> {
        let protocol = matches!(self, Self::Spreads(_)).then_some(Protocol::MPTCP);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, protocol)?;
        match self {
            Self::Waits(_) => socket.set_tcp_quickack(false)?,
            Self::Hurries(_) => setsockopt(&socket, sockopt::TcpFastOpenConnect, &true)?,
            Self::Probes => {
                let second = Duration::from_secs(1);
                socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second))?;
            }
            Self::Listens(_) | Self::Talks(_) | Self::Spreads(_) | Self::Resets => {}
        }
        Ok(socket)
    }

    /// Bytes that it sends.
    const fn len(self) -> usize {
        match self {
            Self::Listens(len) | Self::Talks(len) | Self::Waits(len) | Self::Hurries(len) | Self::Spreads(len) => len,
            Self::Probes | Self::Resets => 0,
        }
    }
}

/// Dials, sends so many bytes, and checks the greeting and the sum.
fn converse(from: IpAddr, to: SocketAddr, client: Client) -> Result<(), String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{client:?} to {to}: {what}: {error}");
    let dialled = || {
        let socket = client.socket(to)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        std::io::Result::Ok(TcpStream::from(socket))
    };
    let mut stream = dialled().map_err(failed("connecting"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed("setting an option"))?;
    let own = stream.local_addr().map_err(failed("asking for the own address"))?;
    if matches!(client, Client::Resets) {
        return SockRef::from(&stream).set_linger(Some(Duration::ZERO)).map_err(failed("resetting"));
    }
    let len = client.len();
    let data: Vec<u8> = (0..len).map(|place| (place * 7 % 251) as u8).collect();
    let expected = format!("{own}\n{len} {}\n", data.iter().fold(0, |total, byte| summed(total, *byte)));
    let mut answer = Vec::new();
    if matches!(client, Client::Listens(_) | Client::Probes) {
        let mut byte = [0];
        while byte[0] != b'\n' {
            stream.read_exact(&mut byte).map_err(failed("waiting for the greeting"))?;
            answer.push(byte[0]);
        }
    }
    stream.write_all(&data).map_err(failed("sending"))?;
    stream.shutdown(Shutdown::Write).map_err(failed("closing"))?;
    stream.read_to_end(&mut answer).map_err(failed("reading"))?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if answer == expected { Ok(()) } else { Err(format!("{client:?}: {answer:?}, not {expected:?}")) }
}

/// Clients that have been started.
pub struct Crowd(Vec<JoinHandle<Result<(), String>>>);

impl Crowd {
    /// Starts clients in a namespace, all at once, and all of them again in the other family.
    pub fn start(netns: &Netns, from: impl Fn(Family) -> IpAddr, clients: &[Client]) -> Self {
        let dial = |(family, client): (Family, Client)| {
            let (from, to) = (from(family), vip(family, NUMBER, 80));
            netns.thread(move || converse(from, to, client))
        };
        let both = |client: &Client| FAMILIES.map(|family| (family, *client));
        Self(clients.iter().flat_map(both).map(dial).collect())
    }

    /// Waits until all have got what they expect.
    #[track_caller]
    pub fn end(self, scene: &Scene) {
        let outcomes = self.0.into_iter().map(|thread| thread.join().expect("it reports what failed"));
        let failed: Vec<String> = outcomes.filter_map(Result::err).collect();
        assert!(failed.is_empty(), "{failed:#?}\n{}", scene.agent.log());
    }
}

/// Starts clients in the pod.
pub fn start_in_pod(scene: &Scene, clients: &[Client]) -> Crowd {
    Crowd::start(&scene.lab.pod("client").netns, |family| scene.lab.pod_address("client", family), clients)
}

/// Clients in the pod.
#[track_caller]
pub fn pods_converse(scene: &Scene, clients: &[Client]) {
    start_in_pod(scene, clients).end(scene);
}

/// The addresses of an endpoint, and its node.
pub type Endpoint = (fn(&Scene, Family) -> IpAddr, &'static str);

/// A Service with these endpoints.
pub fn publish(scene: &Scene, proxy_protocol: &str, endpoints: &[Endpoint]) {
    let entries = FAMILIES.map(|family| ingress(vip(family, NUMBER, 80).ip(), "Proxy"));
    let service = scene
        .service("shop", NUMBER, &entries)
        .spec("ports", json!([{"name": "tcp", "protocol": "TCP", "port": 80}]))
        .metadata("annotations", json!({"lb-agent.io/proxy-protocol": proxy_protocol}));
    let mut objects = vec![service.object()];
    for family in FAMILIES {
        let mut slice = service.slice(&format!("{family:?}").to_lowercase()).port("tcp", "TCP", PORT);
        for (address, node) in endpoints {
            slice = slice.endpoint(address(scene, family), node);
        }
        objects.push(slice.object());
    }
    scene.apply("shop", &objects);
}

pub const HERE: Endpoint = (|scene, family| scene.lab.pod_address("a", family), NODE);
const ELSEWHERE: Endpoint = (|_, family| REMOTE_PODS.host(family, 5), OTHER_NODE);

/// Half of the clients wait for the greeting.
pub fn crowd(count: usize, len: usize) -> Vec<Client> {
    (0..count)
        .map(|number| if number % 2 == 0 { Client::Listens(number * len) } else { Client::Talks(number * len) })
        .collect()
}

/// Data in the handshake, less than a segment and much more.
const UNUSUAL: [Client; 8] = [
    Client::Waits(1),
    Client::Waits(1_500),
    Client::Waits(40_000),
    Client::Hurries(1),
    Client::Hurries(40_000),
    Client::Spreads(0),
    Client::Spreads(40_000),
    Client::Probes,
];

/// Lets both ends send data with a SYN, with no cookie before.
fn open_fast(scene: &Scene) {
    for pod in ["client", "a"] {
        scene.lab.pod(pod).netns.sysctl(&[("net.ipv4.tcp_fastopen", "519")]);
    }
}

#[test]
fn every_stream_begins_with_its_header() {
    let scene = Scene::start(Setup::new("announced"));
    open_fast(&scene);
    let backend = Backend::start(&scene.lab.pod("a").netns);
    for version in ["v1", "v2"] {
        publish(&scene, version, &[HERE]);
        pods_converse(&scene, &[Client::Listens(0), Client::Talks(0), Client::Talks(1), Client::Talks(20_000_000)]);
        pods_converse(&scene, &crowd(50, 997));
        pods_converse(&scene, &UNUSUAL);
        // A backend that keeps nothing of a SYN.
        scene.lab.pod("a").netns.run("sysctl", &["-qw", "net.ipv4.tcp_syncookies=2"]);
        pods_converse(&scene, &crowd(20, 997));
        scene.lab.pod("a").netns.run("sysctl", &["-qw", "net.ipv4.tcp_syncookies=1"]);
    }
    let dropped = ["drop_header_forged", "drop_header_lost"].map(|name| scene.agent.counted(name));
    assert_eq!(dropped, [0, 0]);
    pods_converse(&scene, &[Client::Resets; 10]);
    let resets = || backend.resets.load(Ordering::SeqCst);
    until_true("the backend has heard of each reset", || resets() == 20);
}

#[test]
fn a_bridge_announces_as_well() {
    // Packets of a pod get the header also where its sockets are translated otherwise.
    let scene = Scene::with_flags(Setup::new("announcedbr").cni(Cni::Bridge), &["--socket-lb", "all"]);
    let _backend = Backend::start(&scene.lab.pod("a").netns);
    publish(&scene, "v2", &[HERE]);
    pods_converse(&scene, &crowd(20, 9_973));
}

/// Endpoints on this node see the client; to those of other nodes this one is the peer, and the header names the client.
#[test]
fn a_client_in_the_network_is_announced_here_and_elsewhere() {
    let scene = Scene::with_flags(Setup::new("announcedup"), &UPLINKS);
    let _here = Backend::start(&scene.lab.pod("a").netns);
    let _elsewhere = Backend::start(&scene.lab.external);
    for endpoints in [&[HERE][..], &[ELSEWHERE], &[HERE, ELSEWHERE]] {
        publish(&scene, "v2", endpoints);
        Crowd::start(&scene.lab.far, client, &crowd(20, 9_973)).end(&scene);
    }
    assert!(scene.agent.counted("forwarded") > 0);
}
