//! The stage of a case: a folder, a controller, and a dataplane in memory that insists on its invariants.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use lb_agent::controller::{Controller, Outcome, Reclaim};
use lb_agent::dataplane::Tables;
use lb_agent::dataplane::fake::{FakeDataplane, Faults, assert_no_dangling_pool};
use lb_agent::desired::annotation_keys;
use lb_agent::guard::fake::FakeTable;
use lb_agent::guard::{Found, Guarding, Keeper};
use lb_agent::render::{self, GuardRow};
use lb_agent::source::dir::Folder;

use super::normal::normal;
use super::settings::Settings;

/// Steps that a dataplane with faults may need. At a tenth of the calls failing, a few do.
const STEPS_MAX: usize = 1_000;

pub struct Stage {
    settings: Settings,
    faults: Faults,
    temp: tempfile::TempDir,
    folder: Folder,
    dataplane: FakeDataplane,
    guard: FakeTable,
    controller: Controller,
    /// The agent is away: nobody looks at the folder.
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
        Ok(Self { settings, faults, temp, folder, dataplane, guard, controller, is_stopped: false })
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

    /// The settings that the agent has from its next start.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// The agent goes away until the next restart.
    pub const fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// The agent goes away without a word, and comes back to the maps that it left.
    pub fn restart(&mut self) -> Result<()> {
        self.is_stopped = false;
        self.dataplane.fail(Faults::Never);
        self.controller = adopt(&mut self.dataplane, &self.settings, &self.guard)?;
        self.dataplane.fail(self.faults);
        self.folder = Folder::open(self.temp.path())?.keeping(annotation_keys(&self.settings.policy));
        self.converge(Reclaim::Later)
    }

    /// From now on flows refer to these frontends (`1.2.3.4:80`, a line each), and to no others.
    pub fn set_flows(&mut self, text: &str) -> Result<()> {
        let mut in_use = BTreeSet::new();
        for line in text.lines() {
            let address: SocketAddr = line.trim().parse().with_context(|| format!("{line:?} is no address"))?;
            let rows = render::frontends(&self.dataplane.tables);
            let row = rows.iter().find(|row| row.address == address.ip() && row.port == address.port());
            in_use.insert(row.with_context(|| format!("no frontend {address}"))?.id);
        }
        self.dataplane.in_use = in_use;
        Ok(())
    }

    /// What nobody claims has stayed for long enough.
    pub fn drop_unclaimed(&mut self) -> Result<()> {
        self.controller.drop_unclaimed();
        self.converge(Reclaim::Later)
    }

    /// Draining frontends that no flow refers to go.
    pub fn reclaim(&mut self) -> Result<()> {
        self.converge(Reclaim::Now)
    }

    /// What the dataplane holds, with ids that do not depend on history.
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

    /// Looks at the folder, and steps until the tables say what they should.
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

    /// What the controller believes is what the dataplane holds.
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
