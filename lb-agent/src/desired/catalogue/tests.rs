//! What is computed once stays, and what depends on other Services follows them.

use super::*;
use crate::desired::tests::{policy, published, slice, world};
use crate::model::{Change, Kind, ObjectRef};

fn name(service: &str) -> ObjectName {
    ObjectName::new("t", service)
}

fn some(services: &[&str]) -> Extent {
    Extent::Services(services.iter().map(|service| name(service)).collect())
}

fn resolved(catalogue: &mut Catalogue, stale: &Extent, world: &World, limits: &TableLimits) -> Vec<String> {
    catalogue.refresh(stale, world, &policy());
    catalogue.resolve(limits, &Incumbents::NONE);
    let unsettled = catalogue.unsettled().iter().map(|name| name.name.to_string()).collect();
    catalogue.settle();
    unsettled
}

fn addresses(catalogue: &Catalogue, service: &str) -> Vec<u8> {
    catalogue.tables(&some(&[service])).v4.frontends.keys().map(|key| key.addr[3]).collect()
}

fn gone(service: &str) -> Change {
    Change::Remove(ObjectRef { kind: Kind::Service, name: name(service) })
}

#[test]
fn only_what_differs_is_unsettled() {
    let mut world = world([published("a", [1, 2, 3, 1]), published("b", [1, 2, 3, 2]), slice("a", 1), slice("b", 1)]);
    let mut catalogue = Catalogue::default();
    let all = &TableLimits::UNLIMITED;
    assert_eq!(resolved(&mut catalogue, &Extent::Everything, &world, all), ["a", "b"]);
    assert_eq!(resolved(&mut catalogue, &some(&[]), &world, all), [""; 0]);
    // Computed again and found equal.
    assert_eq!(resolved(&mut catalogue, &Extent::Everything, &world, all), [""; 0]);
    world.apply(slice("b", 2));
    assert_eq!(resolved(&mut catalogue, &some(&["b"]), &world, all), ["b"]);
    world.apply(gone("a"));
    assert_eq!(resolved(&mut catalogue, &Extent::Everything, &world, all), ["a"]);
    assert!(catalogue.settled(&name("a")).is_none(), "nothing is left of it");
    catalogue.unsettle();
    assert_eq!(resolved(&mut catalogue, &some(&[]), &world, all), ["b"]);
}

#[test]
fn the_loser_of_a_contest_gets_the_address_when_the_winner_leaves() {
    let mut world = world([published("a", [1, 2, 3, 1]), published("b", [1, 2, 3, 1])]);
    let mut catalogue = Catalogue::default();
    let all = &TableLimits::UNLIMITED;
    assert_eq!(resolved(&mut catalogue, &Extent::Everything, &world, all), ["a", "b"]);
    assert_eq!((addresses(&catalogue, "a"), addresses(&catalogue, "b")), (vec![1], vec![]));
    assert_eq!(catalogue.warnings(&policy()).count(), 1);
    // The rows of `b` are not computed again.
    world.apply(gone("a"));
    assert_eq!(resolved(&mut catalogue, &some(&["a"]), &world, all), ["a", "b"]);
    assert_eq!(addresses(&catalogue, "b"), [1]);
    assert_eq!(catalogue.warnings(&policy()).count(), 0);
}

#[test]
fn what_found_no_room_gets_it_when_there_is_some() {
    let mut world = world([published("a", [1, 2, 3, 1]), published("b", [1, 2, 3, 2])]);
    let mut catalogue = Catalogue::default();
    let one = &TableLimits { frontends_max: 1, ..TableLimits::UNLIMITED };
    resolved(&mut catalogue, &Extent::Everything, &world, one);
    assert_eq!((addresses(&catalogue, "a"), addresses(&catalogue, "b")), (vec![1], vec![]));
    assert_eq!(resolved(&mut catalogue, &some(&[]), &world, one), [""; 0]);
    assert_eq!(catalogue.warnings(&policy()).count(), 1);
    world.apply(gone("a"));
    assert_eq!(resolved(&mut catalogue, &some(&["a"]), &world, one), ["a", "b"]);
    assert_eq!(addresses(&catalogue, "b"), [2]);
    assert_eq!(catalogue.warnings(&policy()).count(), 0);
}

/// Services with equal endpoints share a pool: only an exact count finds that they fit.
#[test]
fn a_shared_pool_counts_once() {
    let world = world([published("a", [1, 2, 3, 1]), published("b", [1, 2, 3, 2]), slice("a", 3), slice("b", 3)]);
    let mut catalogue = Catalogue::default();
    let three = &TableLimits { pool_rows_max: 3, ..TableLimits::UNLIMITED };
    resolved(&mut catalogue, &Extent::Everything, &world, three);
    assert_eq!((addresses(&catalogue, "a"), addresses(&catalogue, "b")), (vec![1], vec![2]));
    assert_eq!(catalogue.warnings(&policy()).count(), 0);
}
