//! Clients for namespaces: one connection, a connection that is held, a datagram, and a dialler that counts failures.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::answer::Answer;
use crate::netns::Netns;

/// How long a client waits; a dropped SYN is repeated after one second and would hide a loss behind a delay.
pub const LIMIT: Duration = Duration::from_millis(800);

/// How long a patient client waits. Linux loses an ICMPv6 error that comes back before `connect` has returned, which
/// it always does between namespaces; only the one that answers the second SYN counts.
const PATIENT_LIMIT: Duration = Duration::from_secs(3);

/// What came of dialling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered(Answer),
    /// "Connection refused": a reset, or an ICMP port unreachable.
    Refused,
    /// Nothing came back in time.
    Silence,
    /// Anything else, in the words of the operating system.
    Failed(String),
}

impl Outcome {
    /// Who answered, if somebody did.
    pub fn who(&self) -> Option<&str> {
        match self {
            Self::Answered(answer) => Some(&answer.who),
            Self::Refused | Self::Silence | Self::Failed(_) => None,
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Silence,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Where a client dials from.
#[derive(Clone, Copy)]
pub struct Dial<'a> {
    netns: &'a Netns,
    source: Option<SocketAddr>,
    limit: Duration,
}

impl<'a> Dial<'a> {
    /// From whatever address the namespace's routes choose.
    pub const fn from(netns: &'a Netns) -> Self {
        Self { netns, source: None, limit: LIMIT }
    }

    /// From a given address.
    #[must_use]
    pub const fn bound(self, source: IpAddr) -> Self {
        Self { source: Some(SocketAddr::new(source, 0)), ..self }
    }

    /// From a given address and port.
    #[must_use]
    pub const fn bound_to(self, source: SocketAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Waits for longer than a repeated SYN takes: for those who expect a refusal.
    #[must_use]
    pub const fn patient(self) -> Self {
        Self { limit: PATIENT_LIMIT, ..self }
    }

    /// Connects, reads who answered, and closes.
    pub fn tcp(self, to: SocketAddr) -> Outcome {
        match self.hold(to) {
            Ok(held) => Outcome::Answered(held.answer),
            Err(outcome) => outcome,
        }
    }

    /// Connects and keeps the connection.
    pub fn hold(self, to: SocketAddr) -> Result<Held, Outcome> {
        let connected = self.netns.inside(|| connect(self.source, to, self.limit).and_then(Held::greeted));
        connected.map_err(|error| Outcome::of(&error))
    }

    /// Sends one datagram and waits for the answer.
    pub fn udp(self, to: SocketAddr) -> Outcome {
        match self.netns.inside(|| Asking::open(self.source, to)) {
            Ok(asking) => asking.ask("hello"),
            Err(error) => Outcome::of(&error),
        }
    }

    /// A UDP socket that keeps its port from one question to the next.
    #[track_caller]
    pub fn asking(self, to: SocketAddr) -> Asking {
        self.netns.inside(|| Asking::open(self.source, to)).expect("a datagram socket connects at once")
    }

    /// Dials again and again in the background.
    pub fn repeatedly(self, to: SocketAddr) -> Dialler {
        Dialler::start(self.netns, self.source, to)
    }
}

fn connect(source: Option<SocketAddr>, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = source {
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&to.into(), limit)?;
    Ok(socket.into())
}

/// A TCP connection that stays open.
pub struct Held {
    pub answer: Answer,
    stream: BufReader<TcpStream>,
}

impl Held {
    fn greeted(stream: TcpStream) -> io::Result<Self> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::Error::other("closed without a word"));
        }
        let answer = Answer::parse(&line).ok_or_else(|| io::Error::other(format!("not our server: {line}")))?;
        Ok(Self { answer, stream })
    }

    /// Sends words and reads them back. Says what went wrong.
    pub fn echo(&mut self, words: &str) -> Result<(), String> {
        self.exchange(words.as_bytes()).map_err(|error| error.to_string())
    }

    /// Sends `bytes` bytes in pieces and reads each back, so that a long transfer is under way.
    pub fn transfer(&mut self, bytes: usize) -> Result<(), String> {
        let piece: Vec<u8> = (0..=250).cycle().take(16 * 1024).collect();
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

/// A connected UDP socket: it only hears answers that come from the address it asked.
pub struct Asking {
    socket: UdpSocket,
}

impl Asking {
    fn open(source: Option<SocketAddr>, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
        if let Some(source) = source {
            socket.bind(&source.into())?;
        }
        socket.set_read_timeout(Some(LIMIT))?;
        socket.connect(&to.into())?;
        Ok(Self { socket: socket.into() })
    }

    /// Sends a datagram and waits for the answer to it.
    pub fn ask(&self, words: &str) -> Outcome {
        match self.exchange(words) {
            Ok(answer) => Outcome::Answered(answer),
            Err(error) => Outcome::of(&error),
        }
    }

    fn exchange(&self, words: &str) -> io::Result<Answer> {
        self.socket.send(words.as_bytes())?;
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let count = match self.socket.recv(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                received => received?,
            };
            let text = String::from_utf8_lossy(&bytes[..count]);
            match text.split_once('\n') {
                Some((answer, echoed)) if echoed == words => {
                    return Answer::parse(answer).ok_or_else(|| io::Error::other(format!("not our server: {text}")));
                }
                // The late answer to an earlier question.
                Some(_) => {}
                None => return Err(io::Error::other(format!("not our server: {text}"))),
            }
        }
    }
}

/// What a [`Dialler`] has seen.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers, by who gave them.
    pub answered: BTreeMap<String, u64>,
    pub failures: Vec<Outcome>,
}

impl Tally {
    /// All answers.
    pub fn answers(&self) -> u64 {
        self.answered.values().sum()
    }
}

/// A client that dials without end until it is stopped.
pub struct Dialler {
    stop: Arc<AtomicBool>,
    dialled: Arc<AtomicU64>,
    thread: Option<JoinHandle<Tally>>,
}

impl Dialler {
    fn start(netns: &Netns, source: Option<SocketAddr>, to: SocketAddr) -> Self {
        let (stop, dialled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count) = (Arc::clone(&stop), Arc::clone(&dialled));
        let thread = netns.thread(move || {
            let mut tally = Tally::default();
            while !told.load(Ordering::SeqCst) {
                match dial_once(source, to) {
                    Ok(answer) => *tally.answered.entry(answer.who).or_default() += 1,
                    Err(error) => tally.failures.push(Outcome::of(&error)),
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
            tally
        });
        Self { stop, dialled, thread: Some(thread) }
    }

    /// How often it has dialled so far.
    pub fn dialled(&self) -> u64 {
        self.dialled.load(Ordering::SeqCst)
    }

    /// Stops it and says what it saw.
    pub fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("stopped once");
        match thread.join() {
            Ok(tally) => tally,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Dialler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // Dropped without being asked: only while a test unwinds.
            let _ = thread.join();
        }
    }
}

/// One connection that is reset at its end, so that its port can be used again at once.
fn dial_once(source: Option<SocketAddr>, to: SocketAddr) -> io::Result<Answer> {
    let stream = connect(source, to, LIMIT)?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Held::greeted(stream).map(|held| held.answer)
}
