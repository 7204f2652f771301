//! What is known of the drivers of uplinks: what each says of itself, and why it has no program.

use std::collections::BTreeMap;
use std::io;

use super::attach::{Failure, Trust};
use crate::dataplane::driver::Mode;
use crate::dataplane::links::{Class, Link};
use crate::dataplane::{Card, Xdp, card};
use crate::interfaces::{Interfaces, Objection};

/// The drivers of a node.
pub struct Drivers {
    wanted: Xdp,
    /// Asks a driver what it is.
    pub ask: fn(&str) -> io::Result<Card>,
    /// What those of the uplinks last answered. Each question takes a lock that every change of an interface takes.
    answers: BTreeMap<u32, Result<Card, String>>,
    objections: BTreeMap<u32, Objection>,
    /// Why the kernel did not attach a program.
    failures: BTreeMap<u32, Failure>,
}

/// What became of the drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attempt {
    Done,
    /// Some failed before, and are not tried now.
    Waiting,
    Failed,
}

impl Drivers {
    pub fn new(wanted: Xdp) -> Self {
        let (answers, objections, failures) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { wanted, ask: card, answers, objections, failures }
    }

    /// The uplinks whose driver is to have a program. Logs what is in the way elsewhere, once.
    pub fn judge(&mut self, interfaces: &Interfaces, links: &BTreeMap<u32, Link>, trust: Trust) -> BTreeMap<u32, Mode> {
        if trust == Trust::Verify {
            self.answers.clear();
        }
        let mut modes = BTreeMap::new();
        let before = std::mem::take(&mut self.objections);
        for link in links.values().filter(|link| link.class == Class::Uplink) {
            let Some(facts) = interfaces.links().get(&link.ifindex) else { continue };
            let (answers, ask) = (&mut self.answers, self.ask);
            let card = |name: &str| {
                let answer =
                    answers.entry(link.ifindex).or_insert_with(|| ask(name).map_err(|error| error.to_string()));
                answer.clone().map_err(io::Error::other)
            };
            match interfaces.driver_mode(facts, self.wanted, card) {
                None => {}
                Some(Ok(mode)) => drop(modes.insert(link.ifindex, mode)),
                Some(Err(objection)) => {
                    if before.get(&link.ifindex) != Some(&objection) {
                        tracing::info!(interface = link.name, reason = %objection, "not attached to the driver: tc serves");
                    }
                    self.objections.insert(link.ifindex, objection);
                }
            }
        }
        self.answers.retain(|ifindex, _| links.contains_key(ifindex));
        modes
    }

    /// Takes the failures of the last attempt.
    pub fn failed(&mut self, failures: BTreeMap<u32, Failure>) {
        self.failures = failures;
    }

    /// The failure of the last attempt at an interface.
    pub fn failure(&self, link: &Link) -> Option<&Failure> {
        self.failures.get(&link.ifindex).filter(|failure| failure.interface == link.name)
    }

    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.failures.values()
    }

    /// Why tc alone serves uplinks whose driver could have a program.
    pub fn why_not(&self) -> BTreeMap<u32, String> {
        let objections = self.objections.iter().map(|(ifindex, objection)| (*ifindex, objection.to_string()));
        objections.chain(self.failures.iter().map(|(ifindex, failure)| (*ifindex, failure.reason.clone()))).collect()
    }
}
