//! Keeps the guard's table up to date: widened before the maps that rely on it are written, narrowed afterwards, and
//! restored if another program changes it.

use std::collections::BTreeSet;
use std::io;

use super::Guarding;
use super::{Change, Door, Found, GuardRows};
use crate::dataplane::Tables;
use crate::desired::Desired;
use crate::model::{Warning, WarningKind};

/// What a kube-proxy on this node means to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It serves what the agent does not.
    Beside,
    /// The agent replaces it. The generation is that of the rules when kube-proxy was last looked for.
    Successor { generation: Option<u32> },
    /// The agent replaces it, and connections that its rules translated may exist: the table is there also without rows.
    /// Its rules keep conntrack and its translations at work. Without any such rule the kernel ends both, and with them
    /// those connections.
    Heir,
}

/// The guard of one agent.
pub struct Keeper {
    door: Box<dyn Door>,
    guarding: Guarding,
    role: Role,
    /// The addresses to guard.
    wanted: GuardRows,
    /// The interfaces of pods. Until they are known (`None`), those of an earlier run stay.
    links: Option<BTreeSet<u32>>,
    /// The contents of the table; `None` if they must be read.
    realised: Option<Found>,
    /// The generation of the rules when the table was last verified.
    generation: Option<u32>,
    /// Why the table is not up to date.
    trouble: Option<Warning>,
    repairs: u64,
}

impl Keeper {
    /// If there is no reason for the table, that of an earlier run is removed.
    pub fn new(door: Box<dyn Door>, guarding: Guarding) -> Self {
        Self {
            door,
            guarding,
            role: Role::Beside,
            wanted: GuardRows::default(),
            links: None,
            realised: None,
            generation: None,
            trouble: None,
            repairs: 0,
        }
    }

    /// The agent replaces kube-proxy.
    #[must_use]
    pub fn succeeding(mut self) -> Self {
        if self.guarding == Guarding::On {
            self.role = Role::Successor { generation: None };
        }
        self
    }

    /// Looks for a kube-proxy to succeed. Before anything else, as the table of an earlier run may be in use.
    fn look_for_kube_proxy(&mut self) {
        let Role::Successor { generation } = self.role else { return };
        match self.succession(generation) {
            Ok(Role::Heir) => {
                self.role = Role::Heir;
                tracing::info!("the guard's table keeps connections alive that a kube-proxy made");
            }
            Ok(role) => self.role = role,
            Err(error) => tracing::debug!(%error, "the rules of a kube-proxy cannot be looked for"),
        }
    }

    /// `before` is the generation of the last look.
    fn succession(&mut self, before: Option<u32>) -> io::Result<Role> {
        let generation = Some(self.door.generation()?);
        if before == generation {
            return Ok(Role::Successor { generation });
        }
        // The table of an earlier run is there because it found a kube-proxy.
        let is_heir = (before.is_none() && self.look()? != Found::Absent) || self.door.has_kube_proxy()?;
        Ok(if is_heir { Role::Heir } else { Role::Successor { generation } })
    }

    /// Whether `desired` changes which of its frontends, and of those in `tables`, are guarded.
    pub fn is_concerned_by(&self, desired: &Desired, tables: &Tables) -> bool {
        self.guarding == Guarding::On && !self.wanted.agrees(&super::rows(desired), tables, desired)
    }

    /// Before the maps are written: adds the new rows and keeps the old ones. So no connection finds an address that is
    /// no longer served and not yet guarded.
    pub fn widen(&mut self, wanted: GuardRows) {
        self.wanted = match self.guarding {
            Guarding::On => wanted,
            Guarding::Off => GuardRows::default(),
        };
        self.look_for_kube_proxy();
        let result = self.look().and_then(|found| {
            let both = match &found {
                Found::Rows(rows) => self.target(&found).with(rows),
                Found::Absent | Found::Foreign => self.target(&found),
            };
            self.bring(&found, both)
        });
        self.conclude(result);
    }

    /// After the maps are written: narrows the table to the wanted rows.
    pub fn settle(&mut self) {
        self.look_for_kube_proxy();
        let result = self.look().and_then(|found| {
            let target = self.target(&found);
            self.bring(&found, target)
        });
        self.conclude(result);
    }

    /// Sets the interfaces of pods.
    pub fn follow_links(&mut self, links: BTreeSet<u32>) {
        if self.links.as_ref() != Some(&links) {
            self.links = Some(links);
            self.settle();
        }
    }

    /// Restores the table if another program changed it. Cheap as long as the generation of the rules stays the same.
    pub fn verify(&mut self) {
        self.look_for_kube_proxy();
        if self.is_unneeded() && self.trouble.is_none() {
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
            // A repair changes the generation too. Then the next call reads the table again and finds it in order.
            if self.realised == Some(found) {
                self.generation = Some(generation);
            }
            Ok(())
        });
        self.conclude(result);
    }

    /// The rows of the table, as far as known.
    pub fn realised(&mut self) -> GuardRows {
        match self.look() {
            Ok(Found::Rows(rows)) => rows,
            Ok(Found::Absent | Found::Foreign) | Err(_) => GuardRows::default(),
        }
    }

    /// The number of guarded elements, without interfaces.
    pub fn entries(&self) -> usize {
        match &self.realised {
            Some(Found::Rows(rows)) => rows.len(),
            Some(Found::Absent | Found::Foreign) | None => 0,
        }
    }

    /// How often the table was restored after another program had changed it.
    pub const fn repairs(&self) -> u64 {
        self.repairs
    }

    /// The warning for the operator, if the table is not up to date.
    pub const fn warning(&self) -> Option<&Warning> {
        self.trouble.as_ref()
    }

    /// Whether there is no reason for the table.
    fn is_unneeded(&self) -> bool {
        self.wanted.is_empty() && self.role != Role::Heir
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

    /// The state of the table, read from the kernel if it is not known.
    fn look(&mut self) -> io::Result<Found> {
        if self.realised.is_none() {
            self.realised = Some(self.door.read()?);
        }
        Ok(self.realised.clone().unwrap_or(Found::Absent))
    }

    fn bring(&mut self, found: &Found, target: GuardRows) -> io::Result<()> {
        let is_unneeded = target.is_empty() && self.role != Role::Heir;
        let change = match found {
            Found::Absent if is_unneeded => return Ok(()),
            _ if is_unneeded => Change::Remove,
            Found::Rows(rows) if *rows == target => return Ok(()),
            Found::Absent | Found::Foreign => Change::Replace(target.clone()),
            Found::Rows(rows) => Change::Edit { add: target.without(rows), remove: rows.without(&target) },
        };
        (self.realised, self.generation) = (None, None);
        self.door.perform(&change)?;
        self.realised = Some(if is_unneeded { Found::Absent } else { Found::Rows(target) });
        Ok(())
    }

    fn conclude(&mut self, result: io::Result<()>) {
        // If there is no reason for the table, a kernel without nftables is no problem.
        self.trouble = match result {
            Err(error) if !self.wanted.is_empty() => Some(trouble(&error)),
            Err(error) if self.role == Role::Heir => Some(ending(&error)),
            Ok(()) | Err(_) => None,
        };
    }
}

fn trouble(error: &io::Error) -> Warning {
    let problem = format!(
        "the nftables table that keeps kube-proxy off addresses left to the balancer cannot be written ({error}); \
         everything else is in force, and the agent tries again"
    );
    let remedy = "load nf_tables, nft_chain_nat and nft_nat into the kernel and grant CAP_NET_ADMIN; or have the \
        status say ipMode: Proxy; or give --guard=off where no kube-proxy runs";
    Warning::new(WarningKind::Guard, problem, remedy)
}

fn ending(error: &io::Error) -> Warning {
    let problem = format!(
        "the nftables table that keeps conntrack at work cannot be written ({error}): when kube-proxy's rules are removed, \
         connections that it made end, unless rules of others use conntrack; the agent tries again"
    );
    let remedy = "load nf_tables, nft_chain_nat and nft_nat into the kernel and grant CAP_NET_ADMIN; or remove \
        kube-proxy's rules once its connections have ended";
    Warning::new(WarningKind::Guard, problem, remedy)
}
