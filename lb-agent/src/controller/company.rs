//! Which Services must be computed together: those that want the same address, and those that wait for room.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::{Desired, Neighbours};
use crate::model::ObjectName;

/// What the rows of Services depend on besides their own objects.
#[derive(Debug, Default)]
pub struct Company {
    /// Pairs of Services that want the same address, in both directions.
    contests: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    /// Services with something that did not fit: any change may free room for it.
    left_out: BTreeSet<ObjectName>,
    /// What every Service takes; known only if room is scarce.
    takes: Option<Neighbours>,
}

/// Whether any change of a few Services is sure to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Plenty,
    Scarce,
}

impl Company {
    /// Computed from all Services.
    pub fn of(desired: &mut Desired, room: Room) -> Self {
        let is_scarce = room == Room::Scarce || desired.is_scarce;
        let mut company = Self { takes: is_scarce.then(Neighbours::default), ..Self::default() };
        company.replace(&BTreeSet::new(), desired);
        company
    }

    /// What every Service takes, if room is scarce.
    pub const fn takes(&self) -> Option<&Neighbours> {
        self.takes.as_ref()
    }

    /// These Services and all whose rows depend on theirs.
    pub fn around(&self, services: impl IntoIterator<Item = ObjectName>) -> BTreeSet<ObjectName> {
        let mut around = BTreeSet::new();
        let mut left: Vec<ObjectName> = services.into_iter().chain(self.left_out.iter().cloned()).collect();
        while let Some(service) = left.pop() {
            left.extend(
                self.contests.get(&service).into_iter().flatten().filter(|other| !around.contains(*other)).cloned(),
            );
            around.insert(service);
        }
        around
    }

    /// Takes in a new computation of these Services.
    pub fn replace(&mut self, services: &BTreeSet<ObjectName>, desired: &mut Desired) {
        // Both sides of a contest are always computed together.
        self.contests.retain(|service, _| !services.contains(service));
        for (one, other) in std::mem::take(&mut desired.contests) {
            self.contests.entry(one.clone()).or_default().insert(other.clone());
            self.contests.entry(other).or_default().insert(one);
        }
        self.left_out = std::mem::take(&mut desired.left_out);
        let takes = std::mem::take(&mut desired.takes);
        if let Some(known) = &mut self.takes {
            known.replace(|name| services.contains(name), takes);
        }
    }
}
