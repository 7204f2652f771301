//! Interfaces by netlink: a node's links are added, changed and deleted, and the watch follows. Needs root.

use std::collections::BTreeSet;
use std::time::Duration;

use lb_agent::dataplane::links::Class;
use lb_agent::interfaces::watch::{Watch, list_once};
use lb_agent::interfaces::{Event, Globs, InterfaceRules, Interfaces};
use lb_tests::netns::Netns;

/// The time limit for the report of a change, which takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A watch in the namespace of the calling thread, and its events so far. It reads only while a method runs.
struct Watched {
    runtime: tokio::runtime::Runtime,
    watch: Watch,
    interfaces: Interfaces,
    /// The number of complete lists.
    lists: usize,
}

impl Watched {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (watch, work) = runtime.block_on(async { Watch::open() }).expect("netlink can be watched");
        runtime.spawn(work);
        let mut watched = Self { runtime, watch, interfaces: Interfaces::default(), lists: 0 };
        watched.follow("the first list", Interfaces::is_listed);
        watched
    }

    /// Takes events until `is_so`.
    #[track_caller]
    fn follow(&mut self, what: &str, is_so: impl Fn(&Interfaces) -> bool) {
        let Self { runtime, watch, interfaces, lists } = self;
        let following = async {
            while !is_so(interfaces) {
                for event in watch.next().await.expect("netlink goes on") {
                    *lists += usize::from(matches!(event, Event::Everything { .. }));
                    interfaces.apply(event);
                }
            }
        };
        let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, following).await });
        assert!(ended.is_ok(), "waited for {what} in vain: {:#?}", self.interfaces);
    }

    /// Waits until exactly the interfaces of these names belong to the class.
    #[track_caller]
    fn follow_class(&mut self, class: Class, names: &[&str]) {
        let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.follow(&format!("{class:?} {names:?}"), |interfaces| of_class(interfaces, class) == wanted);
    }
}

fn of_class(interfaces: &Interfaces, class: Class) -> BTreeSet<String> {
    let rules = InterfaceRules { workload: Globs::Auto, uplink: Globs::Auto };
    let wanted = interfaces.wanted(&interfaces.judged(&rules, &BTreeSet::new())).into_values();
    wanted.filter(|link| link.class == class).map(|link| link.name).collect()
}

/// A node, a namespace for the other ends, and the watch of the node; `work` runs inside the node.
fn with_node(test: &str, work: impl FnOnce(&Netns, &Netns, Watched) + Send) {
    let (node, pod) = (Netns::create(test, "node"), Netns::create(test, "pod"));
    node.inside(|| work(&node, &pod, Watched::open()));
}

#[test]
fn pods_come_and_go() {
    with_node("ifpods", |node, pod, mut watched| {
        watched.follow_class(Class::Workload, &[]);
        node.ip(&[format!("link add veth1 type veth peer name eth0 netns {}", pod.name())]);
        watched.follow_class(Class::Workload, &["veth1"]);
        node.ip(&["link set veth1 name caliabc"]);
        watched.follow_class(Class::Workload, &["caliabc"]);
        // The peer is created here and then moved: it becomes a pod's.
        node.ip(&["link add veth2 type veth peer name moving"]);
        watched.follow("the new pair", |interfaces| interfaces.links().values().any(|link| link.name == "moving"));
        assert_eq!(of_class(&watched.interfaces, Class::Workload), ["caliabc".to_owned()].into());
        node.ip(&[format!("link set moving netns {}", pod.name()), "link set veth2 up".into()]);
        pod.ip(&["link set moving up"]);
        watched.follow_class(Class::Workload, &["caliabc", "veth2"]);
        // A veth is deleted with its peer.
        pod.ip(&["link del eth0"]);
        watched.follow_class(Class::Workload, &["veth2"]);
    });
}

#[test]
fn a_port_that_leaves_its_bridge_is_still_there() {
    with_node("ifbridge", |node, pod, mut watched| {
        node.ip(&[
            "link add cni0 type bridge".to_owned(),
            format!("link add veth1 type veth peer name eth0 netns {}", pod.name()),
            "link set veth1 master cni0 up".into(),
            "link set cni0 up".into(),
            "address add 10.1.0.1/24 dev cni0".into(),
        ]);
        watched.follow_class(Class::Workload, &["veth1"]);
        let has_controller = |interfaces: &Interfaces| {
            interfaces.links().values().any(|link| link.name == "veth1" && link.controller.is_some())
        };
        watched.follow("veth1 to be a port", has_controller);
        node.ip(&["link set veth1 nomaster"]);
        watched.follow("veth1 to be none", |interfaces| !has_controller(interfaces));
        assert_eq!(of_class(&watched.interfaces, Class::Workload), ["veth1".to_owned()].into());
        // With the default route, the bridge and its ports are an uplink.
        node.ip(&["link set veth1 master cni0", "route add default via 10.1.0.254 dev cni0"]);
        watched.follow_class(Class::Uplink, &["cni0", "veth1"]);
    });
}

#[test]
fn the_default_route_makes_an_uplink_in_both_families() {
    // With a prefix of its own it would be an uplink without a default route.
    for (family, address, gateway) in [("v4", "192.0.2.1/32", "192.0.2.254"), ("v6", "2001:db8::1/128", "2001:db8::ff")]
    {
        with_node(&format!("ifroute{family}"), |node, outside, mut watched| {
            node.ip(&[
                format!("link add up0 type veth peer name eth0 netns {}", outside.name()),
                format!("address add {address} dev up0"),
                "link set up0 up".into(),
            ]);
            outside.ip(&["link set eth0 up"]);
            watched.follow_class(Class::Workload, &["up0"]);
            node.ip(&[format!("route add default via {gateway} dev up0 onlink")]);
            watched.follow_class(Class::Uplink, &["up0"]);
            node.ip(&[format!("route del default via {gateway}")]);
            watched.follow_class(Class::Workload, &["up0"]);
        });
    }
}

#[test]
fn lost_events_lead_to_a_new_list() {
    with_node("ifoverrun", |node, pod, mut watched| {
        node.ip(&["link add churn type bridge"]);
        watched.follow("churn", |interfaces| interfaces.links().values().any(|link| link.name == "churn"));
        assert_eq!(watched.lists, 1);
        // More than the socket buffers, while it is not read.
        let toggles: Vec<_> = (0..5_000).map(|round| format!("link set churn mtu {}", 1400 + round % 2)).collect();
        node.ip(&toggles);
        node.ip(&[
            "link del churn".to_owned(),
            format!("link add veth1 type veth peer name eth0 netns {}", pod.name()),
        ]);
        watched.follow_class(Class::Workload, &["veth1"]);
        assert!(watched.lists > 1, "no event was lost, so nothing was tested");
        assert!(watched.interfaces.links().values().all(|link| link.name != "churn"));
    });
}

/// After any storm the events give the same state as a list.
#[test]
fn events_converge_to_the_list() {
    with_node("ifstorm", |node, pod, mut watched| {
        let mut lines = Vec::new();
        for number in 0..60 {
            lines.push(format!("link add veth{number} type veth peer name eth{number} netns {}", pod.name()));
            lines.push(format!("address add 10.2.0.{}/32 dev veth{number}", number + 1));
            if number % 3 == 0 {
                lines.push(format!("link del veth{number}"));
            } else if number % 3 == 1 {
                lines.push(format!("link set veth{number} name pod{number}"));
            }
        }
        lines.push("link add last type bridge".into());
        node.ip(&lines);
        watched
            .follow("the end of the storm", |interfaces| interfaces.links().values().any(|link| link.name == "last"));
        let mut listed = Interfaces::default();
        listed.apply(watched.runtime.block_on(list_once()).expect("interfaces can be listed"));
        assert_eq!(watched.interfaces.links(), listed.links());
        assert_eq!(watched.interfaces, listed);
        assert_eq!(of_class(&listed, Class::Workload).len(), 40);
    });
}
