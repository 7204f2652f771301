//! Another node, or its network, behind a device of the node of a scene: with clients, and with a server.

mod checks;
mod counters;

use std::net::IpAddr;

use crate::address::{FAMILIES, FAR_LINK, Family, Net, UPLINK, add_address, flag};
use crate::dial::Dial;
use crate::manifest::{NODE, node};
use crate::netns::Netns;
use crate::scene::{Scene, TARGET};
use crate::serve::Server;

pub use checks::{FURTHER, HERE, SLOW, carries_bulk, counts_once, publish, refuses};
pub use counters::Counters;

/// A network behind a device: the node has the host 2 there, the other one the host 1.
pub struct Side {
    pub device: &'static str,
    /// The other node's end.
    far_device: &'static str,
    netns: Netns,
    net: Net,
    families: &'static [Family],
    /// The name of the server.
    pub who: &'static str,
    _servers: Vec<Server>,
}

impl Side {
    /// A side whose ends have been made. Gives both their addresses, the other node a route to everything, and a server
    /// named as the device.
    pub fn ethernet(scene: &Scene, device: &'static str, netns: Netns, far_device: &'static str, net: Net) -> Self {
        for family in FAMILIES {
            scene.lab.node.ip(&[add_address(family, &net.interface(family, 2), device)]);
            netns.ip(&[add_address(family, &net.interface(family, 1), far_device)]);
            let gateway = net.host(family, 2).to_string();
            netns.run("ip", &[flag(family), "route", "add", "default", "via", &gateway]);
        }
        scene.lab.node.settle();
        netns.settle();
        let servers = vec![Server::tcp(&netns, device, TARGET), Server::udp(&netns, device, TARGET)];
        Self { device, far_device, netns, net, families: &FAMILIES, who: device, _servers: servers }
    }

    /// A side with addresses and routes, whose device has the same name at both ends. Another one may have the server.
    pub const fn tunnel(
        device: &'static str,
        netns: Netns,
        (families, net): (&'static [Family], Net),
        who: &'static str,
        servers: Vec<Server>,
    ) -> Self {
        Self { device, far_device: device, netns, net, families, who, _servers: servers }
    }

    /// A bridge with one port and with addresses of the Node.
    pub fn bridge(scene: &Scene, net: Net) -> Self {
        let far = Netns::create(scene.lab.test, "bridge");
        scene.lab.node.ip(&[
            "link add br-up type bridge".to_owned(),
            format!("link add p0 type veth peer name eth0 netns {}", far.name()),
            "link set p0 master br-up up".to_owned(),
            "link set br-up up".to_owned(),
        ]);
        far.ip(&["link set eth0 up"]);
        let addresses = [UPLINK, FAR_LINK, net].map(|net| FAMILIES.map(|family| net.host(family, 2)));
        scene.manifests.write("node", &[node(NODE, &addresses.concat())]);
        Self::ethernet(scene, "br-up", far, "eth0", net)
    }

    /// The families that it carries, and the other node's addresses.
    pub fn addresses(&self) -> impl Iterator<Item = (Family, IpAddr)> {
        self.families.iter().map(|family| (*family, self.net.host(*family, 1)))
    }

    /// The node's address.
    fn node(&self, family: Family) -> IpAddr {
        self.net.host(family, 2)
    }

    /// Dials from the other node.
    pub fn dial(&self, client: IpAddr) -> Dial<'_> {
        Dial::from(&self.netns).bound(client)
    }

    /// Packets that the other node received by its end of the device.
    fn received(&self) -> u64 {
        let said = self.netns.run("ip", &["-s", "-j", "link", "show", "dev", self.far_device]);
        let rows: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        rows[0]["stats64"]["rx"]["packets"].as_u64().expect("a number")
    }
}
