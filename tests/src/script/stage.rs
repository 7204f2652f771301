//! The stage of a case: a folder, a controller, and a dataplane in memory that asserts its invariants.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use lb_agent::controller::{Controller, Outcome, Reclaim};
use lb_agent::dataplane::Tables;
use lb_agent::dataplane::fake::{FakeDataplane, Faults, assert_no_dangling_pool};
use lb_agent::desired::annotation_keys;
use lb_agent::guard::fake::FakeTable;
use lb_agent::guard::{Found, Guarding, Keeper};
use lb_agent::model::Holder;
use lb_agent::render::{self, GuardRow};
use lb_agent::source::dir::Folder;

use super::normal::normal;
use super::settings::Settings;

/// The most steps that a dataplane with faults may need. If a tenth of the calls fail, a few suffice.
const STEPS_MAX: usize = 1_000;

pub struct Stage {
    settings: Settings,
    faults: Faults,
    temp: tempfile::TempDir,
    folder: Folder,
    dataplane: FakeDataplane,
    guard: FakeTable,
    controller: Controller,
    /// The addresses of the node's interfaces, once a step has set them.
    addresses: Option<BTreeMap<IpAddr, Holder>>,
    /// The agent is stopped, and changes of the folder have no effect.
    is_stopped: bool,
}

impl Stage {
    pub fn new(settings: Settings, faults: Faults) -> Result<Self> {
        let temp = tempfile::tempdir()?;
        let mut dataplane = FakeDataplane::default();
        dataplane.observe(assert_no_dangling_pool);
        let guard = FakeTable::default();
        let controller = adopt(&mut dataplane, &settings, &guard)?;
        dataplane.fail(faults);
        let folder = Folder::open(temp.path())?.keeping(annotation_keys(&settings.policy));
        Ok(Self { settings, faults, temp, folder, dataplane, guard, controller, addresses: None, is_stopped: false })
    }

    pub fn write(&mut self, name: &str, text: &str) -> Result<()> {
        fs::write(self.temp.path().join(name), text)?;
        self.converge(Reclaim::Later)
    }

    pub fn remove(&mut self, name: &str) -> Result<()> {
        fs::remove_file(self.temp.path().join(name))?;
        self.converge(Reclaim::Later)
    }

    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        fs::rename(self.temp.path().join(from), self.temp.path().join(to))?;
        self.converge(Reclaim::Later)
    }

    /// Sets the addresses of the node's interfaces (a line each; `kube-proxy` behind those that it bound in ipvs mode).
    pub fn set_addresses(&mut self, text: &str) -> Result<()> {
        let mut addresses = BTreeMap::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (address, holder) = match line.split_whitespace().collect::<Vec<_>>()[..] {
                [address] => (address, Holder::Node),
                [address, "kube-proxy"] => (address, Holder::KubeProxy),
                _ => bail!("{line:?} is no address"),
            };
            addresses.insert(address.parse().with_context(|| format!("{line:?} is no address"))?, holder);
        }
        self.addresses = Some(addresses);
        self.follow_addresses();
        self.converge(Reclaim::Later)
    }

    fn follow_addresses(&mut self) {
        if let Some(addresses) = &self.addresses {
            self.controller.follow_addresses(addresses.clone());
        }
    }

    /// The agent's settings from its next start.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Stops the agent until the next restart.
    pub const fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Restarts the agent as after a crash: it adopts the maps that it left.
    pub fn restart(&mut self) -> Result<()> {
        self.is_stopped = false;
        self.dataplane.fail(Faults::Never);
        self.controller = adopt(&mut self.dataplane, &self.settings, &self.guard)?;
        self.follow_addresses();
        self.dataplane.fail(self.faults);
        self.folder = Folder::open(self.temp.path())?.keeping(annotation_keys(&self.settings.policy));
        self.converge(Reclaim::Later)
    }

    /// Sets the frontends to which flows refer (`1.2.3.4:80`, a line each).
    pub fn set_flows(&mut self, text: &str) -> Result<()> {
        let mut in_use = BTreeSet::new();
        for line in text.lines() {
            let address: SocketAddr = line.trim().parse().with_context(|| format!("{line:?} is no address"))?;
            let rows = render::frontends(&self.dataplane.tables);
            let row = rows.iter().find(|row| row.address == address);
            in_use.insert(row.with_context(|| format!("no frontend {address}"))?.frontend_id);
        }
        self.dataplane.in_use = in_use;
        Ok(())
    }

    /// Drops frontends that no object claims, as after their grace period.
    pub fn drop_unclaimed(&mut self) -> Result<()> {
        self.controller.drop_unclaimed();
        self.converge(Reclaim::Later)
    }

    /// Deletes draining frontends without flows.
    pub fn reclaim(&mut self) -> Result<()> {
        self.converge(Reclaim::Now)
    }

    /// The dataplane's table, with IDs that do not depend on history.
    pub fn table(&mut self, name: &str) -> String {
        let tables: Tables = normal(&self.dataplane.tables);
        match name {
            "frontends" => render::text(&render::frontends(&tables)),
            "pools" => render::text(&render::pools(&tables)),
            "members" => render::text(&render::members(&tables)),
            "source-ranges" => render::text(&render::source_ranges(&tables)),
            "guard" => match self.guard.found() {
                Found::Rows(rows) => render::text(&render::guard(&rows)),
                Found::Absent | Found::Foreign => render::text::<GuardRow>(&[]),
            },
            _ => {
                let mut warnings: Vec<String> = self.controller.warnings().map(ToString::to_string).collect();
                warnings.sort();
                warnings.join("\n") + "\n"
            }
        }
    }

    /// Reads the folder, and steps until the tables are as desired.
    fn converge(&mut self, reclaim: Reclaim) -> Result<()> {
        if self.is_stopped {
            return Ok(());
        }
        self.controller.change(self.folder.look(&HashSet::new()));
        for _ in 0..STEPS_MAX {
            let step = self.controller.step(&mut self.dataplane, reclaim);
            match step.outcome {
                Outcome::InStep => return self.check_belief(),
                Outcome::Behind if self.faults != Faults::Never => {}
                Outcome::Behind | Outcome::NotListed => bail!("the step failed: {step:?}"),
            }
        }
        bail!("not in step after {STEPS_MAX} steps")
    }

    /// Checks that the controller's view equals the dataplane's tables.
    fn check_belief(&self) -> Result<()> {
        if *self.controller.realised() != self.dataplane.tables {
            bail!("believed:\n{:#?}\nheld:\n{:#?}", self.controller.realised(), self.dataplane.tables);
        }
        Ok(())
    }
}

fn adopt(dataplane: &mut FakeDataplane, settings: &Settings, guard: &FakeTable) -> Result<Controller> {
    let Settings { policy, limits } = settings;
    let keeper = Keeper::new(Box::new(guard.clone()), Guarding::On);
    Ok(Controller::adopt(dataplane, policy.clone(), *limits)?.guarded_by(keeper))
}
