//! Edits of the mode during connections: established ones stay, new ones follow the new mode.

use lb_tests::address::{BALANCERS, FAMILIES, vip};
use lb_tests::deadline::until_true;
use lb_tests::lab::Setup;
use lb_tests::manifest::ingress;
use lb_tests::scene::{BALANCER, Scene};

#[test]
fn ipm_60_61_an_open_connection_keeps_its_way_when_the_mode_flips() {
    let scene = Scene::start(Setup::new("flip"));
    for (before, after, id) in [("VIP", "Proxy", "IPM-60"), ("Proxy", "VIP", "IPM-61")] {
        let answers = |mode| if mode == "VIP" { "a" } else { BALANCER };
        scene.publish("shop", 60, before, &["a"]);
        for family in FAMILIES {
            let to = vip(family, 60, 80);
            assert_eq!(scene.dial().tcp(to).who(), Some(answers(before)), "{id} before the edit: {to}");
        }
        let mut open = FAMILIES.map(|family| scene.dial().held(vip(family, 60, 80)));
        scene.publish("shop", 60, after, &["a"]);
        for (family, held) in FAMILIES.into_iter().zip(&mut open) {
            let to = vip(family, 60, 80);
            assert_eq!(held.answer.who, answers(before));
            held.echo("after the edit").unwrap_or_else(|error| panic!("{id}: the open connection to {to}: {error}"));
            assert_eq!(scene.dial().tcp(to).who(), Some(answers(after)), "{id}: a new connection to {to}");
            held.transfer(1 << 20).unwrap_or_else(|error| panic!("{id}: the open connection to {to}: {error}"));
        }
    }
}

#[test]
fn ipm_63_flips_within_one_interval_end_where_they_end() {
    let scene = Scene::start(Setup::new("flips"));
    let entries = |mode| FAMILIES.map(|family| ingress(BALANCERS.host(family, 63), mode));
    for _ in 0..10 {
        let service = scene.service("shop", 63, &entries("VIP"));
        let mut objects = vec![service.object()];
        objects.extend(scene.slices(&service, &["a"]));
        scene.manifests.write("shop", &objects);
        scene.publish("shop", 63, "Proxy", &["a"]);
        for family in FAMILIES {
            assert_eq!(scene.dial().tcp(vip(family, 63, 80)).who(), Some(BALANCER));
        }
    }
}

#[test]
fn ipm_64_a_deleted_balancer_is_no_longer_intercepted_and_open_connections_live() {
    let scene = Scene::start(Setup::new("deleted"));
    scene.publish("emptied", 64, "VIP", &["a"]);
    scene.publish("removed", 65, "VIP", &["a"]);
    let numbers = [64, 65];
    let addresses = || numbers.into_iter().flat_map(|number| FAMILIES.map(|family| vip(family, number, 80)));
    let mut open: Vec<_> = addresses().map(|to| (to, scene.dial().held(to))).collect();
    assert!(open.iter().all(|(_, held)| held.answer.who == "a"));
    let service = scene.service("emptied", 64, &[]);
    let mut objects = vec![service.object()];
    objects.extend(scene.slices(&service, &["a"]));
    scene.apply("emptied", &objects);
    scene.manifests.remove("removed");
    for (to, held) in &mut open {
        until_true("new connections go to the balancer", || scene.dial().tcp(*to).who() == Some(BALANCER));
        held.echo("still here").unwrap_or_else(|error| panic!("the open connection to {to}: {error}"));
    }
}

#[test]
fn a_udp_client_follows_the_members_of_its_frontend() {
    let scene = Scene::start(Setup::new("udp"));
    scene.publish("dns", 66, "VIP", &["a"]);
    for family in FAMILIES {
        scene.publish("dns", 66, "VIP", &["a"]);
        let asking = scene.dial().asking(vip(family, 66, 80));
        for _ in 0..3 {
            assert_eq!(asking.ask("who").who(), Some("a"));
        }
        scene.publish("dns", 66, "VIP", &["a", "b"]);
        assert_eq!(asking.ask("who").who(), Some("a"), "its backend is still a member");
        scene.publish("dns", 66, "VIP", &["b"]);
        // Members are deleted last in an apply, a moment after the new pool is in force.
        until_true("its backend is gone: it moves", || asking.ask("who").who() == Some("b"));
    }
}

#[test]
fn tcp_to_a_backend_that_left_its_service_goes_on() {
    let scene = Scene::start(Setup::new("left"));
    scene.publish("shop", 67, "VIP", &["a"]);
    let mut open = FAMILIES.map(|family| scene.dial().held(vip(family, 67, 80)));
    scene.publish("shop", 67, "VIP", &["b"]);
    for (family, held) in FAMILIES.into_iter().zip(&mut open) {
        held.echo("still here").expect("the open connection goes on");
        scene.expect_all(vip(family, 67, 80), &["b"]);
    }
    scene.publish("shop", 67, "VIP", &[]);
    for held in &mut open {
        held.echo("and still").expect("the open connection goes on without any endpoint");
    }
}
