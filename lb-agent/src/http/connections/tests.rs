//! Misbehaving clients of the HTTP server.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use axum::routing::get;

use super::*;

/// Timeouts short enough for a test.
const LIMITS: ConnectionLimits = ConnectionLimits {
    connections_max: 4,
    header_timeout: Duration::from_millis(300),
    connection_timeout: Duration::from_secs(2),
};
/// Longer than any step of these tests.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

fn server(limits: ConnectionLimits) -> Server {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let address = listener.local_addr().expect("an address");
    let large = || async { vec![b'x'; 64 << 20] };
    let router = Router::new().route("/livez", get(|| async { "ok\n" })).route("/large", get(large));
    runtime.spawn(async move { serve(listener, &router, limits).await });
    Server { address, _runtime: runtime }
}

fn patient() -> Server {
    server(ConnectionLimits { header_timeout: PATIENCE, connection_timeout: PATIENCE, ..LIMITS })
}

/// A connection that has sent this text.
fn says(server: &Server, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    // The server may end the connection during the write.
    let _ = stream.write_all(text.as_bytes());
    stream
}

/// All bytes until the connection ends, by whatever cause.
fn answer(mut stream: &TcpStream) -> String {
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(bytes) => text.extend_from_slice(&part[..bytes]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("it is not ended: {error}"),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn the_limit_is_a_part_of_all_descriptors() {
    assert_eq!(ConnectionLimits::within(1 << 20).connections_max, 64);
    assert_eq!(ConnectionLimits::within(256).connections_max, 32);
    assert_eq!(ConnectionLimits::within(0).connections_max, 1);
}

#[test]
fn who_says_nothing_and_who_says_half_is_ended() {
    let server = server(LIMITS);
    for text in ["", "GET", "GET /livez HTTP/1.1\r\nHost: x\r\n"] {
        assert_eq!(answer(&says(&server, text)), "", "{text:?}");
    }
}

#[test]
fn a_drop_now_and_then_wins_no_time() {
    let server = server(LIMITS);
    let mut slow = says(&server, "GET /livez HTTP/1.1\r\n");
    let started = std::time::Instant::now();
    while slow.write_all(b"a: b\r\n").is_ok() {
        assert!(started.elapsed() < PATIENCE, "it goes on and on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn one_more_takes_the_place_of_the_oldest() {
    let server = patient();
    let half: Vec<_> = (0..LIMITS.connections_max).map(|_| says(&server, "GET /livez HTTP/1.1\r\n")).collect();
    for oldest in &half {
        let asked = says(&server, LIVEZ);
        assert!(answer(&asked).ends_with("ok\n"));
        // The oldest connection was ended to make room, and no other was.
        assert_eq!(answer(oldest), "");
        says(&server, "GET");
    }
}

#[test]
fn who_has_asked_is_not_ended_for_who_has_not() {
    let server = patient();
    let reading = says(&server, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut first = [0; 12];
    (&reading).read_exact(&mut first).expect("the answer begins");
    let idle: Vec<_> = (0..10 * LIMITS.connections_max).map(|_| says(&server, "GET")).collect();
    assert!(answer(&says(&server, LIVEZ)).ends_with("ok\n"));
    assert!(answer(&reading).len() > 64 << 20, "all of it comes");
    drop(idle);
}

#[test]
fn who_does_not_read_is_ended() {
    let server = server(LIMITS);
    let stuck = says(&server, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    std::thread::sleep(LIMITS.connection_timeout + Duration::from_millis(500));
    assert!(answer(&stuck).len() < 64 << 20, "what the kernel holds, and no more");
}

#[test]
fn one_request_a_connection() {
    let server = server(LIMITS);
    let many = LIVEZ.repeat(100);
    assert_eq!(answer(&says(&server, &many)).matches("ok\n").count(), 1);
    // The server does not wait for the missing body.
    let post = "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
    assert!(answer(&says(&server, post)).starts_with("HTTP/1.1 405"));
}

#[test]
fn half_closed_connections_are_answered() {
    let server = server(LIMITS);
    let stream = says(&server, LIVEZ);
    stream.shutdown(Shutdown::Write).expect("it is open");
    assert!(answer(&stream).ends_with("ok\n"));
}

#[test]
fn what_is_no_http_1_is_ended() {
    let server = server(LIMITS);
    let header = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(HEADER_BYTES_MAX));
    assert!(answer(&says(&server, &header)).starts_with("HTTP/1.1 431"));
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for text in [preface, "\u{16}\u{3}\u{1}\r\n\r\n", &"\n".repeat(1 << 16)] {
        let said = answer(&says(&server, text));
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{text:.20}: {said}");
    }
}
