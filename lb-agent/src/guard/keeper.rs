//! Keeps the table as it should be: written before the tables that rely on it, narrowed after them, and looked after.

use std::collections::BTreeSet;
use std::io;

use super::{Change, Door, Found, GuardRows};
use crate::config::Guarding;
use crate::dataplane::Tables;
use crate::desired::Desired;
use crate::model::{Warning, WarningKind};

/// The guard of one agent.
pub struct Keeper {
    door: Box<dyn Door>,
    guarding: Guarding,
    /// Addresses that need it.
    wanted: GuardRows,
    /// Interfaces of pods; `None` until they are known: those of an earlier run stay.
    links: Option<BTreeSet<u32>>,
    /// What the table holds; `None` where that is not known.
    realised: Option<Found>,
    /// Of the rules when the table was last looked at.
    generation: Option<u32>,
    /// Why it is not as it should be.
    trouble: Option<Warning>,
    repairs: u64,
}

impl Keeper {
    /// Where nothing is to be guarded, the table of an earlier run is removed.
    pub fn new(door: Box<dyn Door>, guarding: Guarding) -> Self {
        Self {
            door,
            guarding,
            wanted: GuardRows::default(),
            links: None,
            realised: None,
            generation: None,
            trouble: None,
            repairs: 0,
        }
    }

    /// Whether something else is wanted of these addresses, instead of what the tables hold of them.
    pub fn is_concerned_by(&self, desired: &Desired, tables: &Tables) -> bool {
        self.guarding == Guarding::On && !self.wanted.agrees(&super::rows(desired), tables, desired)
    }

    /// Before the other tables are written: what is wanted from now on comes beside what was wanted before, so that no
    /// connection finds an address that is not served any more and not guarded yet.
    pub fn widen(&mut self, wanted: GuardRows) {
        self.wanted = match self.guarding {
            Guarding::On => wanted,
            Guarding::Off => GuardRows::default(),
        };
        let result = self.look().and_then(|found| {
            let both = match &found {
                Found::Rows(rows) => self.target(&found).with(rows),
                Found::Absent | Found::Foreign => self.target(&found),
            };
            self.bring(&found, both)
        });
        self.conclude(result);
    }

    /// After the other tables are written: exactly what is wanted.
    pub fn settle(&mut self) {
        let result = self.look().and_then(|found| {
            let target = self.target(&found);
            self.bring(&found, target)
        });
        self.conclude(result);
    }

    /// The interfaces behind which pods are.
    pub fn follow_links(&mut self, links: BTreeSet<u32>) {
        if self.links.as_ref() != Some(&links) {
            self.links = Some(links);
            self.settle();
        }
    }

    /// Has somebody else changed the table? Cheap while nobody changes any rule.
    pub fn verify(&mut self) {
        if self.wanted.is_empty() && self.trouble.is_none() {
            return;
        }
        let result = self.door.generation().and_then(|generation| {
            if self.generation == Some(generation) && self.trouble.is_none() {
                return Ok(());
            }
            let believed = self.realised.take();
            let found = self.look()?;
            if believed.is_some_and(|believed| believed != found) {
                self.repairs += 1;
            }
            let target = self.target(&found);
            self.bring(&found, target)?;
            // What was written changed the number once more: then the next look reads again, and finds it in order.
            if self.realised == Some(found) {
                self.generation = Some(generation);
            }
            Ok(())
        });
        self.conclude(result);
    }

    /// The addresses that the table holds, as far as known.
    pub fn realised(&mut self) -> GuardRows {
        match self.look() {
            Ok(Found::Rows(rows)) => rows,
            Ok(Found::Absent | Found::Foreign) | Err(_) => GuardRows::default(),
        }
    }

    /// Elements of the table, interfaces apart.
    pub fn entries(&self) -> usize {
        match &self.realised {
            Some(Found::Rows(rows)) => rows.len(),
            Some(Found::Absent | Found::Foreign) | None => 0,
        }
    }

    /// How often the table was found changed by somebody else, and restored.
    pub const fn repairs(&self) -> u64 {
        self.repairs
    }

    /// What an operator should know.
    pub const fn warning(&self) -> Option<&Warning> {
        self.trouble.as_ref()
    }

    fn target(&self, found: &Found) -> GuardRows {
        if self.wanted.is_empty() {
            return GuardRows::default();
        }
        let known = match found {
            Found::Rows(rows) => rows.links.clone(),
            Found::Absent | Found::Foreign => BTreeSet::new(),
        };
        GuardRows { links: self.links.clone().unwrap_or(known), ..self.wanted.clone() }
    }

    /// What is there, read where it is not known.
    fn look(&mut self) -> io::Result<Found> {
        if self.realised.is_none() {
            self.realised = Some(self.door.read()?);
        }
        Ok(self.realised.clone().unwrap_or(Found::Absent))
    }

    fn bring(&mut self, found: &Found, target: GuardRows) -> io::Result<()> {
        let change = match found {
            Found::Absent if target.is_empty() => return Ok(()),
            Found::Rows(rows) if *rows == target => return Ok(()),
            _ if target.is_empty() => Change::Remove,
            Found::Absent | Found::Foreign => Change::Replace(target.clone()),
            Found::Rows(rows) => Change::Edit { add: target.without(rows), remove: rows.without(&target) },
        };
        (self.realised, self.generation) = (None, None);
        self.door.perform(&change)?;
        self.realised = Some(if target.is_empty() { Found::Absent } else { Found::Rows(target) });
        Ok(())
    }

    fn conclude(&mut self, result: io::Result<()>) {
        // Where nothing is wanted, a kernel without nftables is no trouble.
        self.trouble = match result {
            Err(error) if !self.wanted.is_empty() => Some(trouble(&error)),
            Ok(()) | Err(_) => None,
        };
    }
}

fn trouble(error: &io::Error) -> Warning {
    let problem = format!(
        "the nftables table that keeps kube-proxy off addresses left to the balancer cannot be written ({error}); \
         all else is in force, and it is tried again"
    );
    let remedy = "load nf_tables, nft_chain_nat and nft_nat into the kernel and grant CAP_NET_ADMIN; or have the status \
                  say ipMode: Proxy; or give --guard=off where no kube-proxy runs";
    Warning::new(WarningKind::Guard, problem, remedy)
}
