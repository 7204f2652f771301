//! Values of flags: each is read from text, and refused with what to write instead.

use std::net::{IpAddr, SocketAddr};

use lb_common::table::POOL_ELEMENTS_MAX;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::numbers;
use crate::desired::TableSize;
use crate::model::Prefix;
use crate::source::address::parse_prefix;

/// Where `--healthz` listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Healthz {
    At(SocketAddr),
    Off,
}

/// Where `--metrics` listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    At(SocketAddr),
    Off,
}

/// A word of `--nodeport-addresses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePortAddress {
    Primary,
    All,
    In(Prefix),
}

/// A map must have room for at least one entry; the kernel's own limit is above 2^30.
pub(super) fn size() -> impl numbers::Parser {
    numbers::count(1..=1 << 30)
}

/// As many as ids of pools can name, twice over.
pub(super) fn backends() -> impl numbers::Parser {
    numbers::count(1..=POOL_ELEMENTS_MAX / 2)
}

/// One of a few primes.
pub(super) fn table_size(text: &str) -> Result<u16, String> {
    let allowed = text.parse().ok().filter(|slots| TableSize::ALLOWED.contains(slots));
    allowed.ok_or_else(|| format!("write one of {}", TableSize::ALLOWED.map(|slots| slots.to_string()).join(", ")))
}

/// An address with a port, or off.
pub(super) fn healthz(text: &str) -> Result<Healthz, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(Healthz::Off);
    }
    let address: Option<SocketAddr> = text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
    address.map(Healthz::At).ok_or_else(|| "write ADDRESS:PORT, as 0.0.0.0:10256, or off".to_owned())
}

/// An address with a port, or off. An IPv6 address needs no brackets, so that manifests can write `$(HOST_IP):10357`.
pub(super) fn metrics(text: &str) -> Result<MetricsAddress, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(MetricsAddress::Off);
    }
    let bare =
        || text.rsplit_once(':').and_then(|(ip, port)| Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?)));
    let address = text.parse().ok().or_else(bare).filter(|address: &SocketAddr| address.port() != 0);
    address.map(MetricsAddress::At).ok_or_else(|| "write ADDRESS:PORT, as 192.0.2.11:10357, or off".to_owned())
}

/// A client, or a range of clients.
pub(super) fn client(text: &str) -> Result<Prefix, String> {
    let one = |addr: IpAddr| Prefix::new(addr, if addr.is_ipv4() { 32 } else { 128 });
    let client = text.parse().ok().and_then(one).or_else(|| parse_prefix(text));
    client.ok_or_else(|| "write an address or address/length, as 10.1.0.5 or 10.1.0.0/24".to_owned())
}

/// A range of addresses, bits after the prefix dropped.
pub(super) fn cidr(text: &str) -> Result<Prefix, String> {
    parse_prefix(text.trim()).ok_or_else(|| "write address/length, as 10.96.0.0/12".to_owned())
}

pub(super) fn node_port_address(text: &str) -> Result<NodePortAddress, String> {
    match text.trim() {
        word if word.eq_ignore_ascii_case("primary") => Ok(NodePortAddress::Primary),
        word if word.eq_ignore_ascii_case("all") => Ok(NodePortAddress::All),
        prefix => parse_prefix(prefix)
            .map(NodePortAddress::In)
            .ok_or_else(|| "write primary, all, or address/length, as 192.0.2.0/24".to_owned()),
    }
}

/// At most ten years.
pub(super) fn seconds() -> impl numbers::Parser {
    numbers::seconds(1..=315_360_000)
}

/// The value of a label, not empty: at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
pub(super) fn label_value(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let has_ends =
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.ends_with(|c: char| c.is_ascii_alphanumeric());
    if has_ends && text.len() <= 63 && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("write the value of a label: 1 to 63 letters, digits, -, _ and .".to_owned())
}

/// A level for the agent itself, or directives that name the libraries as well. A word that is no level would
/// silently be taken for the name of a module. A directive concerns every module whose name starts as its own.
pub(super) fn log_filter(text: &str) -> Result<EnvFilter, String> {
    if text.contains(['=', ',']) {
        return EnvFilter::try_new(text).map_err(|error| error.to_string());
    }
    let level: LevelFilter = text.parse().map_err(|_| "write error, warn, info, debug or trace".to_owned())?;
    let libraries = level.min(LevelFilter::WARN);
    // It logs each request that fails as an error; we log an outage once, with its reason.
    let kube = if level > LevelFilter::INFO { libraries } else { LevelFilter::OFF };
    EnvFilter::try_new(format!("{libraries},kube={kube},lb_agent={level}")).map_err(|error| error.to_string())
}
