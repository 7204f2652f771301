//! A Service that marks a generation of objects: once it is answered, the objects written with it are in force.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::address::{FAMILIES, Family, LAST};
use crate::manifest::{NODE, Service, ingress, suffix};
use crate::serve::TARGET;

/// The address of [`LAST`] that marks generations; no server outside answers on it.
const ADDRESS: u8 = 250;
/// The first generation's port.
pub const FIRST_PORT: u16 = 20_000;

/// The marker's address of one generation.
pub fn at(family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(LAST.host(family, ADDRESS), port)
}

/// A Service with a port of this generation only, whose endpoints are addresses of the first node's pod `a`.
pub fn objects(file: &str, port: u16, endpoints: [IpAddr; 2]) -> [Value; 3] {
    let [high, low] = port.to_be_bytes();
    // Cluster addresses of its own: an API server refuses addresses that are taken.
    let own = [[10, 96, high, low].into(), [0xfd00, 0x10, 0x96, 0, 0, 0, 0, port].into()];
    let entries = FAMILIES.map(|family| ingress(at(family, port).ip(), "VIP"));
    let service = Service::new(&format!("marker-{file}")).cluster_ips(&own).port("marker", "TCP", port, TARGET);
    let service = entries.into_iter().fold(service, Service::ingress);
    let slice = |family, endpoint| {
        let slice = service.slice(suffix(family)).address_type(family).port("marker", "TCP", TARGET);
        slice.endpoint(endpoint, NODE).object()
    };
    [service.object(), slice(FAMILIES[0], endpoints[0]), slice(FAMILIES[1], endpoints[1])]
}
