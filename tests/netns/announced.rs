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
use serde_json::json;

use crate::uplink::{UPLINKS, client};

/// The last part of the balancer's address.
const NUMBER: u8 = 71;
const PORT: u16 = 7_100;
/// SYNs and headers that are lost cost a second and more.
const PATIENCE: Duration = Duration::from_mins(1);

/// A backend that requires a header. It greets with what the header says, and when its client has closed, answers with
/// the number of bytes and their sum.
struct Backend {
    stop: Arc<AtomicBool>,
    /// Connections that their clients have reset.
    resets: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Backend {
    fn start(netns: &Netns) -> Self {
        let (stop, resets) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let all = [(Ipv4Addr::UNSPECIFIED, PORT).into(), (Ipv6Addr::UNSPECIFIED, PORT).into()];
        let threads = all.map(|all: SocketAddr| {
            let listener = netns.inside(|| {
                let socket = socket2::Socket::new(socket2::Domain::for_address(all), socket2::Type::STREAM, None)?;
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
enum Client {
    /// Waits for the greeting before it sends.
    Listens(usize),
    /// Sends at once.
    Talks(usize),
    /// Resets the connection at once.
    Resets,
}

/// Dials, sends so many bytes, and checks the greeting and the sum.
fn converse(from: IpAddr, to: SocketAddr, client: Client) -> Result<(), String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{client:?} to {to}: {what}: {error}");
    let dialled = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        std::io::Result::Ok(TcpStream::from(socket))
    };
    let mut stream = dialled().map_err(failed("connecting"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed("setting an option"))?;
    let own = stream.local_addr().map_err(failed("asking for the own address"))?;
    let (Client::Listens(len) | Client::Talks(len)) = client else {
        return socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).map_err(failed("resetting"));
    };
    let data: Vec<u8> = (0..len).map(|place| (place * 7 % 251) as u8).collect();
    let expected = format!("{own}\n{len} {}\n", data.iter().fold(0, |total, byte| summed(total, *byte)));
    let mut answer = Vec::new();
    if matches!(client, Client::Listens(_)) {
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

/// Clients, all at once.
fn converse_all(scene: &Scene, netns: &Netns, from: fn(&Scene, Family) -> IpAddr, clients: &[Client]) {
    for family in FAMILIES {
        let (from, to) = (from(scene, family), vip(family, NUMBER, 80));
        let start = |client: &Client| {
            let client = *client;
            netns.thread(move || converse(from, to, client))
        };
        let threads: Vec<_> = clients.iter().map(start).collect();
        let outcomes = threads.into_iter().map(|thread| thread.join().expect("it reports what failed"));
        let failed: Vec<String> = outcomes.filter_map(Result::err).collect();
        assert!(failed.is_empty(), "{family:?}: {failed:#?}\n{}", scene.agent.log());
    }
}

/// Clients in the pod.
fn pods_converse(scene: &Scene, clients: &[Client]) {
    let address = |scene: &Scene, family| scene.lab.pod_address("client", family);
    converse_all(scene, &scene.lab.pod("client").netns, address, clients);
}

/// The addresses of an endpoint, and its node.
type Endpoint = (fn(&Scene, Family) -> IpAddr, &'static str);

/// A Service with these endpoints.
fn publish(scene: &Scene, proxy_protocol: &str, endpoints: &[Endpoint]) {
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

const HERE: Endpoint = (|scene, family| scene.lab.pod_address("a", family), NODE);
const ELSEWHERE: Endpoint = (|_, family| REMOTE_PODS.host(family, 5), OTHER_NODE);

/// Half of the clients wait for the greeting.
fn crowd(count: usize, len: usize) -> Vec<Client> {
    (0..count)
        .map(|number| if number % 2 == 0 { Client::Listens(number * len) } else { Client::Talks(number * len) })
        .collect()
}

#[test]
fn every_stream_begins_with_its_header() {
    let scene = Scene::start(Setup::new("announced"));
    let backend = Backend::start(&scene.lab.pod("a").netns);
    for version in ["v1", "v2"] {
        publish(&scene, version, &[HERE]);
        pods_converse(&scene, &[Client::Listens(0), Client::Talks(0), Client::Talks(1), Client::Talks(20_000_000)]);
        pods_converse(&scene, &crowd(50, 997));
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
    // The node loses one packet in twenty, both ways.
    scene.lab.node.nft(
        "table inet losses {\n chain forward {\n  type filter hook forward priority 0\n  meta l4proto tcp numgen random mod 100 < 5 drop\n }\n}\n",
    );
    pods_converse(&scene, &crowd(16, 997));
}

#[test]
fn a_bridge_announces_as_well() {
    let scene = Scene::start(Setup::new("announcedbr").cni(Cni::Bridge));
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
        converse_all(&scene, &scene.lab.far, |_, family| client(family), &crowd(20, 9_973));
    }
    assert!(scene.agent.counted("forwarded") > 0);
}
