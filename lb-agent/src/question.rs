//! A question to `explain` on the command line: the sender and the destination.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use lb_common::addr::Proto;
use lb_common::client::Client;

/// The sender of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A pod on this node.
    Pod(Option<IpAddr>),
    /// A process of the node itself, or a hostNetwork pod.
    Host,
    /// A client in the network.
    External(Option<IpAddr>),
}

impl Sender {
    pub const fn client(&self) -> Client {
        match self {
            Self::Pod(_) => Client::Workload,
            Self::Host => Client::Host,
            Self::External(_) => Client::External,
        }
    }

    pub const fn addr(&self) -> Option<IpAddr> {
        match self {
            Self::Pod(addr) | Self::External(addr) => *addr,
            Self::Host => None,
        }
    }
}

impl FromStr for Sender {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let addr = |text: &str| text.parse::<IpAddr>().ok();
        let known = match text {
            "pod" | "pod-ip" => Some(Self::Pod(None)),
            "host" => Some(Self::Host),
            "external" => Some(Self::External(None)),
            _ => match text.strip_prefix("external:") {
                Some(rest) => addr(rest).map(|addr| Self::External(Some(addr))),
                None => addr(text).map(|addr| Self::Pod(Some(addr))),
            },
        };
        known.ok_or_else(|| {
            format!("{text:?} is not a sender: write the IP of a pod, pod, host, external or external:203.0.113.2")
        })
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(Some(addr)) => write!(f, "pod {addr} on this node"),
            Self::Pod(None) => f.write_str("a pod on this node"),
            Self::Host => f.write_str("a process of this node"),
            Self::External(Some(addr)) => write!(f, "{addr}, from the network"),
            Self::External(None) => f.write_str("a client from the network"),
        }
    }
}

/// The destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    pub addr: IpAddr,
    pub port: u16,
    pub proto: Proto,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let problem =
            || format!("{text:?} is not a destination: write IP:PORT/tcp, udp or sctp (an IPv6 address in brackets)");
        let (address, proto) = text.split_once('/').ok_or_else(problem)?;
        let proto =
            [Proto::TCP, Proto::UDP, Proto::SCTP].into_iter().find(|known| known.name().eq_ignore_ascii_case(proto));
        let (proto, address) = (proto.ok_or_else(problem)?, address.parse::<SocketAddr>().map_err(|_| problem())?);
        Ok(Self { addr: address.ip().to_canonical(), port: address.port(), proto })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.addr, self.port), self.proto.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers() {
        let addr = Some("10.0.0.1".parse().expect("an address"));
        for (text, expected) in [
            ("pod", Sender::Pod(None)),
            ("pod-ip", Sender::Pod(None)),
            ("10.0.0.1", Sender::Pod(addr)),
            ("host", Sender::Host),
            ("external", Sender::External(None)),
            ("external:10.0.0.1", Sender::External(addr)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "Host", "external:", "external:x", "10.0.0", "host:10.0.0.1"] {
            assert!(text.parse::<Sender>().is_err(), "{text}");
        }
    }

    #[test]
    fn destinations() {
        for text in ["192.0.2.1:80/tcp", "[2001:db8::1]:53/udp", "192.0.2.1:1/sctp"] {
            assert_eq!(text.parse::<Destination>().map(|to| to.to_string()).as_deref(), Ok(text));
        }
        for text in ["192.0.2.1:80", "192.0.2.1/tcp", "2001:db8::1:53/udp", "192.0.2.1:80/icmp", "192.0.2.1:65536/tcp"]
        {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }
}
