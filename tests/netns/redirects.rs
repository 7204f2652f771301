//! ICMP redirects: if the node's route to the backend uses the interface of the client, the node tells the client of a
//! shorter route. For a translated flow the redirect names an address that the client never dialled. netfilter drops
//! such redirects as well.

use std::net::SocketAddr;

use lb_tests::address::{FAMILIES, Family, flag, vip};
use lb_tests::capture::{Capture, Carries, Direction, Packet};
use lb_tests::deadline::until_true;
use lb_tests::dial::Dial;
use lb_tests::lab::{Cni, Setup};
use lb_tests::scene::{Scene, TARGET};

/// The message in each family (RFC 792, RFC 4861).
const REDIRECT4: u8 = 5;
const REDIRECT6: u8 = 137;

fn is_redirect(packet: &Packet) -> bool {
    packet.direction == Direction::In && matches!(packet.carries, Carries::Icmp(REDIRECT4 | REDIRECT6))
}

/// Redirects dropped so far.
fn dropped(scene: &Scene) -> u64 {
    let (_, metrics) = scene.agent.page("/metrics").expect("it answers");
    let line = metrics.lines().find_map(|line| line.strip_prefix("lb_agent_drops_total{reason=\"redirect\"} "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Pods of a bridge: translated packets enter and leave the node by the same interface.
#[test]
fn redirects_of_translated_flows_are_dropped_and_others_are_not() {
    let scene = Scene::start(Setup::new("redirects").cni(Cni::Bridge));
    scene.publish("s1", 1, "VIP", &["a"]);
    let client = &scene.lab.pod("client").netns;
    for family in FAMILIES {
        let capture = Capture::start(client);
        let before = dropped(&scene);
        let to = vip(family, 1, 80);
        until_true(&format!("the node has tried to redirect the client of {to}"), || {
            assert_eq!(scene.dial().tcp(to).who(), Some("a"), "{to}");
            assert_eq!(scene.dial().udp(to).who(), Some("a"), "{to}");
            dropped(&scene) > before || capture.seen().iter().any(is_redirect)
        });
        let seen = capture.all_until_now(client);
        let leaked: Vec<String> = seen.iter().filter(|packet| is_redirect(packet)).map(ToString::to_string).collect();
        assert!(leaked.is_empty(), "{family:?}: {leaked:?}");
        // A client that dials a neighbour through the node does get a redirect.
        let other = scene.lab.pod_address("b", family);
        let gateway = gateway(&scene, family);
        client.run("ip", &[flag(family), "route", "add", &other.to_string(), "via", &gateway]);
        until_true("a redirect of an ordinary flow arrives", || {
            assert_eq!(Dial::from(client).tcp(SocketAddr::new(other, TARGET)).who(), Some("b"));
            capture.seen().iter().any(is_redirect)
        });
    }
}

fn gateway(scene: &Scene, family: Family) -> String {
    let route = scene.lab.pod("client").netns.run("ip", &[flag(family), "route", "show", "default"]);
    let mut words = route.split_whitespace().skip_while(|word| *word != "via");
    words.nth(1).expect("pods have a default route").to_owned()
}
