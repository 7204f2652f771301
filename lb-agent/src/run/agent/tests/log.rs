//! Lines of the log: one for each change, none while nothing changes.

use super::*;
use crate::tail::Tail;

/// What is logged at the default level meanwhile, without times.
fn logged(act: impl FnOnce()) -> Vec<String> {
    let tail = Tail::default();
    let kept = tail.clone();
    let subscriber = tracing_subscriber::fmt().without_time().with_ansi(false).with_target(false);
    tracing::subscriber::with_default(subscriber.with_writer(move || kept.writer()).finish(), act);
    tail.text().lines().map(|line| line.trim().to_owned()).collect()
}

/// Turns so often, each time when the next turn is due. Returns the time of the last one.
fn turns(agent: &mut Agent<FakeDataplane>, mut now: Instant, count: usize) -> Instant {
    for _ in 0..count {
        now = now.max(agent.next_turn());
        if agent.turn(now) {
            agent.link_events(everything(&[2]), now);
        }
    }
    now
}

/// An agent with a pod and a Service.
fn busy() -> (Agent<FakeDataplane>, Instant) {
    let (mut agent, now) = agent(FakeDataplane::default());
    agent.link_events(everything(&[2]), now);
    agent.change(vec![service("shop", "192.0.2.10"), Change::Listed], now);
    let now = settle(&mut agent, now);
    (agent, now)
}

#[track_caller]
fn are(lines: &[String], wanted: &[&str]) {
    let is_right = lines.len() == wanted.len() && lines.iter().zip(wanted).all(|(line, words)| line.contains(words));
    assert!(is_right, "wanted {wanted:?}: {lines:#?}");
}

#[test]
fn nothing_is_logged_while_nothing_changes() {
    let (mut agent, mut now) = busy();
    let mut audits = 0;
    let lines = logged(|| {
        for _ in 0..50 {
            // An object that is sent again is no change.
            agent.change(vec![service("shop", "192.0.2.10")], now);
            now = now.max(agent.next_turn()) + LOOK_INTERVAL;
            // An apply, and whatever else is due.
            for _ in 0..3 {
                if agent.turn(now) {
                    audits += 1;
                    agent.link_events(everything(&[2]), now);
                }
            }
            now += Duration::from_secs(30);
        }
    });
    assert!(audits > 2, "{audits}");
    are(&lines, &[]);
}

#[test]
fn each_change_is_a_line() {
    let (mut agent, mut now) = busy();
    are(&logged(|| agent.link_events(vec![pod(5)], now)), &["INFO attached interface=\"veth5\" ifindex=5"]);
    are(
        &logged(|| agent.link_events(vec![Event::LinkGone(5)], now)),
        &["INFO detached: the interface is gone interface=\"veth5\" ifindex=5"],
    );
    let lines = logged(|| {
        agent.change(vec![service("shop", "192.0.2.11")], now);
        now = settle(&mut agent, now);
    });
    // The old address is kept until no flow uses it.
    are(&lines, &["INFO applied services=1", "INFO applied services=0"]);
}

#[test]
fn a_trouble_that_stays_is_told_once() {
    let (mut agent, mut now) = busy();
    agent.dataplane.links.refusing = [7].into();
    let lines = logged(|| {
        agent.link_events(vec![pod(7)], now);
        now = turns(&mut agent, now, 5);
    });
    are(&lines, &["WARN interface veth7: "]);
    agent.dataplane.links.refusing.clear();
    let lines = logged(|| now = turns(&mut agent, now, 1));
    are(&lines, &["INFO attached interface=\"veth7\"", "INFO warnings no longer apply"]);

    agent.dataplane.refuse(|_| true);
    let lines = logged(|| {
        agent.change(vec![service("other", "192.0.2.12")], now);
        now = turns(&mut agent, now, 5);
    });
    are(&lines, &["WARN applied in part, trying again later", "WARN not written"]);
    agent.dataplane.refuse(|_| false);
    let lines = logged(|| now = turns(&mut agent, now, 1));
    are(&lines, &["INFO applied"]);
}

#[test]
fn a_start_that_fails_in_the_same_way_is_told_once() {
    let (mut agent, now) = agent(FakeDataplane::with(FakeLinks { fails_to_activate: true, ..FakeLinks::default() }));
    let lines = logged(|| {
        agent.link_events(everything(&[2]), now);
        agent.change(vec![Change::Listed], now);
        turns(&mut agent, now, 5);
    });
    are(&lines, &["ERROR the programs could not be activated, trying again later"]);
}
