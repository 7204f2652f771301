//! Clients in the network whose packets to a balancer's address reach the node: what `--uplink-interfaces` adds.

use lb_tests::address::{FAMILIES, add_address, host_prefix, vip};
use lb_tests::deadline::until_true;
use lb_tests::dial::{Dial, Outcome};
use lb_tests::lab::{ReversePath, Setup};
use lb_tests::scene::{BALANCER, Scene};
use lb_tests::serve::Server;

use lb_tests::scene::outside::DROP_INVALID;

use lb_tests::scene::outside::{Endpoints, UPLINKS, client, dial, publish};

/// Both of the node's interfaces towards the network, and endpoints of other nodes are left to the stack.
const NO_FORWARDING: [&str; 3] = ["--uplink-interfaces", "up0,up1", "--forwarding=off"];

#[test]
fn a_client_in_the_network_reaches_a_pod_of_the_node_and_is_seen_as_itself() {
    let scene = Scene::with_flags(Setup::new("far").reverse_path(ReversePath::Strict), &NO_FORWARDING);
    scene.lab.node.nft(DROP_INVALID);
    publish(&scene, 90, "VIP", "Local", Endpoints::Here);
    publish(&scene, 91, "VIP", "Cluster", Endpoints::Here);
    publish(&scene, 92, "VIP", "Local", Endpoints::Both);
    publish(&scene, 93, "VIP", "Cluster", Endpoints::Both);
    for family in FAMILIES {
        for number in [90, 91, 92, 93] {
            let to = vip(family, number, 80);
            for _ in 0..8 {
                let Outcome::Answered(answer) = dial(&scene, family).tcp(to) else { panic!("{to} is not answered") };
                assert_eq!((answer.who.as_str(), answer.client.ip()), ("a", client(family)), "{to}");
            }
            let mut held = dial(&scene, family).held(to);
            held.transfer(2 << 20).expect("bulk goes both ways");
            let udp = dial(&scene, family).udp(to);
            assert_eq!(udp.who(), Some("a"), "UDP to {to}: {udp:?}");
        }
    }
}

#[test]
fn without_an_endpoint_here_local_is_silent_and_cluster_is_left_to_the_routes() {
    let scene = Scene::with_flags(Setup::new("farnone"), &NO_FORWARDING);
    publish(&scene, 94, "VIP", "Local", Endpoints::Elsewhere);
    publish(&scene, 95, "VIP", "Cluster", Endpoints::Elsewhere);
    publish(&scene, 96, "VIP", "Cluster", Endpoints::Nowhere);
    for family in FAMILIES {
        let dial = dial(&scene, family);
        assert_eq!(dial.tcp(vip(family, 94, 80)), Outcome::Silence);
        assert_eq!(dial.udp(vip(family, 94, 80)), Outcome::Silence);
        assert_eq!(dial.tcp(vip(family, 95, 80)).who(), Some(BALANCER), "the node's routes lead to the balancer");
        assert_eq!(dial.patient().tcp(vip(family, 96, 80)), Outcome::Refused, "there is no endpoint anywhere");
        assert_eq!(dial.tcp(vip(family, 94, 443)).who(), Some(BALANCER), "another port is nobody's");
    }
}

#[test]
fn ipm_50_a_proxy_address_is_routed_as_if_nobody_knew_it() {
    let scene = Scene::with_flags(Setup::new("farproxy"), &UPLINKS);
    publish(&scene, 97, "Proxy", "Cluster", Endpoints::Here);
    for family in FAMILIES {
        let to = vip(family, 97, 80);
        for outcome in [dial(&scene, family).tcp(to), dial(&scene, family).udp(to)] {
            let Outcome::Answered(answer) = outcome else { panic!("{to}: {outcome:?}") };
            assert_eq!((answer.who.as_str(), answer.client.ip()), (BALANCER, client(family)));
        }
    }
}

#[test]
fn ipm_51_a_proxy_address_of_the_node_itself_reaches_the_node() {
    let scene = Scene::with_flags(Setup::new("farlocal"), &UPLINKS);
    publish(&scene, 98, "Proxy", "Cluster", Endpoints::Here);
    let _host = Server::tcp(&scene.lab.node, "host", 80);
    for family in FAMILIES {
        let to = vip(family, 98, 80);
        scene.lab.node.ip(&[add_address(family, &host_prefix(to.ip()), "lo")]);
        // A worker of the kernel adds the route a moment after the address.
        until_true("the node reaches itself", || Dial::from(&scene.lab.node).tcp(to).who() == Some("host"));
        for (from, dial) in [("the network", dial(&scene, family)), ("a pod", scene.dial())] {
            let outcome = dial.tcp(to);
            assert_eq!(outcome.who(), Some("host"), "{to} from {from}: {outcome:?}");
        }
    }
}

#[test]
fn uplinks_are_left_alone_unless_asked_for() {
    let scene = Scene::start(Setup::new("faroff"));
    publish(&scene, 99, "VIP", "Cluster", Endpoints::Here);
    for family in FAMILIES {
        let to = vip(family, 99, 80);
        assert_eq!(scene.dial().tcp(to).who(), Some("a"), "pods take the shortcut");
        assert_eq!(dial(&scene, family).tcp(to).who(), Some(BALANCER), "packets of the network are routed");
    }
}
