//! Many dials at once from one namespace: each has the whole time limit, and all together take it once.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use lb_common::addr::Proto;
use socket2::{Domain, Protocol, Socket, Type};

use super::Outcome;
use crate::answer::Answer;
use crate::netns::Netns;

/// Longer than a retransmitted SYN takes: Linux loses an ICMPv6 error that arrives before `connect` has returned.
const LIMIT: Duration = Duration::from_millis(2_500);
/// The interval between two looks at all sockets.
const POLL: Duration = Duration::from_millis(3);

/// A dial: from an address, or from any, and a port, to an address, by TCP or UDP.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub source: Option<IpAddr>,
    pub port: u16,
    pub to: SocketAddr,
    pub proto: Proto,
}

/// The outcome of each dial, in order.
#[track_caller]
pub fn dial_many(netns: &Netns, targets: &[Target]) -> Vec<Outcome> {
    netns.inside(|| {
        let end = Instant::now() + LIMIT;
        let mut pending: Vec<Pending> = targets.iter().map(Pending::start).collect();
        while Instant::now() < end && pending.iter().any(|dial| dial.outcome.is_none()) {
            thread::sleep(POLL);
            pending.iter_mut().for_each(Pending::look);
        }
        pending.into_iter().map(|dial| dial.outcome.unwrap_or(Outcome::Silence)).collect()
    })
}

/// A dial under way.
struct Pending {
    socket: Socket,
    heard: Vec<u8>,
    outcome: Option<Outcome>,
}

impl Pending {
    #[track_caller]
    fn start(target: &Target) -> Self {
        let Target { source, port, to, proto } = *target;
        let domain = Domain::for_address(to);
        let socket = match proto {
            Proto::UDP => Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)),
            _ => Socket::new(domain, Type::STREAM, Some(Protocol::TCP)),
        };
        let socket = socket.expect("sockets are left");
        let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        socket.bind(&SocketAddr::new(source.unwrap_or(any), port).into()).expect("the port is free");
        socket.set_nonblocking(true).expect("an option that all sockets have");
        let begun = socket.connect(&to.into()).and_then(|()| match proto {
            Proto::UDP => socket.send(b"hello").map(drop),
            _ => Ok(()),
        });
        let outcome = begun.err().filter(|error| error.raw_os_error() != Some(libc::EINPROGRESS));
        Self { socket, heard: Vec::new(), outcome: outcome.map(|error| Outcome::of(&error)) }
    }

    fn look(&mut self) {
        if self.outcome.is_some() {
            return;
        }
        let mut bytes = [0; 256];
        match (&self.socket).read(&mut bytes) {
            Ok(0) => self.outcome = Some(Outcome::Failed("closed without a word".into())),
            Ok(count) => {
                self.heard.extend(&bytes[..count]);
                if let Some((line, _)) = String::from_utf8_lossy(&self.heard).split_once('\n') {
                    let answer = Answer::parse(line).map(Outcome::Answered);
                    self.outcome = Some(answer.unwrap_or_else(|| Outcome::Failed(format!("not our server: {line}"))));
                }
            }
            // Not connected yet, or no answer yet.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {}
            Err(error) => self.outcome = Some(Outcome::of(&error)),
        }
    }
}
