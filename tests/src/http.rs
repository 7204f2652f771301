//! The one HTTP request that waiting for a server needs.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;

const LIMIT: Duration = Duration::from_secs(2);

/// What a server sent.
#[derive(Clone, Debug)]
pub struct Page {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Page {
    /// A header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Gets a page: status and body, or `None` without an answer.
pub fn get(netns: &Netns, from: SocketAddr, path: &str) -> Option<(u16, String)> {
    page(netns, from, path).map(|page| (page.status, page.body))
}

/// As [`get`], with the headers.
pub fn page(netns: &Netns, from: SocketAddr, path: &str) -> Option<Page> {
    let any: IpAddr = if from.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    page_as(netns, any, from, path)
}

/// As [`get`], with this source address.
pub fn get_as(netns: &Netns, source: IpAddr, from: SocketAddr, path: &str) -> Option<(u16, String)> {
    page_as(netns, source, from, path).map(|page| (page.status, page.body))
}

fn page_as(netns: &Netns, source: IpAddr, from: SocketAddr, path: &str) -> Option<Page> {
    netns.inside(|| {
        let socket = Socket::new(Domain::for_address(from), Type::STREAM, Some(Protocol::TCP)).ok()?;
        socket.bind(&SocketAddr::new(source, 0).into()).ok()?;
        socket.connect_timeout(&from.into(), LIMIT).ok()?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LIMIT)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some(Page { status: head.split(' ').nth(1)?.parse().ok()?, head: head.into(), body: body.into() })
    })
}
