//! A UDP socket that is not connected: each datagram names its destination.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::{LIMIT, Outcome};
use crate::address::Family;
use crate::answer::Answer;

/// An unconnected socket. It receives datagrams from any address.
pub struct Unconnected {
    socket: UdpSocket,
}

impl Unconnected {
    pub(super) fn open(family: Family) -> io::Result<Self> {
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(Self { socket })
    }

    /// Sends a datagram, and waits for an answer. Returns the answer with its source.
    pub fn ask(&self, to: SocketAddr, words: &str) -> Result<(Answer, SocketAddr), Outcome> {
        self.exchange(to, words).map_err(|error| Outcome::of(&error))
    }

    fn exchange(&self, to: SocketAddr, words: &str) -> io::Result<(Answer, SocketAddr)> {
        self.socket.send_to(words.as_bytes(), to)?;
        let mut bytes = vec![0; 64 * 1024];
        let (count, from) = self.socket.recv_from(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes[..count]);
        let answer = text.split_once('\n').and_then(|(answer, _)| Answer::parse(answer));
        Ok((answer.ok_or_else(|| io::Error::other(format!("not our server: {text}")))?, from))
    }
}
