//! A pod that reaches itself, from its endpoint address and from another address.

use lb_common::verdict::HookAction;

use super::Case;
use super::scene::{ACK, SYN, SYN_ACK, Scene, UDP};
use crate::machine::{BRIDGED, EDGE, Program};
use crate::packet::{Answer, CLIENT_MAC, Described, NODE_MAC};

pub const CASES: &[Case] = &[
    ("pod_reaches_itself", pod_reaches_itself),
    ("pod_reaches_itself_from_another_address", pod_reaches_itself_from_another_address),
    ("pod_reaches_itself_over_its_bridge", pod_reaches_itself_over_its_bridge),
    ("only_an_unanswered_request_comes_home", only_an_unanswered_request_comes_home),
];

/// HP-01 and similar, without masquerading: the pod sees the frontend's address as its peer.
fn pod_reaches_itself(scene: &mut Scene<'_>) {
    let (client, vip) = (scene.net.client(), scene.net.vip());
    let itself = (client.0, 8080);
    for transport in [SYN, UDP] {
        scene.service(transport, &[itself]);
        let (action, request) = scene.run(Program::WorkloadIngress, &Described::new(transport, client, vip));
        assert_eq!(action, HookAction::SendBack);
        assert_eq!((request.source_mac, request.destination_mac), (NODE_MAC, CLIENT_MAC));
        let Answer::Transport { from, to, .. } = request.answer else { panic!("no ports: {request:?}") };
        assert_eq!((from, to), ((vip.0, client.1), itself));
        scene.machine().set_came_by(EDGE);
        scene.untouched(Program::WorkloadEgress, &Described::new(transport, from, to));
        let answer = if transport == SYN { SYN_ACK } else { UDP };
        let (action, reply) = scene.run(Program::WorkloadIngress, &Described::new(answer, to, from));
        assert_eq!(action, HookAction::SendBack);
        let Answer::Transport { from, to, .. } = reply.answer else { panic!("no ports: {reply:?}") };
        assert_eq!((from, to), (vip, client));
    }
}

/// The backend is another address of the client's pod: the node delivers the request to the interface from which it
/// came.
fn pod_reaches_itself_from_another_address(scene: &mut Scene<'_>) {
    comes_home(scene, EDGE);
}

fn pod_reaches_itself_over_its_bridge(scene: &mut Scene<'_>) {
    scene.machine().set_port(BRIDGED);
    comes_home(scene, BRIDGED.bridge);
}

fn comes_home(scene: &mut Scene<'_>, came_by: u32) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    let other_client = (scene.net.host(3), client.1);
    scene.machine().set_came_by(came_by);
    for transport in [SYN, UDP] {
        let answer = if transport == SYN { SYN_ACK } else { UDP };
        scene.service(transport, &[backend]);
        assert_eq!(scene.request(transport), (client, backend));
        let home = scene.through(Program::WorkloadEgress, transport, client, backend);
        assert_eq!(home, ((vip.0, client.1), backend), "the frontend's address dials");
        let reflected = |scene: &mut Scene<'_>, transport, from, to| {
            let (action, sent) = scene.run(Program::WorkloadIngress, &Described::new(transport, from, to));
            let Answer::Transport { from, to, .. } = sent.answer else { panic!("no ports: {sent:?}") };
            (action, (from, to))
        };
        assert_eq!(reflected(scene, answer, backend, home.0), (HookAction::SendBack, (vip, client)));
        if transport == UDP {
            // An unbound socket answers from the address from which an unbound client dials.
            let answered = reflected(scene, answer, (client.0, backend.1), home.0);
            assert_eq!(answered, (HookAction::SendBack, (vip, client)));
        }
        // From now on like any hairpin flow.
        let next = if transport == SYN { ACK } else { UDP };
        assert_eq!(reflected(scene, next, client, vip), (HookAction::SendBack, home));
        // Another address of the pod dials from the same port, which is taken now.
        let twin = (other_client, backend);
        assert_eq!(scene.through(Program::WorkloadIngress, transport, other_client, vip), twin);
        let (from, to) = scene.through(Program::WorkloadEgress, transport, other_client, backend);
        assert_eq!((from.0, to), (vip.0, backend));
        assert!(from.1 != client.1 && from.1 >= 0x8000, "{from:?}");
        assert_eq!(reflected(scene, answer, backend, from), (HookAction::SendBack, (vip, other_client)));
    }
    assert_eq!(scene.machine().flows().len(), 2 * 2 + 2 * 3, "nothing is left of the flows as they were");
}

fn only_an_unanswered_request_comes_home(scene: &mut Scene<'_>) {
    let (client, backend) = (scene.net.client(), scene.net.backend());
    for (transport, answer) in [(SYN, SYN_ACK), (UDP, UDP)] {
        scene.service(transport, &[backend]);
        scene.request(transport);
        let home = Described::new(transport, client, backend);
        // From the node itself or the network, and from another pod.
        for came_by in [0, 7] {
            scene.machine().set_came_by(came_by);
            scene.untouched(Program::WorkloadEgress, &home);
        }
        scene.machine().set_came_by(EDGE);
        scene.untouched(Program::UplinkEgress, &home);
        scene.untouched(Program::WorkloadEgress, &Described::new(transport, (client.0, client.1 + 1), backend));
        scene.reply(answer, backend);
        scene.untouched(Program::WorkloadEgress, &home);
        // A direct connection keeps its tuple.
        let direct = (client.0, client.1 + 2);
        scene.through(Program::WorkloadIngress, transport, direct, backend);
        scene.untouched(Program::WorkloadEgress, &Described::new(transport, direct, backend));
    }
}
