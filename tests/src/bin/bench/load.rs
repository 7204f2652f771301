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
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};

/// How long a peer may be silent; only on a broken path it is.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a server waits for a client before it checks whether it must stop.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Clients that may wait for a server.
const BACKLOG: i32 = 1024;

/// One write of the bulk stream.
const CHUNK_BYTES: usize = 128 * 1024;

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

/// Answers clients until `stop`, bulk streams on threads of their own.
pub fn serve(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            let mut client = match listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error).context("accept"),
            };
            client.set_read_timeout(Some(SILENCE))?;
            let mut wish = [0];
            match client.read_exact(&mut wish) {
                // The server closes first, so that the client's port is free again at once.
                Ok(()) if wish == [ECHO] => drop(client.write_all(&wish)),
                Ok(()) => drop(scope.spawn(move || swallow(client))),
                // A client that went away reports that itself.
                Err(_) => {}
            }
        }
        Ok(())
    })
}

/// Reads a bulk stream to its end and sends the number of bytes back.
fn swallow(mut client: TcpStream) {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut total: u64 = 0;
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
    let (started, cpu) = (Instant::now(), cpu_secs()?);
    let count = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..clients).map(|client| scope.spawn(move || connect_until(targets, client, started + time))).collect();
        let sums = threads.into_iter().map(|thread| thread.join().expect("the client thread does not panic"));
        sums.sum::<Result<u64>>()
    })?;
    ensure!(count > 0, "no connection to {targets:?} was made");
    Ok(count as f64 / (cpu_secs()? - cpu))
}

/// Connects until `end`; the first target is the one with the number `first`.
fn connect_until(targets: &[SocketAddr], first: usize, end: Instant) -> Result<u64> {
    let mut count = 0;
    for target in targets.iter().cycle().skip(first) {
        if Instant::now() >= end {
            break;
        }
        exchange(*target).with_context(|| format!("connection {count} to {target}"))?;
        count += 1;
    }
    Ok(count)
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
    let mut stream = TcpStream::connect_timeout(&target, SILENCE)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    chunk[0] = BULK;
    let (started, cpu) = (Instant::now(), cpu_secs()?);
    while started.elapsed() < time {
        match stream.write_all(&chunk) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("the stream to {target} stalled"),
            done => done.with_context(|| format!("bulk to {target}"))?,
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total).context("the receiver did not say how much came")?;
    Ok(u64::from_be_bytes(total) as f64 * 8.0 / (cpu_secs()? - cpu) / 1e9)
}

/// Processor time that this process has used.
fn cpu_secs() -> Result<f64> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?).as_secs_f64())
}
