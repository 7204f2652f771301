//! Connections of the HTTP server: few, short, and one request each. One task serves all of them.
//!
//! Nobody can be told from anybody else here: who is served is who asks at once, and who dawdles makes room.

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

/// What connections may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At one time. One more takes the place of another.
    pub connections_max: usize,
    /// Until the last line of the request's header.
    pub header_timeout: Duration,
    /// From its beginning to the last byte of the answer.
    pub connection_timeout: Duration,
}

impl Limits {
    /// Limits of a process that may have so many descriptors: most of them are for others.
    pub fn within(descriptors: u64) -> Self {
        let part = usize::try_from(descriptors / DESCRIPTORS_PART).unwrap_or(usize::MAX);
        Self {
            connections_max: part.clamp(1, CONNECTIONS_MAX),
            header_timeout: HEADER_TIMEOUT,
            connection_timeout: CONNECTION_TIMEOUT,
        }
    }
}

/// Connections at one time: kubelet, Prometheus, and some people.
const CONNECTIONS_MAX: usize = 64;
/// HTTP has at most this part of the descriptors, as a divisor.
const DESCRIPTORS_PART: u64 = 8;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The loop may be in the middle of a large apply when it is asked for names of Services.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// The smallest that hyper allows; a longer header is answered with 431.
const HEADER_BYTES_MAX: usize = 8 << 10;
/// Before the next connection is taken after an error, which is mostly the want of descriptors.
const PAUSE: Duration = Duration::from_millis(500);

/// An open connection, as whoever may have to end it knows it.
struct Open {
    number: u64,
    /// Whether its request has been read: it will be answered in a moment.
    has_asked: Arc<AtomicBool>,
    abort: AbortHandle,
}

/// Serves connections for as long as it is polled.
pub async fn serve(listener: TcpListener, router: &Router, limits: Limits) -> io::Result<()> {
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
                        tracing::warn!(%error, "HTTP: a connection was not taken");
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
            // It was ended, or has ended: nobody asks how.
            let _ = connection.await;
            number
        });
        open.push_back(Open { number, has_asked, abort });
    }
    Ok(())
}

/// Ends the oldest connection of those that have not said what they want, else the oldest.
fn make_room(open: &mut VecDeque<Open>) {
    let idle = open.iter().position(|one| !one.has_asked.load(Ordering::Relaxed));
    if let Some(one) = open.remove(idle.unwrap_or(0)) {
        one.abort.abort();
    }
}

/// One request and its answer.
async fn serve_one(stream: TcpStream, router: Router, has_asked: Arc<AtomicBool>, limits: Limits) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEADER_BYTES_MAX)
        // The next request takes a connection of its own: nothing is idle, and nothing waits behind another.
        .keep_alive(false)
        // Who says all at once and closes his end still wants the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(limits.connection_timeout, connection).await {
        Ok(Ok(())) => {}
        // Half a request, or none: the fault is the other's, who has gone.
        Ok(Err(error)) => tracing::trace!(%error, "HTTP: a connection was ended"),
        Err(_) => tracing::trace!("HTTP: a connection took too long"),
    }
}

#[cfg(test)]
mod tests;
