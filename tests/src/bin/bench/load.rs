//! Load between namespaces: connections that carry one byte each way, and one bulk stream.
//!
//! Every loop is bounded in time; every socket has a time-out.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// How long a peer may be silent; only a broken path is.
const SILENCE: Duration = Duration::from_secs(2);

/// One write of the bulk stream.
const CHUNK_BYTES: usize = 128 * 1024;

/// What a client asks for with its first byte.
const ECHO: u8 = b'e';
const BULK: u8 = b'b';

/// Answers clients until `stop`, each on a thread of its own where it may take long.
pub fn serve(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    listener.set_nonblocking(false)?;
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            let (mut client, _) = listener.accept().context("accept")?;
            client.set_read_timeout(Some(SILENCE))?;
            let mut wish = [0];
            if client.read_exact(&mut wish).is_err() {
                continue; // A client that was ended in mid-connect, or the last call that wakes this loop.
            }
            match wish[0] {
                // The server closes first: the client's port is free again at once.
                ECHO => drop(client.write_all(&wish)),
                _ => drop(scope.spawn(move || swallow(client))),
            }
        }
        Ok(())
    })
}

/// Reads a bulk stream to its end and tells the sender how much came.
fn swallow(mut client: TcpStream) {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut total: u64 = 0;
    while let Ok(count) = client.read(&mut buffer) {
        if count == 0 {
            // The sender notices when the number does not come.
            let _ = client.write_all(&total.to_be_bytes());
            return;
        }
        total += count as u64;
    }
}

/// Connections per second from `clients` threads to `target`, one byte each way.
pub fn connection_rate(target: SocketAddr, clients: u32, time: Duration) -> Result<f64> {
    let started = Instant::now();
    let count = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(|| connect_until(target, started + time))).collect();
        let sums = threads.into_iter().map(|thread| thread.join().expect("the client thread does not panic"));
        sums.sum::<Result<u64>>()
    })?;
    ensure!(count > 0, "no connection to {target} was made");
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

fn connect_until(target: SocketAddr, end: Instant) -> Result<u64> {
    let mut count = 0;
    while Instant::now() < end {
        exchange(target).with_context(|| format!("connection {count} to {target}"))?;
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

/// Gigabits per second of one stream to `target`, counted where they arrive.
pub fn bulk_rate(target: SocketAddr, time: Duration) -> Result<f64> {
    let mut stream = TcpStream::connect_timeout(&target, SILENCE)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    chunk[0] = BULK;
    let started = Instant::now();
    while started.elapsed() < time {
        match stream.write_all(&chunk) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => anyhow::bail!("the stream to {target} stalled"),
            done => done.with_context(|| format!("bulk to {target}"))?,
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total).context("the receiver did not say how much came")?;
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(u64::from_be_bytes(total) as f64 * 8.0 / started.elapsed().as_secs_f64() / 1e9)
}

/// Ends [`serve`]: its loop waits for a client.
pub fn wake(address: SocketAddr) {
    // Not there any more: nothing to wake.
    let _ = TcpStream::connect_timeout(&address, SILENCE);
}
