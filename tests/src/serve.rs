//! Small servers in namespaces: they send their name and the client's address as they see it, and then echo.

mod datagram;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::address::{FAMILIES, Family};
use crate::answer::Answer;
use crate::netns::Netns;

/// The port of every endpoint, TCP and UDP.
pub const TARGET: u16 = 8080;

/// How soon a server notices its stop.
const NOTICE: Duration = Duration::from_millis(50);

/// A server on one port of both families, on all addresses of its namespace. Dropping it stops it.
pub struct Server {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Answers TCP connections: first an [`Answer`], then an echo of the client's bytes.
    #[track_caller]
    pub fn tcp(netns: &Netns, name: &str, port: u16) -> Self {
        let listeners = FAMILIES.map(|family| TcpListener::from(netns.inside(|| listen(family, port))));
        Self::start(netns, name, listeners, |listener, task| accept(&listener, task))
    }

    /// Answers each datagram with an [`Answer`] and the datagram itself.
    #[track_caller]
    pub fn udp(netns: &Netns, name: &str, port: u16) -> Self {
        let sockets = FAMILIES.map(|family| UdpSocket::from(netns.inside(|| receive(family, port))));
        Self::start(netns, name, sockets, |socket, task| reply(&socket, task))
    }

    /// Servers of this name on each of the ports, TCP and UDP.
    #[track_caller]
    pub fn on_ports(netns: &Netns, name: &str, ports: &[u16]) -> Vec<Self> {
        ports.iter().flat_map(|port| [Self::tcp(netns, name, *port), Self::udp(netns, name, *port)]).collect()
    }

    /// Tells it to stop without waiting for that; dropping waits. This saves time if many are dropped.
    pub fn tell_to_stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Connections or datagrams answered so far.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }

    /// One thread per socket.
    fn start<S: Send + 'static>(netns: &Netns, name: &str, sockets: [S; 2], work: fn(S, &Task)) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let task = Task { name: name.into(), stop: Arc::clone(&stop), served: Arc::clone(&served) };
        let threads = sockets.map(|socket| {
            let task = task.clone();
            netns.thread(move || work(socket, &task))
        });
        Self { stop, served, threads: threads.into() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tell_to_stop();
        for thread in self.threads.drain(..) {
            // The thread reports its own panic.
            let _ = thread.join();
        }
    }
}

/// The data of a server's thread.
#[derive(Clone)]
struct Task {
    name: String,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
}

impl Task {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }
}

fn listen(family: Family, port: u16) -> Socket {
    let listener = bind(family, Type::STREAM, Protocol::TCP, port);
    listener.listen(1024).expect("a bound socket can listen");
    listener
}

fn receive(family: Family, port: u16) -> Socket {
    let socket = bind(family, Type::DGRAM, Protocol::UDP, port);
    datagram::tell_destinations(&socket, family);
    socket
}

/// A socket on all addresses of a family.
fn bind(family: Family, kind: Type, protocol: Protocol, port: u16) -> Socket {
    let all: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let all = SocketAddr::new(all, port);
    let socket = Socket::new(Domain::for_address(all), kind, Some(protocol)).expect("sockets can be had");
    if family == Family::V6 {
        socket.set_only_v6(true).expect("an option that all IPv6 sockets have");
    }
    socket.set_reuse_address(true).expect("an option that all sockets have");
    if let Err(error) = socket.bind(&all.into()) {
        panic!("cannot serve on {all}: {error}");
    }
    socket.set_read_timeout(Some(NOTICE)).expect("an option that all sockets have");
    socket
}

fn accept(listener: &TcpListener, task: &Task) {
    let mut conversations = Vec::new();
    while task.goes_on() {
        // The time-out of the socket applies to accept as well.
        let Ok((stream, client)) = listener.accept() else { continue };
        task.served.fetch_add(1, Ordering::SeqCst);
        let task = task.clone();
        conversations.retain(|thread: &JoinHandle<()>| !thread.is_finished());
        conversations.push(thread::spawn(move || converse(stream, client, &task)));
    }
    for conversation in conversations {
        // An error because the client went away does not matter.
        let _ = conversation.join();
    }
}

fn converse(mut stream: TcpStream, client: SocketAddr, task: &Task) {
    let answer = Answer { who: task.name.clone(), client };
    if stream.set_read_timeout(Some(NOTICE)).is_err() || stream.write_all(format!("{answer}\n").as_bytes()).is_err() {
        return;
    }
    let mut bytes = vec![0; 64 * 1024];
    while task.goes_on() {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => {
                if stream.write_all(&bytes[..count]).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

fn reply(socket: &UdpSocket, task: &Task) {
    let mut bytes = vec![0; 64 * 1024];
    while task.goes_on() {
        // No datagram in time, or an error from an earlier client that is gone.
        let Ok(received) = datagram::receive(socket, &mut bytes) else { continue };
        let answer = Answer { who: task.name.clone(), client: received.client };
        let mut datagram = format!("{answer}\n").into_bytes();
        datagram.extend(&bytes[..received.count]);
        task.served.fetch_add(1, Ordering::SeqCst);
        // The client may be gone.
        let _ = datagram::answer(socket, &received, &datagram);
    }
}
