//! Small servers for namespaces: they name themselves, say how they see the client, and then echo.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::answer::{Answer, plain};
use crate::netns::Netns;

/// How soon a server notices that it is to stop.
const NOTICE: Duration = Duration::from_millis(20);

/// A server on one port of both families, on all addresses of its namespace. Dropping it stops it.
pub struct Server {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers TCP connections: first an [`Answer`], then whatever the client sends.
    #[track_caller]
    pub fn tcp(netns: &Netns, name: &str, port: u16) -> Self {
        let listener = netns.inside(|| bind(Type::STREAM, Protocol::TCP, port));
        listener.listen(1024).expect("a bound socket can listen");
        let listener = TcpListener::from(listener);
        Self::start(netns, name, move |task| accept(&listener, task))
    }

    /// Answers each datagram with an [`Answer`] and the datagram itself.
    #[track_caller]
    pub fn udp(netns: &Netns, name: &str, port: u16) -> Self {
        let socket = UdpSocket::from(netns.inside(|| bind(Type::DGRAM, Protocol::UDP, port)));
        Self::start(netns, name, move |task| reply(&socket, task))
    }

    /// Connections or datagrams that it has answered.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }

    fn start(netns: &Netns, name: &str, work: impl FnOnce(&Task) + Send + 'static) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let task = Task { name: name.into(), stop: Arc::clone(&stop), served: Arc::clone(&served) };
        let thread = netns.thread(move || work(&task));
        Self { stop, served, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It reports its own panic; there is nothing to add while a test unwinds.
            let _ = thread.join();
        }
    }
}

/// What the thread of a server knows.
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

fn bind(kind: Type, protocol: Protocol, port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV6, kind, Some(protocol)).expect("sockets can be had");
    socket.set_only_v6(false).expect("one socket serves both families");
    socket.set_reuse_address(true).expect("an option that all sockets have");
    let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    if let Err(error) = socket.bind(&all.into()) {
        panic!("cannot serve on port {port}: {error}");
    }
    socket.set_read_timeout(Some(NOTICE)).expect("an option that all sockets have");
    socket
}

fn accept(listener: &TcpListener, task: &Task) {
    let mut conversations = Vec::new();
    while task.goes_on() {
        // The time-out of the socket holds for accept, too.
        let Ok((stream, client)) = listener.accept() else { continue };
        task.served.fetch_add(1, Ordering::SeqCst);
        let task = task.clone();
        conversations.retain(|thread: &JoinHandle<()>| !thread.is_finished());
        conversations.push(thread::spawn(move || converse(stream, client, &task)));
    }
    for conversation in conversations {
        // A client that went away is the client's business.
        let _ = conversation.join();
    }
}

fn converse(mut stream: TcpStream, client: SocketAddr, task: &Task) {
    let answer = Answer { who: task.name.clone(), client: plain(client) };
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
        let Ok((count, client)) = socket.recv_from(&mut bytes) else { continue };
        let answer = Answer { who: task.name.clone(), client: plain(client) };
        let mut datagram = format!("{answer}\n").into_bytes();
        datagram.extend(&bytes[..count]);
        task.served.fetch_add(1, Ordering::SeqCst);
        // The client may be gone.
        let _ = socket.send_to(&datagram, client);
    }
}
