//! Keeps the listeners of health checks as they should be. A port that cannot be opened is a warning, and the others are
//! served.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::door::{Asked, Checks, Door};
use crate::desired::{HealthCheck, HealthChecks};
use crate::model::{Warning, WarningKind};
use crate::status::HealthListeners;

/// The listeners that are wanted, and those that are open.
pub struct Keeper {
    door: Box<dyn Door>,
    /// The most listeners for Services.
    listeners_max: usize,
    /// `--healthz`.
    node: Option<SocketAddr>,
    /// `None`: the node's listener is open, or there is none.
    node_trouble: Option<Warning>,
    checks: Checks,
    /// About ports that two Services have.
    duplicates: Vec<Warning>,
    open: BTreeSet<SocketAddr>,
    troubles: BTreeMap<SocketAddr, Warning>,
    failures: u64,
}

impl Keeper {
    /// Opens the node's listener at once.
    pub fn new(door: Box<dyn Door>, node: Option<SocketAddr>, listeners_max: usize) -> Self {
        let mut keeper = Self {
            door,
            listeners_max,
            node,
            node_trouble: None,
            checks: Checks::default(),
            duplicates: Vec::new(),
            open: BTreeSet::new(),
            troubles: BTreeMap::new(),
            failures: 0,
        };
        keeper.open_node();
        keeper
    }

    /// Answers these checks from now on, and no others.
    pub fn follow(&mut self, checks: HealthChecks) {
        let HealthChecks { by_address, warnings } = checks;
        self.checks = Arc::new(by_address);
        self.duplicates = warnings;
        // Before the listeners open, so that each has an answer from the start.
        self.door.tell(Arc::clone(&self.checks));
        let checks = &self.checks;
        for at in self.open.extract_if(.., |at| !checks.contains_key(at)) {
            self.door.close(at, Asked::Service);
        }
        self.open_services();
    }

    /// Tries again what could not be opened. Returns whether the warnings may have changed.
    pub fn retry(&mut self) -> bool {
        let is_missing = self.node_trouble.is_some() || !self.troubles.is_empty();
        if self.node_trouble.is_some() {
            self.open_node();
        }
        if !self.troubles.is_empty() {
            self.open_services();
        }
        is_missing
    }

    /// A warning for each listener that is missing, and for each Service whose port is another's.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.node_trouble.iter().chain(&self.duplicates).chain(self.troubles.values())
    }

    /// All listeners, that of `--healthz` included.
    pub fn tally(&self) -> HealthListeners {
        let node = usize::from(self.node.is_some());
        let missing_node = usize::from(self.node_trouble.is_some());
        HealthListeners {
            open: self.open.len() + node - missing_node,
            missing: self.troubles.len() + missing_node,
            failures: self.failures,
        }
    }

    fn open_node(&mut self) {
        let Some(at) = self.node else { return };
        self.node_trouble = self.listen(at, Asked::Node).err().map(|error| of_node(at, &error));
    }

    fn listen(&mut self, at: SocketAddr, asked: Asked) -> io::Result<()> {
        let result = self.door.open(at, asked);
        self.failures += u64::from(result.is_err());
        result
    }

    fn open_services(&mut self) {
        self.troubles.clear();
        let checks = Arc::clone(&self.checks);
        for (at, check) in &*checks {
            if self.open.contains(at) {
                continue;
            }
            let trouble = if self.open.len() < self.listeners_max {
                self.listen(*at, Asked::Service).err().map(|error| of_service(check, &error))
            } else {
                Some(too_many(check, self.listeners_max))
            };
            match trouble {
                None => drop(self.open.insert(*at)),
                Some(warning) => drop(self.troubles.insert(*at, warning)),
            }
        }
    }
}

fn of_node(at: SocketAddr, error: &io::Error) -> Warning {
    let problem = format!(
        "cannot listen at {at} ({error}): balancers that ask there send no connections to this node; the agent tries again"
    );
    let remedy = "end the program that listens there (a kube-proxy does), or choose another address, or off";
    Warning::new(WarningKind::Hazard, problem, remedy).at("--healthz")
}

fn of_service(check: &HealthCheck, error: &io::Error) -> Warning {
    let at = check.at;
    let problem = format!(
        "cannot listen at {at} ({error}): the balancer gets no answer there and sends this node no connections of the \
         Service; the agent tries again"
    );
    let remedy = match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            "give an interface of the node this address, or the Node the right one (status.addresses)".to_owned()
        }
        _ => format!(
            "end the program that listens there (`ss -lntp sport = {}`), or set --health-check-node-ports=off if that \
             program is to answer, as a kube-proxy does",
            at.port()
        ),
    };
    about(check, WarningKind::Hazard, problem, remedy)
}

fn too_many(check: &HealthCheck, listeners_max: usize) -> Warning {
    let problem =
        format!("there are more health checks than the {listeners_max} that are listened for; this one is not");
    about(check, WarningKind::Capacity, problem, "raise the limit of open files of the agent".to_owned())
}

fn about(check: &HealthCheck, kind: WarningKind, problem: String, remedy: String) -> Warning {
    Warning::new(kind, problem, remedy).of(format_args!("Service {}", check.service)).at("spec.healthCheckNodePort")
}

#[cfg(test)]
mod tests;
