//! Clients in the network, and Services for them.

use std::net::IpAddr;

use serde_json::json;

use super::{Probe, Scene, empty_slice};
use crate::address::{BALANCERS, FAMILIES, FAR, Family, REMOTE_PODS};
use crate::manifest::{NODE, OTHER_NODE, ingress};

/// Both of the node's interfaces towards the network.
pub const UPLINKS: [&str; 2] = ["--uplink-interfaces", "up0,up1"];

/// Drops packets that conntrack calls invalid, as kube-proxy in iptables mode does in its FORWARD chain.
pub const DROP_INVALID: &str = "
    table inet strict {
        chain forward { type filter hook forward priority filter; ct state invalid drop; }
    }
";

/// The place of a Service's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints {
    Here,
    Elsewhere,
    Both,
    Nowhere,
}

/// Writes a Service with an external traffic policy.
pub fn publish(scene: &Scene, number: u8, mode: &str, policy: &str, endpoints: Endpoints) {
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, number), mode));
    let name = format!("s{number}");
    let service = scene.service(&name, number, &entries).spec("externalTrafficPolicy", json!(policy));
    let mut objects = vec![service.object()];
    for family in FAMILIES {
        let mut slice = empty_slice(&service, family);
        if matches!(endpoints, Endpoints::Here | Endpoints::Both) {
            slice = slice.endpoint(scene.lab.pod_address("a", family), NODE);
        }
        if matches!(endpoints, Endpoints::Elsewhere | Endpoints::Both) {
            slice = slice.endpoint(REMOTE_PODS.host(family, 5), OTHER_NODE);
        }
        objects.push(slice.object());
    }
    scene.apply(&name, &objects);
}

pub fn client(family: Family) -> IpAddr {
    FAR.host(family, 9)
}

/// Dials from the far client.
pub fn dial(scene: &Scene, family: Family) -> Probe<'_> {
    scene.dial_from_far().bound(client(family))
}
