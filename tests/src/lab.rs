//! A node with its pods, and the networks outside, in namespaces.
//!
//! ```text
//!   pod client --.                                    .-- external: the cloud balancer, pods of other nodes
//!   pod a -------+-- node (routes, runs the agent) --+
//!   pod b -------'                                    '-- far: clients in the network
//! ```
//!
//! Without an agent, plain routing connects everything, and every balancer's address is in `external`.

pub mod cni;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use crate::address::{BALANCERS, FAMILIES, FAR, FAR_LINK, Family, LAST, PODS, REMOTE_PODS, UPLINK, add_address, flag};
use crate::leftovers;
use crate::netns::Netns;

pub use cni::{Cni, Place};

/// The node's interface towards the balancer.
pub const UPLINK_NAME: &str = "up0";
/// The node's interface towards clients in the network.
pub const FAR_NAME: &str = "up1";

/// The node's reverse path filter: whether packets that arrive by an interface which is not the route back are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReversePath {
    Loose,
    Strict,
}

/// The settings of a lab.
#[derive(Clone, Debug)]
pub struct Setup {
    test: &'static str,
    pods: Vec<&'static str>,
    cni: Cni,
    reverse_path: ReversePath,
}

impl Setup {
    /// A node with point-to-point veths and no pods. `test` names the namespaces: short, without a dash, and used by
    /// one lab at a time.
    pub const fn new(test: &'static str) -> Self {
        Self { test, pods: Vec::new(), cni: Cni::PointToPoint, reverse_path: ReversePath::Loose }
    }

    /// The name from which its namespaces are named.
    pub const fn test(&self) -> &'static str {
        self.test
    }

    #[must_use]
    pub fn pods(mut self, names: &[&'static str]) -> Self {
        self.pods.extend(names);
        self
    }

    #[must_use]
    pub const fn cni(mut self, cni: Cni) -> Self {
        self.cni = cni;
        self
    }

    #[must_use]
    pub const fn reverse_path(mut self, reverse_path: ReversePath) -> Self {
        self.reverse_path = reverse_path;
        self
    }

    /// Makes the namespaces and connects them.
    pub fn build(self) -> Lab {
        Lab::build(&self)
    }
}

/// A pod of the node.
pub struct Pod {
    pub netns: Netns,
    at: Place,
    /// The node's end of its veth.
    pub interface: String,
}

impl Pod {
    /// Starts a pod of a node: its namespace, its veth, its addresses and routes.
    #[track_caller]
    pub(crate) fn start(test: &str, cni: Cni, node: &Netns, name: &str, at: Place) -> Self {
        let netns = Netns::create(test, name);
        let interface = cni.connect(node, &netns, name, at);
        netns.settle();
        Self { netns, at, interface }
    }

    pub fn address(&self, family: Family) -> IpAddr {
        self.at.host(family)
    }
}

/// Namespaces, addresses and routes. Dropping the lab removes all of them.
pub struct Lab {
    pub test: &'static str,
    pub node: Netns,
    pub external: Netns,
    pub far: Netns,
    cni: Cni,
    pods: BTreeMap<&'static str, Pod>,
    /// The number of the next pod. Numbers are not reused, as clusters quarantine addresses.
    next: u8,
    folder: tempfile::TempDir,
}

impl Lab {
    fn build(setup: &Setup) -> Self {
        let test = setup.test;
        let mut lab = Self {
            test,
            node: Netns::create(test, "node"),
            external: Netns::create(test, "ext"),
            far: Netns::create(test, "far"),
            cni: setup.cni,
            pods: BTreeMap::new(),
            next: 10,
            folder: tempfile::Builder::new()
                .prefix(&leftovers::name(test, ""))
                .tempdir()
                .expect("the temporary folder is writable"),
        };
        lab.settle_node(setup.reverse_path);
        lab.connect_outside();
        setup.cni.prepare(&lab.node, PODS);
        for pod in &setup.pods {
            lab.add_pod(pod);
        }
        for outside in [&lab.external, &lab.far, &lab.node] {
            outside.settle();
        }
        lab
    }

    /// A folder for files of this lab's tests.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All of its namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &Netns> {
        [&self.node, &self.external, &self.far].into_iter().chain(self.pods.values().map(|pod| &pod.netns))
    }

    /// A pod by name.
    #[track_caller]
    pub fn pod(&self, name: &str) -> &Pod {
        match self.pods.get(name) {
            Some(pod) => pod,
            None => panic!("there is no pod {name} in {}", self.test),
        }
    }

    pub fn has_pod(&self, name: &str) -> bool {
        self.pods.contains_key(name)
    }

    /// An address of a pod.
    #[track_caller]
    pub fn pod_address(&self, name: &str, family: Family) -> IpAddr {
        self.pod(name).address(family)
    }

    /// Starts a pod.
    pub fn add_pod(&mut self, name: &'static str) {
        let number = self.next;
        self.next += 1;
        let pod = Pod::start(self.test, self.cni, &self.node, name, Place { pods: PODS, number });
        let other = self.pods.insert(name, pod);
        assert!(other.is_none(), "two pods are called {name}");
    }

    /// Removes a pod with its interface, as a container runtime does.
    pub fn remove_pod(&mut self, name: &str) {
        let pod = self.pods.remove(name).expect("the pod was added");
        self.node.ip(&[format!("link delete {}", pod.interface)]);
    }

    fn settle_node(&self, reverse_path: ReversePath) {
        let rp_filter = match reverse_path {
            ReversePath::Loose => "0",
            ReversePath::Strict => "1",
        };
        self.node.sysctl(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.conf.all.rp_filter", rp_filter),
            ("net.ipv4.conf.default.rp_filter", rp_filter),
        ]);
    }

    /// Connects the two networks outside: the balancer's, which has the node's default route, and the far one.
    fn connect_outside(&self) {
        // The addresses of balancers are on no interface: programs can bind to any of them.
        self.external.sysctl(&[("net.ipv4.ip_nonlocal_bind", "1"), ("net.ipv6.ip_nonlocal_bind", "1")]);
        self.far.sysctl(&[("net.ipv4.ip_nonlocal_bind", "1"), ("net.ipv6.ip_nonlocal_bind", "1")]);
        let (mut node, mut external, mut far) = (Vec::new(), Vec::new(), Vec::new());
        for (name, other) in [(UPLINK_NAME, &self.external), (FAR_NAME, &self.far)] {
            node.push(format!("link add {name} type veth peer name eth0 netns {}", other.name()));
            node.push(format!("link set {name} up"));
        }
        external.push("link set eth0 up".to_owned());
        far.push("link set eth0 up".to_owned());
        for family in FAMILIES {
            node.push(add_address(family, &UPLINK.interface(family, 2), UPLINK_NAME));
            node.push(add_address(family, &FAR_LINK.interface(family, 2), FAR_NAME));
            external.push(add_address(family, &UPLINK.interface(family, 1), "eth0"));
            far.push(add_address(family, &FAR_LINK.interface(family, 1), "eth0"));
        }
        self.node.ip(&node);
        self.external.ip(&external);
        self.far.ip(&far);
        for family in FAMILIES {
            self.route_outside(family);
        }
    }

    fn route_outside(&self, family: Family) {
        let ip = flag(family);
        let (here, there) = (UPLINK.host(family, 2), UPLINK.host(family, 1));
        let run = |netns: &Netns, route: &str| {
            let mut arguments = vec![ip, "route", "add"];
            arguments.extend(route.split(' '));
            netns.run("ip", &arguments);
        };
        run(&self.node, &format!("default via {there}"));
        run(&self.node, &format!("{} via {}", FAR.prefix(family), FAR_LINK.host(family, 1)));
        run(&self.external, &format!("default via {here}"));
        run(&self.external, &format!("local {} dev lo", BALANCERS.prefix(family)));
        run(&self.external, &format!("local {} dev lo", LAST.prefix(family)));
        run(&self.external, &format!("local {} dev lo", REMOTE_PODS.prefix(family)));
        run(&self.far, &format!("default via {}", FAR_LINK.host(family, 2)));
        run(&self.far, &format!("local {} dev lo", FAR.prefix(family)));
    }
}
