//! The one HTTP request that waiting for a server needs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::netns::Netns;

const LIMIT: Duration = Duration::from_secs(2);

/// Gets a page: status and body, or `None` without an answer.
pub fn get(netns: &Netns, from: SocketAddr, path: &str) -> Option<(u16, String)> {
    netns.inside(|| {
        let mut stream = TcpStream::connect_timeout(&from, LIMIT).ok()?;
        stream.set_read_timeout(Some(LIMIT)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.into()))
    })
}
