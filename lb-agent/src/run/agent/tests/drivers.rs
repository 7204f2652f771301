//! The programs of drivers: an addition to tc, that follows it and hurts nothing.

use lb_common::table::Uplink;

use super::*;
use crate::dataplane::Card;
use crate::dataplane::driver::Mode;

fn card(driver: &str) -> Card {
    Card { driver: driver.to_owned(), takes_tags: false }
}

/// An agent with an uplink 2 and a pod 3, before its tables are complete.
fn with_uplink(xdp: Xdp, links: FakeLinks) -> (Agent<FakeDataplane>, Instant) {
    let mut config = config();
    config.interfaces.uplink = Globs::Auto;
    config.dataplane.xdp = xdp;
    let (mut agent, now) = agent_with(FakeDataplane::with(links), &config);
    agent.drivers.ask = |_| Ok(card("ice"));
    agent.link_events([everything(&[2, 3]), vec![Event::DefaultRoutes([2].into())]].concat(), now);
    (agent, now)
}

fn complete(agent: &mut Agent<FakeDataplane>, now: Instant) {
    agent.change(vec![Change::Listed], now);
    assert!(!agent.turn(now));
}

/// Whether other drivers may send frames to the uplink. None without a row.
fn sends(agent: &Agent<FakeDataplane>) -> Option<bool> {
    agent.dataplane.links.uplinks.get(&2).map(|uplink| uplink.flags & Uplink::SENDS_FRAMES != 0)
}

#[test]
fn a_driver_is_attached_last_and_detached_first() {
    let (mut agent, now) = with_uplink(Xdp::Auto, FakeLinks::default());
    assert_eq!(agent.dataplane.links.calls, [""; 0]);
    complete(&mut agent, now);
    assert_eq!(agent.dataplane.links.calls, ["attach 2", "attach 3", "attach driver 2"]);
    assert_eq!((&agent.dataplane.links.drivers, sends(&agent)), (&[(2, Mode::Native)].into(), Some(true)));
    assert_eq!((agent.status(now).ready(), agent.status(now).drivers), (Ok(()), vec![Mode::Native]));
    // An ordinary event renews nothing, a relist does.
    agent.dataplane.links.calls.clear();
    agent.link_events(vec![pod(3)], now);
    assert_eq!(agent.dataplane.links.calls, [""; 0]);
    agent.link_events(everything(&[2, 3]), now);
    // The route is gone with the list: a pod by then.
    assert_eq!(agent.dataplane.links.calls, ["detach driver 2", "detach 2", "attach 2", "attach 3"]);
    assert_eq!((sends(&agent), agent.dataplane.links.drivers.len()), (None, 0));
    agent.dataplane.links.calls.clear();
    agent.link_events(vec![Event::DefaultRoutes([2].into())], now);
    agent.link_events(vec![Event::LinkGone(2)], now);
    assert_eq!(agent.dataplane.links.calls, ["detach 2", "attach 2", "attach driver 2", "detach 2"]);
    assert_eq!((sends(&agent), agent.dataplane.links.drivers.len()), (None, 0));
}

#[test]
fn without_the_setting_no_driver_is_asked() {
    let (mut agent, now) = with_uplink(Xdp::Off, FakeLinks::default());
    agent.drivers.ask = |_| panic!("asked");
    complete(&mut agent, now);
    assert_eq!(agent.dataplane.links.calls, ["attach 2", "attach 3"]);
    assert_eq!((sends(&agent), agent.status(now).judgements.left_to_tc.len()), (Some(false), 0));
}

#[test]
fn a_driver_that_refuses_is_told_and_hurts_nothing() {
    let refusing_drivers = [2].into();
    let (mut agent, now) = with_uplink(Xdp::Native, FakeLinks { refusing_drivers, ..FakeLinks::default() });
    complete(&mut agent, now);
    assert_eq!((indexes(&agent), sends(&agent), agent.status(now).ready()), (vec![2, 3], Some(false), Ok(())));
    let told = warnings(&agent, now);
    assert!(told.len() == 1 && told[0].starts_with("interface veth2: the driver runs no program"), "{told:?}");
    assert!(told[0].contains("not this driver"), "{told:?}");
    assert!(agent.status(now).judgements.left_to_tc[&2].contains("not this driver"));
    // Events do not bother it again, time does.
    agent.dataplane.links.calls.clear();
    agent.link_events(vec![pod(4)], now);
    assert_eq!(agent.dataplane.links.calls, ["attach 4"]);
    assert_eq!(warnings(&agent, now).len(), 1);
    let next = agent.next_turn();
    assert!(next > now && next < now + Duration::from_secs(1));
    assert!(!agent.turn(next));
    assert!(agent.dataplane.links.calls.contains(&"attach driver 2".to_owned()));
    agent.dataplane.links.refusing_drivers.clear();
    let next = agent.next_turn();
    assert!(!agent.turn(next));
    assert_eq!((sends(&agent), warnings(&agent, next), agent.dataplane.links.drivers.len()), (Some(true), vec![], 1));
    assert!(agent.status(next).judgements.left_to_tc.is_empty());
}

#[test]
fn adopted_drivers_stay_and_those_in_another_mode_are_attached_anew() {
    for (found, calls) in [
        (Mode::Native, &["attach 2", "attach 3", "attach driver 2"][..]),
        (Mode::Generic, &["detach driver 2", "attach 2", "attach 3", "attach driver 2"]),
    ] {
        let attached = [(2, Class::Uplink, LinkHeader::Ethernet)].into();
        let links = FakeLinks { attached, drivers: [(2, found)].into(), ..FakeLinks::default() };
        let (mut agent, now) = with_uplink(Xdp::Auto, links);
        assert_eq!(agent.dataplane.links.calls, [""; 0], "they wait for the tables");
        complete(&mut agent, now);
        assert_eq!(agent.dataplane.links.calls, calls);
        assert_eq!((&agent.dataplane.links.drivers, sends(&agent)), (&[(2, Mode::Native)].into(), Some(true)));
    }
}

#[test]
fn what_auto_leaves_out_is_shown() {
    let (mut agent, now) = with_uplink(Xdp::Auto, FakeLinks::default());
    agent.drivers.ask = |_| Ok(card("veth"));
    complete(&mut agent, now);
    assert_eq!((agent.dataplane.links.drivers.len(), sends(&agent)), (0, Some(false)));
    let left: Vec<_> = agent.status(now).judgements.left_to_tc.values().cloned().collect();
    assert_eq!(
        (left, warnings(&agent, now)),
        (vec!["its driver veth is not known to complete checksums and to redirect frames".to_owned()], vec![])
    );
    // It becomes a port of a bridge, and asking would change nothing.
    agent.drivers.ask = |_| panic!("asked");
    let port = LinkFacts { controller: Some(9), ..LinkFacts::pod_veth(2, "veth2") };
    agent.link_events(vec![Event::Link(port)], now);
    let left = &agent.status(now).judgements.left_to_tc;
    assert_eq!(left.values().collect::<Vec<_>>(), ["a port of 9"]);
}
