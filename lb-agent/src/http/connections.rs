//! Connections of the HTTP server: few, short, and with one request each. One task serves all of them.
//!
//! The server cannot tell clients apart. A client that sends its request at once is served; a slow one loses its
//! connection if others need room.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::future::{AbortHandle, abortable};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

/// The limits of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at one time. A further connection replaces another one.
    pub connections_max: usize,
    /// The time until the last line of the request's header.
    pub header_timeout: Duration,
    /// The time from the start of the connection to the last byte of the answer.
    pub connection_timeout: Duration,
}

impl ConnectionLimits {
    /// The limits for a process with this limit of descriptors, most of which the rest of the agent needs.
    pub fn within(descriptors: u64) -> Self {
        let part = usize::try_from(descriptors / DESCRIPTORS_PART).unwrap_or(usize::MAX);
        Self {
            connections_max: part.clamp(1, CONNECTIONS_MAX),
            header_timeout: HEADER_TIMEOUT,
            connection_timeout: CONNECTION_TIMEOUT,
        }
    }
}

/// Connections at one time: enough for kubelet, Prometheus and some people.
const CONNECTIONS_MAX: usize = 64;
/// HTTP uses at most this fraction of the descriptors (1/8).
const DESCRIPTORS_PART: u64 = 8;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Long enough for a loop that is asked for names of Services during a large apply.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// The smallest size that hyper allows. A longer header is answered with 431.
const HEADER_BYTES_MAX: usize = 8 << 10;
/// The pause after an error of `accept`, which usually means that descriptors have run out.
const PAUSE: Duration = Duration::from_millis(500);

/// An open connection that may have to make room.
struct Open {
    number: u64,
    /// Whether the request has been read. It will be answered in a moment.
    has_asked: Arc<AtomicBool>,
    abort: AbortHandle,
}

/// Serves connections for as long as the future is polled.
pub async fn serve(listener: TcpListener, router: &Router, limits: ConnectionLimits) -> io::Result<()> {
    let mut connections = FuturesUnordered::new();
    let mut open = VecDeque::<Open>::new();
    let mut pause = None;
    for number in 0.. {
        let stream = loop {
            let accepted = async {
                if let Some(pause) = pause.take() {
                    tokio::time::sleep(pause).await;
                }
                listener.accept().await
            };
            tokio::select! {
                biased;
                Some(ended) = connections.next(), if !connections.is_empty() => open.retain(|one| one.number != ended),
                accepted = accepted => match accepted {
                    Ok((stream, _)) => break stream,
                    Err(error) => {
                        tracing::warn!(%error, "HTTP: a connection could not be accepted");
                        pause = Some(PAUSE);
                    }
                }
            }
        };
        while open.len() >= limits.connections_max {
            make_room(&mut open);
        }
        let has_asked = Arc::new(AtomicBool::new(false));
        let (connection, abort) = abortable(serve_one(stream, router.clone(), Arc::clone(&has_asked), limits));
        connections.push(async move {
            // The result does not matter: the connection has ended or was aborted.
            let _ = connection.await;
            number
        });
        open.push_back(Open { number, has_asked, abort });
    }
    Ok(())
}

/// Ends the oldest connection without a request, else the oldest of all.
fn make_room(open: &mut VecDeque<Open>) {
    let idle = open.iter().position(|one| !one.has_asked.load(Ordering::Relaxed));
    if let Some(one) = open.remove(idle.unwrap_or(0)) {
        one.abort.abort();
    }
}

/// Serves one request.
async fn serve_one(stream: TcpStream, router: Router, has_asked: Arc<AtomicBool>, limits: ConnectionLimits) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEADER_BYTES_MAX)
        // The next request takes a new connection, so no connection idles or waits behind another request.
        .keep_alive(false)
        // A client that closes its end after the request still gets the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(limits.connection_timeout, connection).await {
        Ok(Ok(())) => {}
        // An incomplete request, or none. The client is gone, so this is not an error of ours.
        Ok(Err(error)) => tracing::trace!(%error, "HTTP: closed a connection for another"),
        Err(_) => tracing::trace!("HTTP: a connection took too long"),
    }
}

#[cfg(test)]
mod tests;
