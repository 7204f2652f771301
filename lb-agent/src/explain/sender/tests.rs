//! A node with a pod behind a veth, two behind a bridge, a veth that is left out, and an uplink.

use super::*;
use crate::interfaces::Event;

const BRIDGE: u32 = 10;

fn link(ifindex: u32, name: &str) -> LinkFacts {
    LinkFacts::pod_veth(ifindex, name)
}

fn addr(last: u8) -> IpAddr {
    [10, 1, 0, last].into()
}

fn by(ifindex: u32, gateway: bool, port: Option<u32>) -> Way {
    let gateway = gateway.then(|| [192, 0, 2, 1].into());
    Way::By(Hop { ifindex, gateway, port, ..Hop::default() })
}

fn around() -> Around {
    let port = |link: LinkFacts| LinkFacts { controller: Some(BRIDGE), ..link };
    let links = vec![
        LinkFacts { kind: Kind::Hardware, ..link(2, "eth0") },
        link(3, "veth3"),
        link(4, "veth4"),
        LinkFacts { kind: Kind::Bridge, ..link(BRIDGE, "cni0") },
        port(link(11, "veth11")),
        port(link(12, "veth12")),
    ];
    let mut survey = Survey::default();
    survey.interfaces.apply(Event::Everything { links, addresses: Vec::new(), default_routes: [2].into() });
    survey.ways = [
        (addr(1), Way::Here),
        (addr(3), by(3, false, None)),
        (addr(4), by(4, false, None)),
        (addr(11), by(BRIDGE, false, Some(11))),
        (addr(12), by(BRIDGE, false, Some(12))),
        (addr(13), by(BRIDGE, false, None)),
        (addr(20), by(2, true, None)),
        // Behind a pod that is a router.
        (addr(21), by(3, true, None)),
        (addr(22), Way::Nowhere),
    ]
    .into();
    let workloads = [3, 4, 11, 12].map(|ifindex| (ifindex, Class::Workload));
    let by_itself: BTreeMap<u32, Class> = workloads.into_iter().chain([(2, Class::Uplink)]).collect();
    let mut attached = by_itself.clone();
    attached.retain(|ifindex, _| ![4, 12].contains(ifindex));
    let why = [(4, "--workload-interfaces names others".to_owned())].into();
    Around { survey, attached, by_itself, why, known: None }
}

fn found(last: u8) -> Located {
    locate(&Said::Address(addr(last)), &around())
}

#[test]
fn an_address_alone_is_whose_the_routes_say() {
    for (last, kind, interface, unseen) in [
        (1, "host", None, None),
        (3, "pod", Some("veth3"), None),
        (4, "pod", Some("veth4"), Some("names others")),
        (11, "pod", Some("veth11"), None),
        (12, "pod", Some("veth12"), Some("no program is attached to veth12")),
        (13, "pod", Some("a port of cni0"), None),
        (20, "external", Some("eth0"), None),
        (21, "pod", Some("veth3"), None),
        (22, "external", None, None),
    ] {
        let located = found(last);
        assert_eq!(
            (located.sending.kind, located.sending.interface.as_deref()),
            (kind, interface),
            "{last}: {located:?}"
        );
        assert_eq!(located.unseen.is_some(), unseen.is_some(), "{last}: {located:?}");
        assert!(located.unseen.unwrap_or_default().contains(unseen.unwrap_or_default()), "{last}");
    }
    assert!(found(13).notes[0].contains("1 of 2 ports"), "{:?}", found(13).notes);
    assert!(found(22).notes[0].contains("no route"), "{:?}", found(22).notes);
    assert_eq!(found(1).bound, Some(addr(1)));
    assert_eq!(found(21).text, "10.1.0.21, routed by the pod 192.0.2.1 of this node, behind veth3");
}

#[test]
fn without_programs_at_uplinks_the_network_is_unseen() {
    let mut around = around();
    around.attached.remove(&2);
    let located = locate(&Said::Address(addr(20)), &around);
    assert!(located.unseen.is_some_and(|why| why.contains("eth0")));
}

#[test]
fn objects_tell_nodes_and_contradict_routes() {
    let known = |node: &str, service: Option<&str>| {
        let client = Some(Resident { node: Some(node.into()), service: service.map(Into::into) });
        Some(Known { node: "n1".into(), client, ..Known::default() })
    };
    let find = |last, known| locate(&Said::Address(addr(last)), &Around { known, ..around() });
    let remote = find(20, known("n2", Some("shop/web")));
    assert_eq!(remote.text, "10.1.0.20, a pod of node n2, from the network by eth0");
    assert!(remote.notes[0].contains("ask there"), "{:?}", remote.notes);
    assert_eq!(find(20, known("n2", None)).text, "10.1.0.20, the host node n2, from the network by eth0");
    let moved = find(20, known("n1", Some("shop/web")));
    assert!(moved.notes[0].contains("routes do not"), "{:?}", moved.notes);
    let stale = find(3, known("n2", Some("shop/web")));
    assert!(stale.notes[0].contains("on node n2"), "{:?}", stale.notes);
    assert_eq!(find(3, known("n1", Some("shop/web"))).notes, [""; 0]);
}

#[test]
fn what_the_question_says_counts_and_a_note_tells_what_was_found() {
    let say = |text: &str| locate(&text.parse().expect("a sender"), &around());
    assert_eq!(say("pod:10.1.0.3").sending.interface.as_deref(), Some("veth3"));
    assert!(say("pod:10.1.0.4").unseen.is_some());
    let spoofed = say("external:10.1.0.3");
    assert_eq!((spoofed.sending.kind, spoofed.sending.found_by), ("external", "said"));
    assert!(spoofed.notes[0].contains("behind veth3"), "{:?}", spoofed.notes);
    assert!(say("pod:10.1.0.20").notes[0].contains("from the network by eth0"));
    assert!(say("host").notes.is_empty() && say("pod").notes.is_empty());
}
