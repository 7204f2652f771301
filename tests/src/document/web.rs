//! The web server of a stage: each answer names the server and the client's address as the server sees it.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;

/// How soon a server notices its stop, and how long it waits for a slow client.
const NOTICE: Duration = Duration::from_millis(200);

/// A server on one port of both families. Dropping it stops it.
pub struct Web {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    /// Serves HTTP on all addresses of a namespace.
    #[track_caller]
    pub fn start(netns: &Netns, name: &str, port: u16) -> Self {
        let listener = netns.inside(|| listen(port)).expect("the namespace is ours");
        let (stop, name) = (Arc::new(AtomicBool::new(false)), name.to_owned());
        let is_over = Arc::clone(&stop);
        let thread = netns.thread(move || {
            while !is_over.load(Ordering::SeqCst) {
                if let Ok((stream, client)) = listener.accept() {
                    // A client that goes away early has its reason.
                    let _ = answer(&stream, client, &name);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // The thread reports its own panic.
            let _ = thread.join();
        }
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(64)?;
    // Applies to accept as well.
    socket.set_read_timeout(Some(NOTICE))?;
    Ok(socket.into())
}

fn answer(mut stream: &TcpStream, client: SocketAddr, name: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(NOTICE))?;
    let mut lines = BufReader::new(stream).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let body = format!("{name} answers {}\n", client.ip().to_canonical());
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
