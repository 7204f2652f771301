//! Clients for namespaces: one connection, a connection that is held, a datagram, and a dialler that counts failures.

mod asking;
mod dialler;
mod held;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::answer::Answer;
use crate::netns::Netns;

pub use asking::Asking;
pub use dialler::{Dialler, Tally};
pub use held::{Held, Transfer};

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

    /// As [`Dial::hold`], where it must be answered.
    #[track_caller]
    pub fn held(self, to: SocketAddr) -> Held {
        self.hold(to).unwrap_or_else(|outcome| panic!("{to} is to be answered: {outcome:?}"))
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
