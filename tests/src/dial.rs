//! Clients in namespaces: one connection, a connection that is held, a datagram, and a dialler that counts failures.

mod asking;
mod dialler;
mod held;
mod many;
mod unconnected;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::address::Family;
use crate::answer::Answer;
use crate::netns::Netns;

pub use asking::Asking;
pub use dialler::{Dialler, Tally};
pub use held::{Held, Transfer};
pub use many::{Target, dial_many};
pub use unconnected::Unconnected;

/// The time limit of a client. A lost SYN is retransmitted after one second, which would hide the loss behind a delay.
pub const LIMIT: Duration = Duration::from_millis(800);

/// The time limit of a patient client. Linux loses an ICMPv6 error that arrives before `connect` has returned. Between
/// namespaces that is always so, and only the error in answer to the second SYN counts.
const PATIENT_LIMIT: Duration = Duration::from_secs(3);

/// The result of dialling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered(Answer),
    /// "Connection refused": a reset, or an ICMP port unreachable.
    Refused,
    /// No answer within the time limit.
    Silence,
    /// "Operation not permitted": the call failed before there was a packet.
    Denied,
    /// Any other error, in the words of the operating system.
    Failed(String),
}

impl Outcome {
    /// The name of the server that answered, if one did.
    pub fn who(&self) -> Option<&str> {
        match self {
            Self::Answered(answer) => Some(&answer.who),
            Self::Refused | Self::Silence | Self::Denied | Self::Failed(_) => None,
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Silence,
            ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// A client's namespace and source address.
#[derive(Clone, Copy)]
pub struct Dial<'a> {
    netns: &'a Netns,
    source: Option<SocketAddr>,
    limit: Duration,
}

impl<'a> Dial<'a> {
    /// From the address that the namespace's routes choose.
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

    /// Waits longer than a retransmitted SYN takes, for tests that expect a refusal.
    #[must_use]
    pub const fn patient(self) -> Self {
        Self { limit: PATIENT_LIMIT, ..self }
    }

    /// Connects, reads the server's answer, and closes.
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

    /// As [`Dial::hold`]; panics without an answer.
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

    /// A UDP socket that keeps its port for several questions.
    #[track_caller]
    pub fn asking(self, to: SocketAddr) -> Asking {
        self.netns.inside(|| Asking::open(self.source, to)).expect("a datagram socket connects at once")
    }

    /// A UDP socket that names the destination of each datagram.
    #[track_caller]
    pub fn unconnected(self, family: Family) -> Unconnected {
        self.netns.inside(|| Unconnected::open(family)).expect("a datagram socket")
    }

    /// Dials repeatedly in the background.
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
