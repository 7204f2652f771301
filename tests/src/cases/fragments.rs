//! Fragments: in order, out of order, of unrelated datagrams, and parked too long (PR-01).

use std::net::IpAddr;

use lb_common::addr::Proto;
use lb_common::fragment::FRAGMENT_SECS;
use lb_common::packet::PARKED_LEN_MAX;
use lb_common::table::{AddressBit, Counter, Role, Scope};
use lb_common::verdict::HookAction;

use super::Case;
use super::scene::{Net, SYN, Scene, UDP};
use crate::machine::{ADDRESS_WORDS, PARKED_MAX, Program};
use crate::packet::{Answer, Described, End, cut, read};

pub const CASES: &[Case] = &[
    ("fragments_follow_their_first", fragments_follow_their_first),
    ("fragments_share_the_fate_of_their_first", fragments_share_the_fate_of_their_first),
    ("fragments_come_back", fragments_come_back),
    ("fragments_of_an_answer_to_itself_come_back", fragments_of_an_answer_to_itself_come_back),
    ("fragments_of_a_stranger_pass", fragments_of_a_stranger_pass),
    ("fragments_wait_for_their_first", fragments_wait_for_their_first),
    ("fragments_of_replies_wait", fragments_of_replies_wait),
    ("fragments_that_wait_share_every_fate", fragments_that_wait_share_every_fate),
    ("fragments_that_wait_come_back", fragments_that_wait_come_back),
    ("only_what_may_be_ours_waits", only_what_may_be_ours_waits),
    ("who_has_the_bit_of_ours_goes_on_as_it_came", who_has_the_bit_of_ours_goes_on_as_it_came),
    ("hooks_do_not_share_what_waits", hooks_do_not_share_what_waits),
    ("nobody_waits_for_long", nobody_waits_for_long),
    ("notes_grow_old", notes_grow_old),
    ("the_oldest_makes_room", the_oldest_makes_room),
    ("a_first_fragment_without_ports_takes_the_others_along", a_first_fragment_without_ports_takes_the_others_along),
    ("an_extension_header_may_follow_the_fragment_header", an_extension_header_may_follow_the_fragment_header),
    (
        "a_protocol_without_ports_may_follow_an_extension_header",
        a_protocol_without_ports_may_follow_an_extension_header,
    ),
    ("an_ipv6_datagram_is_one_whatever_it_carries", an_ipv6_datagram_is_one_whatever_it_carries),
];

/// The fragment with other addresses, and with the header checksum for them.
fn readdressed(fragment: &Described, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut bytes = fragment.bytes();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes[26..30].copy_from_slice(&from.octets());
            bytes[30..34].copy_from_slice(&to.octets());
            bytes[24..26].fill(0);
            let sum = bytes[14..34].chunks(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum();
            bytes[24..26].copy_from_slice(&(!lb_common::checksum::fold(sum)).to_ne_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            bytes[22..38].copy_from_slice(&from.octets());
            bytes[38..54].copy_from_slice(&to.octets());
        }
        _ => panic!("two families"),
    }
    bytes
}

/// PR-01: the first fragment has the ports, and the others follow it, in both directions.
fn fragments_follow_their_first(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    let first = Described::new(UDP, client, vip).fragment(0, true);
    let Answer::Transport { from, to, .. } = scene.onward(Program::WorkloadIngress, &first.bytes()) else {
        panic!("it has ports")
    };
    assert_eq!((from, to), (client, backend));
    for (offset, more) in [(100, true), (200, false)] {
        let next = Described::new(UDP, client, vip).fragment(offset, more);
        let expected = (HookAction::Next, readdressed(&next, client.0, backend.0));
        assert_eq!(scene.machine().run(Program::WorkloadIngress, &next.bytes()), expected);
        scene.untouched(Program::WorkloadEgress, &next);
    }
    let first = Described::new(UDP, backend, client).fragment(0, true);
    let Answer::Transport { from, to, .. } = scene.onward(Program::WorkloadEgress, &first.bytes()) else {
        panic!("it has ports")
    };
    assert_eq!((from, to), (vip, client));
    let last = Described::new(UDP, backend, client).fragment(100, false);
    let expected = (HookAction::Next, readdressed(&last, vip.0, client.0));
    assert_eq!(scene.machine().run(Program::WorkloadEgress, &last.bytes()), expected);
    let counters = scene.counters();
    assert_eq!((counters[&Counter::FragmentTranslated], counters[&Counter::PassedFragment]), (3, 2));
}

/// If the first fragment is rejected, so are the others; if it passes, the others pass.
fn fragments_share_the_fate_of_their_first(scene: &mut Scene<'_>) {
    let (client, vip) = (scene.net.client(), scene.net.vip());
    let [first, last] = [(0, true), (100, false)].map(|(at, more)| Described::new(UDP, client, vip).fragment(at, more));
    scene.frontend(1, vip, Proto::UDP, Scope::PASS);
    scene.untouched(Program::WorkloadIngress, &first);
    scene.untouched(Program::WorkloadIngress, &last);
    scene.frontend(1, vip, Proto::UDP, Scope::DROP);
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &first.bytes()).0, HookAction::Drop);
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &last.bytes()).0, HookAction::Drop);
    assert_eq!(scene.counters()[&Counter::DropFragment], 1);
    scene.frontend(1, vip, Proto::UDP, Scope::PASS);
    scene.untouched(Program::WorkloadIngress, &first);
    scene.untouched(Program::WorkloadIngress, &last);
}

/// A hairpin datagram.
fn fragments_come_back(scene: &mut Scene<'_>) {
    let (client, vip) = (scene.net.client(), scene.net.vip());
    scene.service(UDP, &[(client.0, 8080)]);
    let [first, last] = [(0, true), (100, false)].map(|(at, more)| Described::new(UDP, client, vip).fragment(at, more));
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &first.bytes()).0, HookAction::SendBack);
    let mut expected = readdressed(&last, vip.0, client.0);
    expected[..12].rotate_left(6);
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &last.bytes()), (HookAction::SendBack, expected));
}

/// The answer of a hairpin datagram, for which the other hook of the same interface keeps the record.
fn fragments_of_an_answer_to_itself_come_back(scene: &mut Scene<'_>) {
    let (client, vip) = (scene.net.client(), scene.net.vip());
    let pod = (client.0, 8080);
    scene.service(UDP, &[pod]);
    let request = Described::new(UDP, client, vip).bytes();
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &request).0, HookAction::SendBack);
    let to = (vip.0, client.1);
    let [first, last] = [(0, true), (100, false)].map(|(at, more)| Described::new(UDP, pod, to).fragment(at, more));
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &first.bytes()).0, HookAction::SendBack);
    let mut expected = readdressed(&last, vip.0, client.0);
    expected[..12].rotate_left(6);
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &last.bytes()), (HookAction::SendBack, expected));
}

/// A datagram to no frontend that reuses the identification of an earlier one to a frontend. Other packets come
/// between.
fn fragments_of_a_stranger_pass(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    let fragments = |to| [(0, true), (100, false)].map(|(at, more)| Described::new(UDP, client, to).fragment(at, more));
    let [first, _] = fragments(vip);
    scene.onward(Program::WorkloadIngress, &first.bytes());
    scene.through(Program::UplinkIngress, UDP, client, vip);
    let [first, last] = fragments((vip.0, 9));
    scene.untouched(Program::WorkloadIngress, &first);
    scene.untouched(Program::WorkloadIngress, &last);
}

fn fragment(from: End, to: End, offset: u16, more: bool) -> Described {
    let mut fragment = Described::new(UDP, from, to).fragment(offset, more);
    // Each payload identifies its fragment.
    fragment.payload = format!("payload at {offset:>6}").into_bytes();
    fragment
}

/// Runs fragments that must be parked.
fn wait(scene: &mut Scene<'_>, program: Program, fragments: &[Described]) {
    for fragment in fragments {
        let (action, _) = scene.machine().run(program, &fragment.bytes());
        assert_eq!((action, scene.machine().replayed()), (HookAction::Drop, Vec::new()), "{fragment:?}");
    }
}

/// Sends fragments before the first one, which arrives last. All must get the new source and destination.
fn overtake(scene: &mut Scene<'_>, program: Program, (from, to): (End, End), (new_from, new_to): (End, End)) {
    let before = scene.counters();
    let rest = [(300, false), (100, true), (200, true), (100, true)].map(|(at, more)| fragment(from, to, at, more));
    wait(scene, program, &rest);
    let Answer::Transport { from: source, to: destination, .. } =
        scene.onward(program, &fragment(from, to, 0, true).bytes())
    else {
        panic!("it has ports")
    };
    assert_eq!((source, destination), (new_from, new_to));
    // The latest first; one that was sent twice is re-injected twice.
    let expected: Vec<_> =
        rest.iter().rev().map(|fragment| (HookAction::Next, readdressed(fragment, new_from.0, new_to.0))).collect();
    assert_eq!(scene.machine().replayed(), expected);
    // Later fragments are not parked, and nothing is re-injected twice.
    let last = fragment(from, to, 400, true);
    let expected = (HookAction::Next, readdressed(&last, new_from.0, new_to.0));
    assert_eq!(scene.machine().run(program, &last.bytes()), expected);
    scene.onward(program, &fragment(from, to, 0, true).bytes());
    assert_eq!(scene.machine().replayed(), []);
    let counters = scene.counters();
    let counted = |counter| counters[&counter] - before.get(&counter).copied().unwrap_or(0);
    assert_eq!(
        [Counter::FragmentParked, Counter::FragmentReplayed, Counter::FragmentTranslated].map(counted),
        [4, 5, 5],
        "four waited, and went on behind the first"
    );
}

fn fragments_wait_for_their_first(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    overtake(scene, Program::WorkloadIngress, (client, vip), (client, backend));
    overtake(scene, Program::UplinkIngress, (client, vip), (client, backend));
    // Two scenes with two first fragments each. A first fragment for which others are parked is also decided only once.
    assert_eq!(scene.counters()[&Counter::RequestTranslated], 4);
    assert_eq!(scene.counters()[&Counter::FlowCreated], 2);
}

fn fragments_of_replies_wait(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    scene.request(UDP);
    overtake(scene, Program::WorkloadEgress, (backend, client), (vip, client));
    scene.through(Program::UplinkIngress, UDP, client, vip);
    overtake(scene, Program::UplinkEgress, (backend, client), (vip, client));
}

/// If the first fragment passes, the parked ones pass unchanged; if it is dropped or rejected, they are dropped.
fn fragments_that_wait_share_every_fate(scene: &mut Scene<'_>) {
    let (client, vip) = (scene.net.client(), scene.net.vip());
    let [first, rest @ ..] = [(0, true), (200, false), (100, true)].map(|(at, more)| fragment(client, vip, at, more));
    let program = Program::WorkloadIngress;
    scene.frontend(1, vip, Proto::UDP, Scope::PASS);
    wait(scene, program, &rest);
    scene.untouched(program, &first);
    let as_they_came: Vec<_> = rest.iter().rev().map(|fragment| (HookAction::Next, fragment.bytes())).collect();
    assert_eq!(scene.machine().replayed(), as_they_came);
    // Fragments in order pass as well, and none is parked.
    for fragment in &rest {
        scene.untouched(program, fragment);
    }
    scene.machine().age_flows(FRAGMENT_SECS);
    scene.frontend(1, vip, Proto::UDP, Scope::DROP);
    wait(scene, program, &rest);
    let dropped_with_it: Vec<_> = as_they_came.into_iter().map(|(_, bytes)| (HookAction::Drop, bytes)).collect();
    for (scope, action, dropped) in [(Scope::DROP, HookAction::Drop, 3), (Scope::REJECT, HookAction::SendBack, 6)] {
        scene.frontend(1, vip, Proto::UDP, scope);
        assert_eq!(scene.machine().run(program, &first.bytes()).0, action);
        assert_eq!(scene.machine().replayed(), dropped_with_it);
        assert_eq!(scene.machine().run(program, &rest[0].bytes()).0, HookAction::Drop);
        assert_eq!(scene.counters()[&Counter::DropFragment], dropped);
        scene.machine().age_flows(FRAGMENT_SECS);
        wait(scene, program, &rest);
    }
    assert_eq!([Counter::Rejected, Counter::DropNoLocalEndpoint].map(|counter| scene.counters()[&counter]), [1, 1]);
}

/// A hairpin datagram, and its answer.
fn fragments_that_wait_come_back(scene: &mut Scene<'_>) {
    let (client, vip) = (scene.net.client(), scene.net.vip());
    let backend = (client.0, 8080);
    scene.service(UDP, &[backend]);
    for (from, to, new) in [(client, vip, (vip.0, client.0)), (backend, (vip.0, client.1), (vip.0, client.0))] {
        let [first, last] = [(0, true), (100, false)].map(|(at, more)| fragment(from, to, at, more));
        wait(scene, Program::WorkloadIngress, std::slice::from_ref(&last));
        assert_eq!(scene.machine().run(Program::WorkloadIngress, &first.bytes()).0, HookAction::SendBack);
        let mut expected = readdressed(&last, new.0, new.1);
        expected[..12].rotate_left(6);
        assert_eq!(scene.machine().replayed(), [(HookAction::SendBack, expected)], "{from:?} -> {to:?}");
        scene.machine().age_flows(FRAGMENT_SECS);
    }
}

/// Fragments between other addresses pass unchanged and unparked, and so do those that are too long to be parked.
fn only_what_may_be_ours_waits(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    let stranger = (scene.net.host(77), 80);
    for (program, from, to) in [
        (Program::WorkloadIngress, client, stranger),
        (Program::WorkloadIngress, client, backend),
        (Program::UplinkIngress, vip, client),
        (Program::WorkloadEgress, stranger, client),
        (Program::UplinkEgress, client, backend),
    ] {
        scene.untouched(program, &fragment(from, to, 100, false));
    }
    let mut long = fragment(client, vip, 100, false);
    let header_len = long.bytes().len() - 14 - long.payload.len();
    long.payload = vec![b'x'; PARKED_LEN_MAX - header_len + 1];
    scene.untouched(Program::WorkloadIngress, &long);
    assert_eq!(scene.counters()[&Counter::PassedFragment], 6);
    assert_eq!(scene.counters().get(&Counter::FragmentParked), None);
    long.payload.pop();
    wait(scene, Program::WorkloadIngress, &[long.clone()]);
    scene.onward(Program::WorkloadIngress, &fragment(client, vip, 0, true).bytes());
    let expected = (HookAction::Next, readdressed(&long, client.0, backend.0));
    assert_eq!(scene.machine().replayed(), [expected], "as long as may be");
}

/// An address that is neither a frontend's nor an endpoint's, but shares its bit with one.
fn twin(net: Net, of: IpAddr, role: Role) -> IpAddr {
    let bit = |addr| match addr {
        IpAddr::V4(addr) => AddressBit::of(&addr.octets(), role, ADDRESS_WORDS),
        IpAddr::V6(addr) => AddressBit::of(&addr.octets(), role, ADDRESS_WORDS),
    };
    let mut others = (0_u32..).map(|number| match net {
        Net::V4 => IpAddr::V4((0x0b00_0000 + number).into()),
        Net::V6 => IpAddr::V6(((0x2001_0db8_u128 << 96) + u128::from(number)).into()),
    });
    others.find(|other| bit(*other) == bit(of)).expect("there are more addresses than bits")
}

/// Fragments of such an address are treated like those of a Service's address on another port: in any order, all pass
/// unchanged, the first fragment before the others.
fn who_has_the_bit_of_ours_goes_on_as_it_came(scene: &mut Scene<'_>) {
    let (net, client, vip, backend) = (scene.net, scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    let to = [(twin(net, vip.0, Role::Frontend), 80), (vip.0, 9)];
    let from = [(twin(net, backend.0, Role::Endpoint), 8080), (backend.0, 9)];
    let requests = [Program::WorkloadIngress, Program::UplinkIngress]
        .into_iter()
        .flat_map(|program| to.map(|to| (program, client, to)));
    let replies = [Program::WorkloadEgress, Program::UplinkEgress]
        .into_iter()
        .flat_map(|program| from.map(|from| (program, from, client)));
    for (program, from, to) in requests.chain(replies) {
        let before = scene.counters();
        scene.untouched(program, &Described::new(UDP, from, to));
        let [first, rest @ ..] = [(0, true), (200, false), (100, true)].map(|(at, more)| fragment(from, to, at, more));
        scene.untouched(program, &first);
        for fragment in &rest {
            scene.untouched(program, fragment);
        }
        scene.machine().age_flows(FRAGMENT_SECS);
        wait(scene, program, &rest);
        scene.untouched(program, &first);
        let as_they_came: Vec<_> = rest.iter().rev().map(|fragment| (HookAction::Next, fragment.bytes())).collect();
        assert_eq!(scene.machine().replayed(), as_they_came, "{program:?} {from:?} -> {to:?}");
        let counters = scene.counters();
        let counted = |counter| counters.get(&counter).unwrap_or(&0) - before.get(&counter).unwrap_or(&0);
        assert_eq!(
            [Counter::FragmentParked, Counter::FragmentReplayed, Counter::PassedFragment].map(counted),
            [2, 3, 4]
        );
        scene.machine().age_flows(FRAGMENT_SECS);
    }
    assert!(scene.machine().flows().is_empty());
}

/// What is parked at one edge, or in one direction, is not re-injected at another.
fn hooks_do_not_share_what_waits(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    let [first, last] = [(0, true), (100, false)].map(|(at, more)| fragment(client, vip, at, more));
    wait(scene, Program::UplinkIngress, std::slice::from_ref(&last));
    scene.onward(Program::WorkloadIngress, &first.bytes());
    assert_eq!(scene.machine().replayed(), []);
    scene.onward(Program::UplinkIngress, &first.bytes());
    assert_eq!(scene.machine().replayed(), [(HookAction::Next, readdressed(&last, client.0, backend.0))]);
}

/// Identifications are reused: a fragment that is parked for an earlier datagram must not get into a later one.
fn nobody_waits_for_long(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    let [first, old, young] = [(0, true), (100, true), (200, false)].map(|(at, more)| fragment(client, vip, at, more));
    wait(scene, Program::WorkloadIngress, &[old]);
    scene.machine().age_flows(FRAGMENT_SECS);
    scene.onward(Program::WorkloadIngress, &first.bytes());
    assert_eq!(scene.machine().replayed(), []);
    scene.machine().age_flows(FRAGMENT_SECS);
    // A newly parked fragment does not bring the stale one along.
    wait(scene, Program::WorkloadIngress, std::slice::from_ref(&young));
    scene.onward(Program::WorkloadIngress, &first.bytes());
    assert_eq!(scene.machine().replayed(), [(HookAction::Next, readdressed(&young, client.0, backend.0))]);
}

/// A fragment must not follow the first fragment of an earlier datagram with the same identification.
fn notes_grow_old(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    let [first, last] = [(0, true), (100, false)].map(|(at, more)| fragment(client, vip, at, more));
    scene.onward(Program::WorkloadIngress, &first.bytes());
    let follows = (HookAction::Next, readdressed(&last, client.0, backend.0));
    for _ in 0..3 {
        // Each later fragment refreshes the record.
        scene.machine().age_flows(FRAGMENT_SECS - 1);
        assert_eq!(scene.machine().run(Program::WorkloadIngress, &last.bytes()), follows);
    }
    scene.machine().age_flows(FRAGMENT_SECS);
    wait(scene, Program::WorkloadIngress, &[last]);
}

/// No more fragments are parked than there are places. The oldest is dropped and counted.
fn the_oldest_makes_room(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    let places = u16::try_from(PARKED_MAX).expect("a small ring");
    let before = scene.counters().get(&Counter::DropParked).copied().unwrap_or(0);
    let rest: Vec<_> = (1..=places + 3).map(|at| fragment(client, vip, at * 10, true)).collect();
    wait(scene, Program::WorkloadIngress, &rest);
    scene.onward(Program::WorkloadIngress, &fragment(client, vip, 0, true).bytes());
    let expected: Vec<_> =
        rest[3..].iter().rev().map(|fragment| (HookAction::Next, readdressed(fragment, client.0, backend.0))).collect();
    assert_eq!(scene.machine().replayed(), expected);
    // Parked fragments may be left over from earlier cases.
    assert!(scene.counters()[&Counter::DropParked] >= before + 3);
}

/// RFC 1858: a first fragment that ends before the ports or the flags passes, and so do the others, in any order.
fn a_first_fragment_without_ports_takes_the_others_along(scene: &mut Scene<'_>) {
    let (net, program) = (scene.net, Program::WorkloadIngress);
    scene.service(SYN, &[net.backend()]);
    let whole = Described::new(SYN, net.client(), net.vip()).bytes();
    let l4 = if net == Net::V4 { 34 } else { 54 };
    for (id, first_len) in [(1, 8), (2, 16)] {
        let [first, rest @ ..] = &cut(&whole, l4, id, first_len)[..] else { panic!("no fragments") };
        for fragment in [first].into_iter().chain(rest).chain(rest) {
            assert_eq!(scene.machine().run(program, fragment), (HookAction::Next, fragment.clone()), "in order");
        }
        scene.machine().age_flows(FRAGMENT_SECS);
        for fragment in rest {
            assert_eq!(scene.machine().run(program, fragment).0, HookAction::Drop, "it waits");
        }
        assert_eq!(scene.machine().run(program, first), (HookAction::Next, first.clone()), "overtaken");
        let behind: Vec<_> = rest.iter().rev().map(|fragment| (HookAction::Next, fragment.clone())).collect();
        assert_eq!(scene.machine().replayed(), behind);
    }
    assert!(scene.machine().flows().is_empty());
    let counters = scene.counters();
    assert_eq!(counters[&Counter::FragmentParked], 3);
    assert_eq!(counters[&Counter::PassedFragment], (5 + 3) + (3 + 2), "all that passed, the first ones among them");
    // Fragments to an address of no Service are not parked.
    let stranger = Described::new(SYN, net.client(), (net.host(77), 80)).bytes();
    for fragment in cut(&stranger, l4, 3, 8).iter().rev() {
        assert_eq!(scene.machine().run(program, fragment), (HookAction::Next, fragment.clone()));
    }
}

/// RFC 8200 section 4.5: the headers behind the fragment header are fragmented as well. Later fragments name the
/// extension header, not the transport behind it.
fn an_extension_header_may_follow_the_fragment_header(scene: &mut Scene<'_>) {
    if scene.net == Net::V4 {
        return;
    }
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    for (extension, options_len) in [(60, 6), (43, 14), (51, 14)] {
        let [first, last] = [(0, true), (100, false)].map(|(at, more)| {
            let fragment = fragment(client, vip, at, more).options_len(options_len).extension(extension);
            Described { is_extension_cut: true, ..fragment }
        });
        for order in [[&first, &last], [&last, &first]] {
            let mut went_on = Vec::new();
            for fragment in order {
                let outcome = scene.machine().run(Program::WorkloadIngress, &fragment.bytes());
                went_on.push(outcome);
                went_on.extend(scene.machine().replayed());
            }
            went_on.retain(|(action, _)| *action == HookAction::Next);
            let [.., behind] = &went_on[..] else { panic!("nothing went on") };
            assert_eq!((went_on.len(), &behind.1), (2, &readdressed(&last, client.0, backend.0)), "{extension}");
            assert_eq!(read(&went_on[0].1).ends(), Some((client, backend)));
            scene.machine().age_flows(FRAGMENT_SECS);
        }
    }
}

/// The protocol behind such an extension header may have no ports, such as ESP: all of its fragments pass unchanged.
fn a_protocol_without_ports_may_follow_an_extension_header(scene: &mut Scene<'_>) {
    if scene.net == Net::V4 {
        return;
    }
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    for (program, from, to) in [(Program::WorkloadIngress, client, vip), (Program::WorkloadEgress, backend, client)] {
        let [mut first, last] = [(0, true), (100, false)].map(|(at, more)| {
            let fragment = fragment(from, to, at, more).options_len(6).extension(60);
            Described { is_extension_cut: true, ..fragment }.bytes()
        });
        // The next header of the extension header, which follows those of Ethernet, IPv6 and the fragment: ESP.
        first[14 + 40 + 8] = 50;
        for order in [[&first, &last], [&last, &first]] {
            let mut went_on = Vec::new();
            for fragment in order {
                went_on.push(scene.machine().run(program, fragment));
                went_on.extend(scene.machine().replayed());
            }
            went_on.retain(|(action, _)| *action == HookAction::Next);
            assert_eq!(went_on, [first.clone(), last.clone()].map(|bytes| (HookAction::Next, bytes)), "{program:?}");
            scene.machine().age_flows(FRAGMENT_SECS);
        }
    }
}

/// An IPv6 identification is shared by all protocols; IPv4 has one for each protocol (RFC 791).
fn an_ipv6_datagram_is_one_whatever_it_carries(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    scene.onward(Program::WorkloadIngress, &fragment(client, vip, 0, true).bytes());
    let other = Described { transport: SYN, ..fragment(client, vip, 100, false) };
    let expected = match scene.net {
        Net::V4 => (HookAction::Drop, other.bytes()),
        Net::V6 => (HookAction::Next, readdressed(&other, client.0, backend.0)),
    };
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &other.bytes()), expected);
}
