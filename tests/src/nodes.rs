//! Three nodes on one network, each with an agent of its own, and a cloud around them.
//!
//! ```text
//!   pods a1 b1 c1 --- node 1 --.
//!   pods a2 b2 c2 --- node 2 ---+-- cloud: the switch, the router and the balancer
//!   pods a3 b3 c3 --- node 3 --'      '-- outside: clients, one address for each node to go by
//! ```
//!
//! Nodes route pods of other nodes directly, and masquerade what pods send out of the cluster, as CNIs do. One folder of
//! manifests is the source of all agents. Pods and nodes answer on [`TARGET`] with their names, the cloud on the addresses
//! of balancers.

mod node;
mod watch;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use crate::address::{BALANCERS, CLUSTER, EXTERNAL_IPS, FAMILIES, FAR, Family, LAST, UPLINK, add_address, flag};
use crate::deadline;
use crate::dial::Dial;
use crate::leftovers;
use crate::manifest::{Folder, NODE, OTHER_NODE, THIRD_NODE, node as node_object};
use crate::marker;
use crate::netns::Netns;
use crate::scene::BALANCER;
use crate::serve::{Server, TARGET};

pub use node::{Node, POD_LETTERS, UPLINK_NAME};
pub use watch::{Leak, Watch};

/// The names of the nodes, by number.
pub const NAMES: [&str; 3] = [NODE, OTHER_NODE, THIRD_NODE];
/// The ports on which the cloud answers for balancers.
const BALANCER_PORTS: [u16; 2] = [80, 443];
/// The cloud's bridge.
const SWITCH: &str = "br0";
/// The cloud's number on the network of the nodes.
const CLOUD: u8 = 1;
/// The number of the namespace of the clients outside.
pub const OUTSIDE: u8 = 2;

/// A node's number on that network.
const fn on_network(number: u8) -> u8 {
    10 + number
}

/// The namespaces, with their programs. Fields are dropped in this order.
pub struct Cluster {
    nodes: [Node; 3],
    servers: Vec<Server>,
    pub manifests: Folder,
    pub cloud: Netns,
    pub outside: Netns,
    generation: AtomicU16,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts everything; all agents have the same flags. `test` names the namespaces.
    #[track_caller]
    pub fn start(test: &'static str, flags: &[&str]) -> Self {
        let mut cluster = Self::without_agents(test, flags);
        cluster.start_agents();
        cluster
    }

    /// As [`Cluster::start`], but the agents are not started yet.
    #[track_caller]
    pub fn without_agents(test: &'static str, flags: &[&str]) -> Self {
        let mut cluster = Self::bare(test, flags);
        let mut servers = Server::on_ports(&cluster.cloud, BALANCER, &BALANCER_PORTS);
        for node in &cluster.nodes {
            servers.extend(Server::on_ports(&node.netns, &node.host_name(), &[TARGET]));
            for letter in POD_LETTERS {
                servers.extend(Server::on_ports(&node.pod(letter).netns, &node.pod_name(letter), &[TARGET]));
            }
        }
        cluster.servers = servers;
        cluster
    }

    /// The namespaces without a program in them.
    #[track_caller]
    pub fn bare(test: &'static str, flags: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix(&leftovers::name(test, "")).tempdir();
        let folder = folder.expect("the temporary folder is writable");
        let manifests = Folder::create(folder.path().join("manifests"), &node_addresses(1));
        let (cloud, outside) = (Netns::create(test, "cloud"), Netns::create(test, "outside"));
        connect_cloud(&cloud, &outside);
        let nodes = [1, 2, 3].map(|number| Node::create(test, number, &cloud, folder.path(), manifests.path(), flags));
        for node in &nodes[1..] {
            manifests.write(node.name(), &[node_object(node.name(), &node_addresses(node.number))]);
        }
        for netns in [&cloud, &outside].into_iter().chain(nodes.iter().map(|node| &node.netns)) {
            netns.settle();
        }
        let generation = AtomicU16::new(marker::FIRST_PORT);
        Self { nodes, servers: Vec::new(), manifests, cloud, outside, generation, folder }
    }

    /// Starts all agents, and waits until each has programmed its first full state.
    #[track_caller]
    pub fn start_agents(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.agent.spawn());
        // They share the processors while the kernel verifies the programs of each.
        let limit = deadline::PATIENCE * 3;
        self.nodes.iter_mut().for_each(|node| node.agent.wait_until_ready(limit));
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A node by its number, from one.
    pub fn node(&self, number: u8) -> &Node {
        &self.nodes[usize::from(number) - 1]
    }

    pub fn node_mut(&mut self, number: u8) -> &mut Node {
        &mut self.nodes[usize::from(number) - 1]
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// Dials from the network outside; packets go by the node of this number.
    pub fn dial_by(&self, number: u8, family: Family) -> Dial<'_> {
        Dial::from(&self.outside).bound(client(number, family))
    }

    /// Replaces the objects of one file, and returns when new connections on all nodes see them.
    #[track_caller]
    pub fn apply(&self, file: &str, objects: &[Value]) {
        let port = self.generation.fetch_add(1, Ordering::SeqCst);
        let mut all = objects.to_vec();
        all.extend(marker::objects(file, port, FAMILIES.map(|family| self.node(1).pod("a").address(family))));
        self.manifests.write(file, &all);
        for node in &self.nodes {
            for family in [Family::V6, Family::V4] {
                let at = marker::at(family, port);
                // Which of the two are served is up to the flags.
                let dials = [&node.pod("c").netns, &node.netns].map(Dial::from);
                let is_seen = || dials.iter().any(|dial| dial.tcp(at).who() == Some("a1"));
                deadline::until_true(&format!("{file} is in force on {}", node.name()), is_seen);
            }
        }
    }

    /// The addresses that [`Cluster::apply`] asks, also before they are served.
    pub fn markers() -> BTreeSet<IpAddr> {
        FAMILIES.map(|family| marker::at(family, marker::FIRST_PORT).ip()).into()
    }

    /// Watches what the nodes send to the network and to each other.
    pub fn watch(&self) -> Watch {
        Watch::start(&self.cloud)
    }

    fn tell(&self) {
        for node in &self.nodes {
            let counters = node.agent.ask(&["show", "counters"]);
            eprintln!("--- counters of {}:\n{}{}", node.name(), counters.stdout, counters.stderr);
            eprintln!("--- {} counted:\n{}", node.name(), node.netns.losses());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() && !leftovers::is_interrupted() {
            self.tell();
        }
        self.servers.iter().for_each(Server::tell_to_stop);
    }
}

/// The client outside whose packets go by this node.
pub fn client(number: u8, family: Family) -> IpAddr {
    FAR.host(family, number)
}

/// A node's addresses, which its Node has as well.
fn node_addresses(number: u8) -> Vec<IpAddr> {
    FAMILIES.map(|family| UPLINK.host(family, on_network(number))).to_vec()
}

/// The address of the cloud on the network of the nodes: the balancer's, as its backends see it.
pub fn balancer(family: Family) -> IpAddr {
    UPLINK.host(family, CLOUD)
}

/// A node port of a node.
pub fn node_port(number: u8, family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(UPLINK.host(family, on_network(number)), port)
}

/// The switch, the router's and the balancers' addresses, and the clients outside.
fn connect_cloud(cloud: &Netns, outside: &Netns) {
    cloud.sysctl(&[("net.ipv4.ip_nonlocal_bind", "1"), ("net.ipv6.ip_nonlocal_bind", "1")]);
    // Clients keep the way that the test has chosen for them.
    outside.sysctl(&[
        ("net.ipv4.ip_nonlocal_bind", "1"),
        ("net.ipv6.ip_nonlocal_bind", "1"),
        ("net.ipv4.conf.all.accept_redirects", "0"),
        ("net.ipv4.conf.default.accept_redirects", "0"),
        ("net.ipv6.conf.all.accept_redirects", "0"),
        ("net.ipv6.conf.default.accept_redirects", "0"),
    ]);
    let mut lines = vec![
        format!("link add {SWITCH} type bridge"),
        format!("link set {SWITCH} up"),
        format!("link add out type veth peer name eth0 netns {}", outside.name()),
        format!("link set out master {SWITCH} up"),
    ];
    let mut clients = vec!["link set eth0 up".to_owned()];
    for family in FAMILIES {
        lines.push(add_address(family, &UPLINK.interface(family, CLOUD), SWITCH));
        clients.push(add_address(family, &UPLINK.interface(family, OUTSIDE), "eth0"));
    }
    cloud.ip(&lines);
    outside.ip(&clients);
    for family in FAMILIES {
        let (ip, gateway) = (flag(family), UPLINK.host(family, OUTSIDE).to_string());
        cloud.run("ip", &[ip, "route", "add", &FAR.prefix(family), "via", &gateway]);
        // No host has them: without a shortcut there is no answer at all.
        for net in [CLUSTER, EXTERNAL_IPS] {
            cloud.run("ip", &[ip, "route", "add", "blackhole", &net.prefix(family)]);
        }
        for net in [BALANCERS, LAST] {
            cloud.run("ip", &[ip, "route", "add", "local", &net.prefix(family), "dev", "lo"]);
        }
        outside.run("ip", &[ip, "route", "add", "local", &FAR.prefix(family), "dev", "lo"]);
        outside.run("ip", &[ip, "route", "add", &BALANCERS.prefix(family), "via", &balancer(family).to_string()]);
        for number in 1..=3 {
            let (from, table) = (client(number, family).to_string(), (100 + number).to_string());
            let node = UPLINK.host(family, on_network(number)).to_string();
            outside.run("ip", &[ip, "rule", "add", "from", &from, "lookup", &table]);
            outside.run("ip", &[ip, "route", "add", "default", "via", &node, "dev", "eth0", "table", &table]);
        }
    }
}
