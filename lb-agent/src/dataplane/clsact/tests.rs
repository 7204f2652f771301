//! Names and places, without a kernel.

use super::*;
use crate::dataplane::links::{Class, LinkHeader};

const IFINDEX: u32 = 12;

fn filters_of(pins: &str) -> Filters {
    Filters { pins: pins.into(), attached: BTreeMap::new() }
}

fn attachment(hook: Hook) -> Attachment {
    Attachment { ifindex: IFINDEX, class: Class::Workload, hook, header: LinkHeader::Ethernet }
}

/// A program of others.
fn program(priority: u16, handle: u32) -> Filter {
    Filter {
        place: Place { priority, handle },
        chain: 0,
        protocol: tc::EVERY_PROTOCOL,
        kind: "bpf".into(),
        name: Some("other.o:[tc]".into()),
        program_id: Some(7),
    }
}

fn flower(priority: u16) -> Filter {
    Filter { protocol: 0x0800, kind: "flower".into(), name: None, program_id: None, ..program(priority, 1) }
}

#[test]
fn a_name_says_whose_the_classifier_and_the_qdisc_are() {
    let ours = filters_of("/sys/fs/bpf/a:b");
    for qdisc in [Qdisc::Ours, Qdisc::Theirs] {
        let named = |filters: &Filters| Filter {
            name: Some(filters.name(attachment(Hook::Egress), qdisc)),
            ..program(1, HANDLE)
        };
        let found = |filter: &Filter| ours.ours(IFINDEX, Hook::Egress, filter);
        let own = named(&ours);
        assert_eq!(found(&own), Some((attachment(Hook::Egress), qdisc)));
        for (what, others) in [
            ("pins of another agent", named(&filters_of("/sys/fs/bpf/a"))),
            ("another handle", Filter { place: Place { priority: 1, handle: 1 }, ..own.clone() }),
            ("another chain", Filter { chain: 1, ..own.clone() }),
            ("no name", Filter { name: None, ..own.clone() }),
            ("the name of another program", program(1, HANDLE)),
        ] {
            assert_eq!(found(&others), None, "{what}");
        }
        assert_eq!(ours.ours(IFINDEX, Hook::Ingress, &own), None, "the name of the other hook");
        assert_eq!(ours.ours(IFINDEX + 1, Hook::Egress, &own), None, "the name of another interface");
    }
}

#[test]
fn ours_run_first_at_ingress_and_last_at_egress() {
    let place = |hook, filters: &[Filter]| free_place(hook, filters).map(|place| place.priority);
    let others = [flower(49_152), program(49_151, 1)];
    assert_eq!((place(Hook::Ingress, &others), place(Hook::Egress, &others)), (Some(1), Some(u16::MAX)));
    let at_the_ends = [flower(1), flower(u16::MAX)];
    assert_eq!((place(Hook::Ingress, &at_the_ends), place(Hook::Egress, &at_the_ends)), (Some(2), Some(u16::MAX - 1)));
    // The kernel puts the newest program of a priority first.
    assert_eq!(place(Hook::Ingress, &[program(1, 1)]), Some(1), "programs can share a priority");
    assert_eq!(place(Hook::Ingress, &[program(1, HANDLE)]), Some(2), "but not a handle");
    assert_eq!(
        place(Hook::Ingress, &[Filter { chain: 5, ..flower(1) }]),
        Some(1),
        "chains have priorities of their own"
    );
    let full: Vec<_> = (1..=u16::MAX).map(flower).collect();
    assert_eq!(place(Hook::Ingress, &full), None);
}
