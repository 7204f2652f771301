//! Load between namespaces: connections that carry one byte each way, and one bulk stream.
//!
//! Rates are per second of this process's processor time: clients, servers and the kernel's work for their packets
//! together. On a processor of their own that equals the wall clock. On a busy machine it excludes the work of other
//! processes. Every loop is bounded in time; every socket has a time-out.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lb_common::table::HeaderVersion;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};

/// How long a peer may be silent; only on a broken path it is.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a server waits for a client before it checks whether it must stop.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Clients that may wait for a server.
const BACKLOG: i32 = 1024;

/// One write of the bulk stream.
const CHUNK_BYTES: usize = 128 * 1024;

/// The length of a PROXY header of version 2 for IPv4.
const V2_BYTES: usize = 28;

/// The first byte of a client: the kind of exchange that it requests.
const ECHO: u8 = b'e';
const BULK: u8 = b'b';

/// A listener in the network namespace of the calling thread. Its `accept` times out now and then.
pub fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_read_timeout(Some(LOOK_UP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The PROXY header that a server requires at the start of each connection.
#[derive(Clone, Debug)]
pub struct Preface {
    pub version: HeaderVersion,
    /// Its first bytes, which name the client.
    pub start: Vec<u8>,
}

impl Preface {
    /// A header from this client.
    pub fn of(version: HeaderVersion, client: Ipv4Addr) -> Self {
        let start = match version {
            HeaderVersion::V1 => format!("PROXY TCP4 {client} ").into_bytes(),
            HeaderVersion::V2 => [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &client.octets()[..]].concat(),
        };
        Self { version, start }
    }

    /// The length of the header that these bytes begin with, once it is there in full.
    fn length(&self, bytes: &[u8]) -> Option<usize> {
        let length = match self.version {
            HeaderVersion::V1 => bytes.windows(2).position(|two| two == b"\r\n")? + 2,
            HeaderVersion::V2 => V2_BYTES,
        };
        (bytes.len() >= length && bytes.starts_with(&self.start)).then_some(length)
    }
}

/// What a client wishes: the first byte behind the header, and the number of bytes that came with it.
fn wish(client: &mut TcpStream, preface: Option<&Preface>) -> std::io::Result<(u8, u64)> {
    let mut buffer = [0; 256];
    let Some(preface) = preface else {
        client.read_exact(&mut buffer[..1])?;
        return Ok((buffer[0], 0));
    };
    let mut filled = 0;
    loop {
        match client.read(&mut buffer[filled..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
        if let Some(length) = preface.length(&buffer[..filled]).filter(|length| *length < filled) {
            return Ok((buffer[length], (filled - length - 1) as u64));
        }
    }
}

/// Answers clients until `stop`, bulk streams on threads of their own. A client without the header gets no answer.
pub fn serve(listener: &TcpListener, stop: &AtomicBool, preface: Option<&Preface>) -> Result<()> {
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            let mut client = match listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error).context("accept"),
            };
            client.set_read_timeout(Some(SILENCE))?;
            match wish(&mut client, preface) {
                // The server closes first, so that the client's port is free again at once.
                Ok((ECHO, _)) => drop(client.write_all(&[ECHO])),
                Ok((_, more)) => drop(scope.spawn(move || swallow(client, more))),
                // A client that went away reports that itself.
                Err(_) => {}
            }
        }
        Ok(())
    })
}

/// Reads a bulk stream to its end and sends the number of bytes back, with those that were read before.
fn swallow(mut client: TcpStream, mut total: u64) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(count) = client.read(&mut buffer) {
        if count == 0 {
            // The sender notices if the number does not arrive.
            let _ = client.write_all(&total.to_be_bytes());
            return;
        }
        total += count as u64;
    }
}

/// Connections per second of processor time, one byte each way, from `clients` threads that dial `targets` in turn.
pub fn connection_rate(targets: &[SocketAddr], clients: usize, time: Duration) -> Result<f64> {
    Ok(connections(targets, clients, time, None)?.rate())
}

/// Connections that were made.
pub struct Made {
    /// How long each took, from the dial to the server's close.
    pub times: Vec<Duration>,
    cpu_secs: f64,
}

impl Made {
    /// Connections per second of processor time.
    pub fn rate(&self) -> f64 {
        self.times.len() as f64 / self.cpu_secs
    }

    /// The microseconds within which so many of the connections were done.
    pub fn micros(&mut self, percent: usize) -> f64 {
        self.times.sort_unstable();
        let last = self.times.len() - 1;
        self.times[last * percent / 100].as_secs_f64() * 1e6
    }
}

/// As [`connection_rate`]. The processor time of the balancer, if there is one, counts as well.
pub fn connections(targets: &[SocketAddr], clients: usize, time: Duration, balancer: Option<Pid>) -> Result<Made> {
    let (started, cpu) = (Instant::now(), cpu_secs(balancer)?);
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..clients).map(|client| scope.spawn(move || connect_until(targets, client, started + time))).collect();
        let all = threads.into_iter().map(|thread| thread.join().expect("the client thread does not panic"));
        all.collect::<Result<Vec<_>>>()
    })?;
    let times = times.concat();
    ensure!(!times.is_empty(), "no connection to {targets:?} was made");
    Ok(Made { times, cpu_secs: cpu_secs(balancer)? - cpu })
}

/// Connects until `end`; the first target is the one with the number `first`.
fn connect_until(targets: &[SocketAddr], first: usize, end: Instant) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for target in targets.iter().cycle().skip(first) {
        let begun = Instant::now();
        if begun >= end {
            break;
        }
        exchange(*target).with_context(|| format!("connection {} to {target}", times.len()))?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

/// One connection: a byte there, the byte back, the server's close.
fn exchange(target: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, SILENCE)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.write_all(&[ECHO])?;
    let mut answer = Vec::with_capacity(2);
    stream.read_to_end(&mut answer)?;
    ensure!(answer == [ECHO], "the answer was {answer:?}");
    Ok(())
}

/// Gigabits per second of processor time of one stream to `target`, counted by the receiver.
pub fn bulk_rate(target: SocketAddr, time: Duration) -> Result<f64> {
    bulk_rate_by(target, time, None)
}

/// As [`bulk_rate`]. The processor time of the balancer, if there is one, counts as well.
pub fn bulk_rate_by(target: SocketAddr, time: Duration, balancer: Option<Pid>) -> Result<f64> {
    let mut stream = TcpStream::connect_timeout(&target, SILENCE)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    chunk[0] = BULK;
    let (started, cpu) = (Instant::now(), cpu_secs(balancer)?);
    while started.elapsed() < time {
        match stream.write_all(&chunk) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("the stream to {target} stalled"),
            done => done.with_context(|| format!("bulk to {target}"))?,
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total).context("the receiver did not say how much came")?;
    Ok(u64::from_be_bytes(total) as f64 * 8.0 / (cpu_secs(balancer)? - cpu) / 1e9)
}

/// Processor time that this process has used, and the balancer.
fn cpu_secs(balancer: Option<Pid>) -> Result<f64> {
    let own = Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?);
    let balancer = match balancer {
        Some(process) => Duration::from(clock_gettime(clock_getcpuclockid(process)?)?),
        None => Duration::ZERO,
    };
    Ok((own + balancer).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_in_full_and_names_the_client() {
        let client = Ipv4Addr::new(10, 244, 1, 10);
        let v1 = Preface::of(HeaderVersion::V1, client);
        assert_eq!(v1.length(b"PROXY TCP4 10.244.1.10 198.51.100.1 50000 80\r\ne"), Some(46));
        assert_eq!(v1.length(b"PROXY TCP4 10.244.1.10 198.51.100.1 50000 80\r"), None);
        assert_eq!(v1.length(b"PROXY TCP4 10.244.1.11 198.51.100.1 50000 80\r\ne"), None);
        let v2 = Preface::of(HeaderVersion::V2, client);
        let header = [&v2.start[..], &[198, 51, 100, 1, 0xc3, 0x50, 0, 80]].concat();
        assert_eq!(v2.length(&header), Some(28));
        assert_eq!(v2.length(&header[..27]), None);
    }
}
