//! A bridge that has the node's address, with a port towards the network.

use lb_tests::address::Net;
use lb_tests::lab::{ReversePath, Setup};
use lb_tests::scene::Scene;
use lb_tests::side::{FURTHER, Side, carries_bulk, counts_once, publish, refuses};

use crate::interfaces::shown;
use lb_tests::scene::outside::DROP_INVALID;

/// The bridge and its port see each packet. Clients behind it, endpoints behind it, and both.
#[test]
fn a_bridge_with_the_nodes_address_is_an_uplink() {
    let setup = Setup::new("brup").reverse_path(ReversePath::Strict);
    let mut scene = Scene::without_agent(setup, &["--uplink-interfaces", "auto"]);
    scene.lab.node.nft(DROP_INVALID);
    let sides = [Side::bridge(&scene, Net::of_device(7))];
    scene.agent.start();
    assert_eq!(shown(&scene, "p0"), Some(("uplink".into(), "a port of br-up, which leads to the network".into())));
    publish(&scene, &sides);
    counts_once(&scene, &sides[0], FURTHER);
    carries_bulk(&scene, &sides[0], FURTHER);
    refuses(&sides[0]);
}
