//! Warnings about the node: missing interfaces, refused interfaces, and other programs before ours.

use super::*;

#[test]
fn ready_waits_for_an_interface_of_each_list_of_globs() {
    let named = |name: &str| Event::Link(LinkFacts::pod_veth(7, name));
    for (workload, uplink, flag) in [
        ("cali*,lxc*", "none", "--workload-interfaces"),
        ("auto", "cali*,lxc*", "--uplink-interfaces"),
        ("veth2", "cali*,lxc*", "--uplink-interfaces"),
    ] {
        let rules =
            InterfaceRules { workload: workload.parse().expect("globs"), uplink: uplink.parse().expect("globs") };
        let (mut agent, now) = agent_with(FakeDataplane::default(), &Config { interfaces: rules, ..config() });
        agent.link_events(everything(&[2, 3]), now);
        agent.change(vec![Change::Listed], now);
        assert!(!agent.turn(now));
        let reason = agent.status(now).ready().expect_err("nothing is served by it");
        for word in [flag, "no interface matches cali*", "no interface matches lxc*", "veth2, veth3"] {
            assert!(reason.contains(word), "{word}: {reason}");
        }
        assert_eq!(warnings(&agent, now).len(), 2);
        agent.link_events(vec![named("cali1")], now);
        assert_eq!(agent.status(now).ready(), Ok(()));
        let left = warnings(&agent, now);
        assert!(left.len() == 1 && left[0].contains("lxc*"), "{left:?}");
        // The last pod goes: a warning, but the node stays ready.
        agent.link_events(vec![Event::LinkGone(7)], now);
        assert_eq!((agent.status(now).ready(), warnings(&agent, now).len()), (Ok(()), 2));
    }
}

#[test]
fn an_empty_node_is_ready_with_auto() {
    let (agent, now) = started(FakeDataplane::default());
    assert_eq!((agent.status(now).ready(), warnings(&agent, now)), (Ok(()), Vec::new()));
}

#[test]
fn sockets_that_are_not_served_are_told() {
    let mut node = FakeDataplane::default();
    node.socket_problem = Some("no root cgroup".to_owned());
    let (agent, now) = started(node);
    let told = warnings(&agent, now);
    assert!(told.len() == 1 && told[0].contains("--socket-lb: the node's own sockets are not served"), "{told:?}");
    assert!(told[0].contains("no root cgroup"), "{told:?}");
    assert_eq!(agent.status(now).ready(), Ok(()));
}

/// A default route by an interface whose link header no program reads is a warning. An interface without a link header
/// is served.
#[test]
fn an_interface_with_another_link_header_is_told() {
    let (mut agent, now) = agent(FakeDataplane::default());
    agent.rules.uplink = Globs::Auto;
    let link =
        |ifindex, name, framing| LinkFacts { framing, kind: LinkKind::Other, ..LinkFacts::pod_veth(ifindex, name) };
    let links = [link(3, "ib0", Framing::Other("INFINIBAND".into())), link(4, "wg0", Framing::NOTHING)];
    agent.link_events(everything(&[2]), now);
    agent.link_events(links.map(Event::Link).into(), now);
    agent.link_events(vec![Event::DefaultRoutes([3, 4].into())], now);
    agent.change(vec![Change::Listed], now);
    assert!(!agent.turn(now));
    let attached = [(2, Class::Workload, LinkHeader::Ethernet), (4, Class::Uplink, LinkHeader::Nothing)];
    assert_eq!(agent.dataplane.links.attached, attached.into());
    let told = warnings(&agent, now);
    assert!(told.len() == 1 && told[0].starts_with("interface ib0: no program is attached"), "{told:?}");
    assert!(told[0].contains("INFINIBAND") && told[0].contains("a default route leaves by it"), "{told:?}");
    // The link header of the same interface changes.
    let link = link(4, "wg0", Framing::ETHERNET);
    let now = settle(&mut agent, now);
    agent.link_events(vec![Event::Link(link)], now);
    assert_eq!(agent.dataplane.links.attached.last(), Some(&(4, Class::Uplink, LinkHeader::Ethernet)));
}

#[test]
fn programs_before_ours_are_told_while_they_are_there() {
    let (mut agent, now) = started(FakeDataplane::default());
    agent.link_events(vec![pod(5)], now);
    let attachment = Attachment {
        ifindex: 5,
        class: Class::Workload,
        hook: crate::dataplane::Hook::Ingress,
        header: LinkHeader::Ethernet,
    };
    let programs = vec![Neighbour::Program(AttachedProgram { id: 12, name: Some("other".into()) })];
    agent.dataplane.links.ahead = vec![Ahead { attachment, programs }];
    let now = now + LOOK_INTERVAL;
    assert!(!agent.turn(now));
    let told = warnings(&agent, now);
    assert!(told.len() == 1 && told[0].starts_with("interface veth5: at ingress"), "{told:?}");
    assert!(told[0].contains("other (id 12)"), "{told:?}");
    agent.dataplane.links.ahead.clear();
    assert!(!agent.turn(now + LOOK_INTERVAL));
    assert!(warnings(&agent, now).is_empty());
}

#[test]
fn an_interface_that_cannot_be_attached_is_told_until_it_can() {
    let refusing = FakeLinks { refusing: [5].into(), ..FakeLinks::default() };
    let (mut agent, now) = started(FakeDataplane::with(refusing));
    agent.link_events(vec![pod(5), pod(6)], now);
    let told = warnings(&agent, now);
    assert!(
        told.len() == 1 && told[0].starts_with("interface veth5: ") && told[0].contains("not this one"),
        "{told:?}"
    );
    agent.dataplane.links.refusing.clear();
    let now = agent.next_turn();
    assert!(!agent.turn(now));
    assert_eq!(agent.dataplane.links.attached.len(), 2);
    assert!(warnings(&agent, now).is_empty());
}

#[test]
fn programs_that_others_removed_are_attached_again() {
    let (mut agent, now) = started(FakeDataplane::default());
    agent.link_events(vec![pod(5), pod(6)], now);
    agent.dataplane.links.lost = [5].into();
    agent.dataplane.links.calls.clear();
    assert!(!agent.turn(now + LOOK_INTERVAL));
    let attached: Vec<_> = agent.dataplane.links.attached.iter().map(|(ifindex, ..)| *ifindex).collect();
    assert_eq!(attached, [5, 6]);
    assert!(agent.dataplane.links.calls.contains(&"attach 5".to_owned()), "{:?}", agent.dataplane.links.calls);
}

#[test]
fn changes_without_end_keep_nobody_from_looking() {
    let (mut agent, start) = started(FakeDataplane::default());
    let attachment = Attachment {
        ifindex: 5,
        class: Class::Workload,
        hook: crate::dataplane::Hook::Egress,
        header: LinkHeader::Ethernet,
    };
    agent.dataplane.links.ahead =
        vec![Ahead { attachment, programs: vec![Neighbour::Program(AttachedProgram { id: 12, name: None })] }];
    let mut now = start;
    while now < start + LOOK_INTERVAL * 2 {
        now += config().times.apply_interval;
        agent.change(vec![node("192.0.2.1")], now);
        assert!(!agent.turn(now));
    }
    let told = warnings(&agent, now);
    assert!(told.len() == 1 && told[0].contains("at egress") && told[0].contains("id 12"), "{told:?}");
}
