//! A UDP socket that keeps its port for several questions.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Outcome, PATIENT_LIMIT};
use crate::answer::Answer;

/// A connected UDP socket: it receives only answers from the address that it asked.
pub struct Asking {
    socket: UdpSocket,
}

impl Asking {
    pub(super) fn open(source: Option<SocketAddr>, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
        if let Some(source) = source {
            socket.bind(&source.into())?;
        }
        // A datagram is not retransmitted, so a long time limit hides no loss, and outlasts a busy machine.
        socket.set_read_timeout(Some(PATIENT_LIMIT))?;
        socket.connect(&to.into())?;
        Ok(Self { socket: socket.into() })
    }

    /// Sends a datagram and waits for its answer.
    pub fn ask(&self, words: &str) -> Outcome {
        match self.exchange(words) {
            Ok(answer) => Outcome::Answered(answer),
            Err(error) => Outcome::of(&error),
        }
    }

    /// Waits for another answer to the same words.
    pub fn another(&self, words: &str) -> Outcome {
        match self.listen(words) {
            Ok(answer) => Outcome::Answered(answer),
            Err(error) => Outcome::of(&error),
        }
    }

    fn exchange(&self, words: &str) -> io::Result<Answer> {
        self.socket.send(words.as_bytes())?;
        self.listen(words)
    }

    fn listen(&self, words: &str) -> io::Result<Answer> {
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
                // A late answer to an earlier question.
                Some(_) => {}
                None => return Err(io::Error::other(format!("not our server: {text}"))),
            }
        }
    }
}
