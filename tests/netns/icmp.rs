//! ICMP errors from the path between a client and a backend reach the right socket.

use std::net::IpAddr;

use lb_tests::address::{BALANCERS, CLUSTER, DEEP_LINK, FAMILIES, FAR_LINK, Family, add_address, family, flag, vip};
use lb_tests::dial::{Dial, Outcome};
use lb_tests::lab::{FAR_NAME, Setup};
use lb_tests::manifest::{NODE, Service, ingress};
use lb_tests::netns::Netns;
use lb_tests::scene::Scene;

/// Narrower than any other link here, and wide enough for IPv6.
const NARROW: &str = "1300";
/// The segment size for an MTU of 1,500 in both families.
const WIDE_SEGMENT: &str = "1440";
/// Bytes that are sent and echoed: many full segments.
const TRANSFER: usize = 1 << 20;
/// A port that no pod serves.
const CLOSED: u16 = 9;

/// Narrows both ends of a pod's link, because the receiving end drops packets that are too long without an error. The
/// pod still announces the old segment size (MSS); otherwise the client would send no segment that is too long for it.
fn narrow(scene: &Scene, name: &str) {
    let pod = scene.lab.pod(name);
    for family in FAMILIES {
        let route = pod.netns.run("ip", &[flag(family), "route", "show", "default"]);
        let mut words: Vec<&str> = vec![flag(family), "route", "change"];
        words.extend(route.split_whitespace().take_while(|word| *word != "pref"));
        words.extend(["advmss", WIDE_SEGMENT]);
        pod.netns.run("ip", &words);
    }
    pod.netns.ip(&[format!("link set eth0 mtu {NARROW}")]);
    scene.lab.node.ip(&[format!("link set {} mtu {NARROW}", pod.interface)]);
}

#[test]
fn pr_02_the_client_learns_of_a_narrow_link_before_the_backend() {
    let scene = Scene::start(Setup::new("pmtubackend"));
    scene.publish("s1", 1, "VIP", &["a"]);
    narrow(&scene, "a");
    for family in FAMILIES {
        let mut held = scene.dial().held(vip(family, 1, 80));
        held.transfer(TRANSFER).unwrap_or_else(|error| panic!("{family:?}: {error}"));
        assert_eq!(
            learned_by(&scene, "client", vip(family, 1, 80).ip()).as_deref(),
            Some(NARROW),
            "{family:?}: the path to the frontend"
        );
    }
}

/// The edge of the node behind which the narrow link is. Its router sends the error to the frontend, whose packet it
/// received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// A pod that routes for another namespace, like a pod with containers or virtual machines of its own.
    Pod,
    /// A router in the network.
    Uplink,
}

impl Behind {
    fn router(self, scene: &Scene) -> &Netns {
        match self {
            Self::Pod => &scene.lab.pod("client").netns,
            Self::Uplink => &scene.lab.far,
        }
    }

    /// The route from the node to the router: its address, and the node's interface.
    fn way(self, scene: &Scene, family: Family) -> [String; 2] {
        match self {
            Self::Pod => {
                let pod = scene.lab.pod("client");
                [pod.address(family).to_string(), pod.interface.clone()]
            }
            Self::Uplink => [FAR_LINK.host(family, 1).to_string(), FAR_NAME.to_owned()],
        }
    }
}

/// A client behind a router. Only the router knows that the path is narrow: the client's own segment size (MSS) does
/// not tell the backend.
fn narrow_behind(scene: &Scene, behind: Behind) -> Netns {
    let (router, deep) = (behind.router(scene), Netns::create(scene.lab.test, "deep"));
    router.sysctl(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")]);
    router.ip(&[format!("link add deep0 type veth peer name eth0 netns {}", deep.name()), "link set deep0 up".into()]);
    deep.ip(&["link set eth0 up"]);
    for family in FAMILIES {
        let [gateway, client] = [1, 2].map(|number| DEEP_LINK.host(family, number).to_string());
        router.ip(&[add_address(family, &DEEP_LINK.interface(family, 1), "deep0")]);
        deep.ip(&[add_address(family, &DEEP_LINK.interface(family, 2), "eth0")]);
        deep.run("ip", &[flag(family), "route", "add", "default", "via", &gateway]);
        router.run("ip", &[flag(family), "route", "add", &client, "dev", "deep0", "mtu", NARROW]);
        let [hop, interface] = behind.way(scene, family);
        let node = &scene.lab.node;
        node.run("ip", &[flag(family), "route", "add", &client, "via", &hop, "dev", &interface, "onlink"]);
    }
    deep.settle();
    router.settle();
    deep
}

/// The path MTU from a pod to an address, as the pod's stack has learned it.
fn learned_by(scene: &Scene, pod: &str, to: IpAddr) -> Option<String> {
    let (to, like) = (to.to_string(), family(to));
    let route = scene.lab.pod(pod).netns.run("ip", &[flag(like), "route", "get", &to]);
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1).map(ToOwned::to_owned)
}

/// The error is addressed to the frontend and quotes its packet; the backend receives it with its own.
fn the_backend_learns(setup: Setup, behind: Behind) {
    let scene = Scene::with_flags(setup, &["--uplink-interfaces", "up0,up1"]);
    scene.publish("s1", 1, "VIP", &["a"]);
    let deep = narrow_behind(&scene, behind);
    for family in FAMILIES {
        let client = DEEP_LINK.host(family, 2);
        let mut held = Dial::from(&deep)
            .hold(vip(family, 1, 80))
            .unwrap_or_else(|error| panic!("{behind:?} {family:?}: {error:?}"));
        assert_eq!((held.answer.who.as_str(), held.answer.client.ip()), ("a", client));
        assert_eq!(learned_by(&scene, "a", client), None, "{family:?}: nothing is known yet");
        held.transfer(TRANSFER).unwrap_or_else(|error| panic!("{behind:?} {family:?}: {error}"));
        assert_eq!(learned_by(&scene, "a", client).as_deref(), Some(NARROW), "{behind:?} {family:?}: what `a` knows");
    }
}

#[test]
fn pr_02_the_backend_learns_of_a_narrow_link_behind_a_pod() {
    the_backend_learns(Setup::new("pmtupod"), Behind::Pod);
}

#[test]
fn pr_02_the_backend_learns_of_a_narrow_link_in_the_network() {
    the_backend_learns(Setup::new("pmtufar"), Behind::Uplink);
}

/// The socket is connected to the frontend, and accepts errors from no other address.
#[test]
fn pr_03_a_closed_port_refuses_the_datagram() {
    let scene = Scene::start(Setup::new("closedport"));
    let addresses = FAMILIES.map(|family| CLUSTER.host(family, 1));
    let service = FAMILIES
        .iter()
        .fold(Service::new("s1").cluster_ips(&addresses).port("dns", "UDP", 80, CLOSED), |service, family| {
            service.ingress(ingress(BALANCERS.host(*family, 1), "VIP"))
        });
    let mut objects = vec![service.object()];
    for family in FAMILIES {
        let suffix = format!("{family:?}").to_lowercase();
        let slice = service.slice(&suffix).address_type(family).port("dns", "UDP", CLOSED);
        objects.push(slice.endpoint(scene.lab.pod_address("a", family), NODE).object());
    }
    scene.apply("s1", &objects);
    for family in FAMILIES {
        assert_eq!(
            scene.dial().unasked("the endpoint refuses").udp(vip(family, 1, 80)),
            Outcome::Refused,
            "{family:?}"
        );
    }
}
