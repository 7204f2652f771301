//! The first line of each server of the harness. It names the server and the client's address as the server sees it.

use std::fmt;
use std::net::SocketAddr;

/// A server's first line: its name, and the client's address as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub who: String,
    pub client: SocketAddr,
}

impl Answer {
    /// Parses the output of [`fmt::Display`].
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (who, client) = (words.next()?, words.next()?);
        Some(Self { who: who.into(), client: client.parse().ok()? })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.who, self.client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let answer = Answer { who: "a".into(), client: "[fd00::1]:1234".parse().expect("an address") };
        assert_eq!(Answer::parse(&format!("{answer}\n")), Some(answer));
        assert_eq!(Answer::parse("HTTP/1.1 400 Bad Request"), None);
    }
}
