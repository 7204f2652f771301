//! One node of the cluster: its namespace, its pods and its agent.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::{CLOUD, NAMES, OUTSIDE, SWITCH, on_network};
use crate::address::{FAMILIES, FAR, Family, UPLINK, add_address, flag, pods_of};
use crate::agent::Agent;
use crate::lab::{Cni, Place, Pod};
use crate::netns::Netns;

/// The node's interface towards the network.
pub const UPLINK_NAME: &str = "up0";
/// The pods of each node: two that are endpoints, and one that dials.
pub const POD_LETTERS: [&str; 3] = ["a", "b", "c"];
/// The number of the first pod.
const FIRST_POD: u8 = 10;

/// A node, with a running agent once it is started.
pub struct Node {
    pub agent: Agent,
    pods: BTreeMap<&'static str, Pod>,
    pub netns: Netns,
    pub number: u8,
}

impl Node {
    pub(super) fn create(
        test: &str,
        number: u8,
        cloud: &Netns,
        folder: &Path,
        manifests: &Path,
        flags: &[&str],
    ) -> Self {
        let netns = Netns::create(test, &format!("node{number}"));
        settle(&netns);
        connect(&netns, number, cloud);
        let cni = Cni::PointToPoint;
        cni.prepare(&netns, pods_of(number));
        let pods = (FIRST_POD..).zip(POD_LETTERS).map(|(pod, letter)| {
            let at = Place { pods: pods_of(number), number: pod };
            (letter, Pod::start(test, cni, &netns, &format!("{letter}{number}"), at))
        });
        let pods = pods.collect();
        masquerade(&netns);
        let own = folder.join(format!("node-{number}"));
        fs::create_dir(&own).expect("the folder is ours");
        let agent = Agent::new(&netns, &own, manifests).on(NAMES[usize::from(number) - 1]).flags(flags);
        Self { agent, pods, netns, number }
    }

    pub const fn name(&self) -> &'static str {
        NAMES[self.number as usize - 1]
    }

    /// The name of its own server in answers.
    pub fn host_name(&self) -> String {
        format!("host{}", self.number)
    }

    /// A pod, by its letter.
    #[track_caller]
    pub fn pod(&self, letter: &str) -> &Pod {
        self.pods.get(letter).expect("a letter of POD_LETTERS")
    }

    /// The name of a pod in answers.
    pub fn pod_name(&self, letter: &str) -> String {
        format!("{letter}{}", self.number)
    }

    pub fn address(&self, family: Family) -> IpAddr {
        UPLINK.host(family, on_network(self.number))
    }
}

fn settle(netns: &Netns) {
    netns.sysctl(&[
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.conf.all.rp_filter", "1"),
        ("net.ipv4.conf.default.rp_filter", "1"),
        ("net.ipv4.conf.all.send_redirects", "0"),
        ("net.ipv4.conf.default.send_redirects", "0"),
    ]);
}

/// Connects a node to the cloud's switch, and routes the other nodes' pods by these.
fn connect(netns: &Netns, number: u8, cloud: &Netns) {
    let port = format!("port{number}");
    netns.ip(&[format!("link add {UPLINK_NAME} type veth peer name {port} netns {}", cloud.name())]);
    let mut lines = vec![format!("link set {UPLINK_NAME} up")];
    lines
        .extend(FAMILIES.map(|family| add_address(family, &UPLINK.interface(family, on_network(number)), UPLINK_NAME)));
    netns.ip(&lines);
    cloud.ip(&[format!("link set {port} master {SWITCH} up")]);
    for family in FAMILIES {
        let add = |to: &str, by: u8| {
            netns.run("ip", &[flag(family), "route", "add", to, "via", &UPLINK.host(family, by).to_string()]);
        };
        add("default", CLOUD);
        add(&FAR.prefix(family), OUTSIDE);
        for other in (1..=3).filter(|other| *other != number) {
            add(&pods_of(other).prefix(family), on_network(other));
        }
    }
}

/// As CNIs do: what pods send out of the cluster gets the node's address as its source.
fn masquerade(netns: &Netns) {
    netns.nft(&format!(
        "table inet cni {{ chain out {{ type nat hook postrouting priority srcnat; policy accept;
         oifname {UPLINK_NAME} ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
         oifname {UPLINK_NAME} ip6 saddr fd00:10:244::/48 ip6 daddr != fd00:10:244::/48 masquerade
         }}
         }}"
    ));
}
