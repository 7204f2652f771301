//! The lab itself, without an agent: the assumptions of every other test.

use lb_tests::address::{BALANCERS, FAMILIES, FAR, Family, REMOTE_PODS, vip};
use lb_tests::capture::{Capture, Carries};
use lb_tests::dial::{Dial, Outcome};
use lb_tests::lab::{Cni, Lab, ReversePath, Setup};
use lb_tests::serve::Server;
use std::net::SocketAddr;

fn everything_is_reached(lab: &Lab) {
    let client = &lab.pod("client").netns;
    let _pod = Server::tcp(&lab.pod("a").netns, "a", 8080);
    let _pod_udp = Server::udp(&lab.pod("a").netns, "a", 8080);
    let _balancer = Server::tcp(&lab.external, "balancer", 80);
    for family in FAMILIES {
        let pod = SocketAddr::new(lab.pod_address("a", family), 8080);
        let own = lab.pod_address("client", family);
        for outcome in [Dial::from(client).tcp(pod), Dial::from(client).udp(pod)] {
            let Outcome::Answered(answer) = outcome else { panic!("{pod}: {outcome:?}") };
            assert_eq!((answer.who.as_str(), answer.client.ip()), ("a", own));
        }
        let outcome = Dial::from(client).tcp(vip(family, 10, 80));
        let Outcome::Answered(answer) = outcome else { panic!("{family:?} balancer: {outcome:?}") };
        assert_eq!((answer.who.as_str(), answer.client.ip()), ("balancer", own));
        let remote = SocketAddr::new(REMOTE_PODS.host(family, 5), 80);
        assert_eq!(Dial::from(client).tcp(remote).who(), Some("balancer"));

        let from_balancer = Dial::from(&lab.external).bound(BALANCERS.host(family, 10)).tcp(pod);
        assert_eq!(from_balancer.who(), Some("a"));
        let far = FAR.host(family, 7);
        let Outcome::Answered(answer) = Dial::from(&lab.far).bound(far).tcp(pod) else { panic!("from {far}") };
        assert_eq!(answer.client.ip(), far);
        assert_eq!(Dial::from(&lab.far).bound(far).tcp(vip(family, 10, 80)).who(), Some("balancer"));
    }
}

#[test]
fn point_to_point_pods_reach_everything() {
    everything_is_reached(&Setup::new("ptp").pods(&["client", "a"]).build());
}

#[test]
fn bridged_pods_reach_everything() {
    everything_is_reached(&Setup::new("bridge").cni(Cni::Bridge).pods(&["client", "a"]).build());
}

#[test]
fn a_strict_reverse_path_lets_honest_packets_pass() {
    everything_is_reached(&Setup::new("strict").reverse_path(ReversePath::Strict).pods(&["client", "a"]).build());
}

#[test]
fn failures_are_told_apart_and_seen_on_the_wire() {
    let lab = Setup::new("failures").pods(&["client", "a"]).build();
    let client = &lab.pod("client").netns;
    let capture = Capture::start(&lab.external);
    for family in FAMILIES {
        let dial = Dial::from(client);
        assert_eq!(dial.tcp(SocketAddr::new(lab.pod_address("a", family), 81)), Outcome::Refused, "nobody listens");
        assert_eq!(dial.tcp(vip(family, 10, 80)), Outcome::Refused);
        let is_syn = |packet: &_| {
            let lb_tests::capture::Packet { carries, destination, .. } = *packet;
            carries == Carries::Syn && destination == vip(family, 10, 80)
        };
        capture.wait_for("the SYN to the balancer", is_syn);
    }
    lab.external.nft("table inet t { chain c { type filter hook input priority 0; tcp dport 80 drop; }; };");
    assert_eq!(Dial::from(client).tcp(vip(Family::V4, 10, 80)), Outcome::Silence);
    let seen = capture.all_until_now(client);
    assert!(seen.iter().all(|packet| packet.destination.port() != 81), "a packet between pods left the node");
}

#[test]
fn a_held_connection_a_dialler_and_a_pod_that_goes() {
    let mut lab = Setup::new("held").pods(&["client"]).build();
    lab.add_pod("late");
    let server = Server::tcp(&lab.pod("late").netns, "late", 8080);
    let to = SocketAddr::new(lab.pod_address("late", Family::V6), 8080);
    let client = lab.pod("client").netns.clone();
    let mut held = Dial::from(&client).held(to);
    held.echo("one").expect("it echoes");
    held.transfer(1 << 20).expect("it echoes");
    let dialler = Dial::from(&client).repeatedly(to);
    lb_tests::deadline::until_true("a hundred dials", || dialler.dialled() > 100);
    let tally = dialler.stop();
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    assert_eq!(tally.answers(), server.served() - 1);
    drop(server);
    lab.remove_pod("late");
    assert!(held.echo("two").is_err());
}
