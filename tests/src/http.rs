//! The one HTTP request that waiting for a server needs.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;

const LIMIT: Duration = Duration::from_secs(2);

/// Gets a page: status and body, or `None` without an answer.
pub fn get(netns: &Netns, from: SocketAddr, path: &str) -> Option<(u16, String)> {
    let any: IpAddr = if from.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    get_as(netns, any, from, path)
}

/// As [`get`], with this source address.
pub fn get_as(netns: &Netns, source: IpAddr, from: SocketAddr, path: &str) -> Option<(u16, String)> {
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
        Some((head.split(' ').nth(1)?.parse().ok()?, body.into()))
    })
}
