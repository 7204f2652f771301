//! A TCP connection that stays open, and an endless transfer over it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use crate::answer::Answer;

/// Bytes that are sent before they are read back: less than sockets buffer.
const PIECE: usize = 16 * 1024;

/// A TCP connection that stays open.
pub struct Held {
    pub answer: Answer,
    stream: BufReader<TcpStream>,
}

impl Held {
    pub(super) fn greeted(stream: TcpStream) -> io::Result<Self> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::Error::other("closed without a word"));
        }
        let answer = Answer::parse(&line).ok_or_else(|| io::Error::other(format!("not our server: {line}")))?;
        Ok(Self { answer, stream })
    }

    /// The client's own end.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().local_addr()
    }

    /// The other end, as the kernel shows it to the client.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().peer_addr()
    }

    /// Aborts the connection: a reset instead of a FIN.
    pub fn abort(self) -> io::Result<()> {
        SockRef::from(self.stream.get_ref()).set_linger(Some(Duration::ZERO))
    }

    /// Sends words and reads them back.
    pub fn echo(&mut self, words: &str) -> Result<(), String> {
        self.exchange(words.as_bytes()).map_err(|error| error.to_string())
    }

    /// Sends `bytes` bytes in pieces and reads each back, as a long transfer.
    pub fn transfer(&mut self, bytes: usize) -> Result<(), String> {
        let piece: Vec<u8> = (0..=250).cycle().take(PIECE).collect();
        for _ in 0..bytes.div_ceil(piece.len()) {
            self.exchange(&piece).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn exchange(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)?;
        let mut back = vec![0; bytes.len()];
        self.stream.read_exact(&mut back)?;
        if back == bytes { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
    }
}

/// A transfer in the background.
pub struct Transfer {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Transfer {
    /// Sends over a connection, and reads back, until it is stopped.
    pub fn over(mut held: Held) -> Self {
        let (stop, bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count) = (Arc::clone(&stop), Arc::clone(&bytes));
        let thread = thread::spawn(move || {
            while !told.load(Ordering::SeqCst) {
                held.transfer(PIECE)?;
                count.fetch_add(PIECE as u64, Ordering::SeqCst);
            }
            Ok(())
        });
        Self { stop, bytes, thread: Some(thread) }
    }

    /// Bytes that were sent and read back.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Stops the transfer; returns the error that ended it before, if any.
    pub fn stop(mut self) -> Result<(), String> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("stopped once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // Dropped without `stop` only while a test unwinds.
            let _ = thread.join();
        }
    }
}
