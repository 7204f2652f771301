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

/// The sender as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// An address. Whose it is will be found out.
    Address(IpAddr),
    /// A kind of sender.
    Kind(Sender),
}

impl Said {
    pub const fn addr(&self) -> Option<IpAddr> {
        match self {
            Self::Address(addr) => Some(*addr),
            Self::Kind(sender) => sender.addr(),
        }
    }
}

impl FromStr for Said {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let addr = |text: &str| text.parse::<IpAddr>().ok().map(|addr| addr.to_canonical());
        let known = match (text, text.split_once(':')) {
            ("pod" | "pod-ip", _) => Some(Self::Kind(Sender::Pod(None))),
            ("host", _) => Some(Self::Kind(Sender::Host)),
            ("external", _) => Some(Self::Kind(Sender::External(None))),
            (_, Some(("pod", rest))) => addr(rest).map(|addr| Self::Kind(Sender::Pod(Some(addr)))),
            (_, Some(("external", rest))) => addr(rest).map(|addr| Self::Kind(Sender::External(Some(addr)))),
            _ => addr(text).map(Self::Address),
        };
        known.ok_or_else(|| {
            format!(
                "{text:?} is not a sender: write an IP (whose it is will be found out), pod, pod:10.1.0.5, host, external or \
                 external:203.0.113.2"
            )
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

/// What is dialled, as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialled {
    Port(Destination),
    /// An ICMP echo request.
    Echo(IpAddr),
    Service(ServiceName),
}

/// A Service, and which of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    pub namespace: String,
    pub name: String,
    /// The name of a port, or its number; `None`: all.
    pub port: Option<String>,
    pub proto: Option<Proto>,
}

impl Dialled {
    /// The address, if the command line names one.
    pub const fn addr(&self) -> Option<IpAddr> {
        match self {
            Self::Port(to) => Some(to.addr),
            Self::Echo(addr) => Some(*addr),
            Self::Service(_) => None,
        }
    }
}

impl FromStr for Dialled {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| {
            format!(
                "{text:?} is not a destination: write IP:PORT/tcp, udp or sctp (an IPv6 address in brackets), IP/icmp, or \
                 NAMESPACE/NAME[:PORT] of a Service, with the name or the number of a port"
            )
        })
    }
}

fn parse(text: &str) -> Option<Dialled> {
    let (first, rest) = text.split_once('/')?;
    if let Ok(address) = first.parse::<SocketAddr>() {
        let (addr, port, proto) = (address.ip().to_canonical(), address.port(), proto(rest)?);
        return Some(Dialled::Port(Destination { addr, port, proto }));
    }
    let unbracketed = first.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(first);
    if let Ok(addr) = unbracketed.parse::<IpAddr>() {
        let is_icmp = ["icmp", "icmpv6", "icmp6"].iter().any(|name| rest.eq_ignore_ascii_case(name));
        return is_icmp.then_some(Dialled::Echo(addr.to_canonical()));
    }
    let (service, proto) = match rest.split_once('/') {
        Some((service, text)) => (service, Some(proto(text)?)),
        None => (rest, None),
    };
    let (name, port) = match service.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (service, None),
    };
    // As the API server names objects; nothing else needs to be asked for.
    let is_name = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
    };
    let is_named = is_name(first) && is_name(name) && port.is_none_or(is_name);
    // Bare addresses look like names.
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (is_named && !is_number(first)).then(|| {
        Dialled::Service(ServiceName {
            namespace: first.into(),
            name: name.into(),
            port: port.map(str::to_owned),
            proto,
        })
    })
}

/// A protocol by its name, in any case.
pub fn proto(text: &str) -> Option<Proto> {
    [Proto::TCP, Proto::UDP, Proto::SCTP].into_iter().find(|known| known.name().eq_ignore_ascii_case(text))
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.addr, self.port), self.proto.name())
    }
}

impl fmt::Display for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(to) => to.fmt(f),
            Self::Echo(addr) => write!(f, "{addr}/icmp"),
            Self::Service(ServiceName { namespace, name, port, proto }) => {
                write!(f, "{namespace}/{name}")?;
                port.iter().try_for_each(|port| write!(f, ":{port}"))?;
                proto.iter().try_for_each(|proto| write!(f, "/{}", proto.name()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders() {
        let addr: IpAddr = "10.0.0.1".parse().expect("an address");
        for (text, expected) in [
            ("pod", Said::Kind(Sender::Pod(None))),
            ("pod-ip", Said::Kind(Sender::Pod(None))),
            ("10.0.0.1", Said::Address(addr)),
            ("::ffff:10.0.0.1", Said::Address(addr)),
            ("pod:10.0.0.1", Said::Kind(Sender::Pod(Some(addr)))),
            ("host", Said::Kind(Sender::Host)),
            ("external", Said::Kind(Sender::External(None))),
            ("external:10.0.0.1", Said::Kind(Sender::External(Some(addr)))),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        assert_eq!("fd00::1".parse::<Said>().map(|said| said.addr()), Ok("fd00::1".parse().ok()));
        for text in ["", "Host", "external:", "external:x", "10.0.0", "host:10.0.0.1", "pod:", "pod:x"] {
            assert!(text.parse::<Said>().is_err(), "{text}");
        }
    }

    #[test]
    fn destinations() {
        for text in [
            "192.0.2.1:80/tcp",
            "[2001:db8::1]:53/udp",
            "192.0.2.1:1/sctp",
            "192.0.2.1/icmp",
            "2001:db8::1/icmp",
            "shop/web",
            "shop/web:https",
            "shop/web:53/udp",
            "shop/web.v2",
        ] {
            assert_eq!(text.parse::<Dialled>().map(|to| to.to_string()).as_deref(), Ok(text));
        }
        let bracketed: Dialled = "[2001:db8::1]/icmpv6".parse().expect("an echo");
        assert_eq!(bracketed.to_string(), "2001:db8::1/icmp");
        for text in [
            "192.0.2.1:80",
            "192.0.2.1/tcp",
            "2001:db8::1:53/udp",
            "192.0.2.1:80/icmp",
            "192.0.2.1:65536/tcp",
            "192.0.2/tcp",
            "web",
            "/web",
            "shop/",
            "shop/web:",
            "shop/Web",
            "shop/web:80/icmp",
            "shop/web/tcp/udp",
            "shop/web?x=1",
        ] {
            assert!(text.parse::<Dialled>().is_err(), "{text}");
        }
    }
}
