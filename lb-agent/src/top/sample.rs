//! What `top` reads at one moment: from the pins, and from the agent if one runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use lb_common::table::{Counter, CounterValue, FrontendStats};

use crate::ask::{self, Services};
use crate::dataplane::pins::{Fill, Pins};
use crate::losses::Losses;
use crate::render::{FrontendRow, frontends};

/// A reading. All counts are since the tables were made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Since `top` began.
    pub at_secs: f64,
    /// By the frontends' numbers.
    pub frontends: BTreeMap<u32, Frontend>,
    pub counters: BTreeMap<Counter, CounterValue>,
    pub fill: Vec<Fill>,
    /// The number of warnings; `None` if no agent answers.
    pub warnings: Option<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontend {
    /// The Service if it is known, else the address.
    pub name: String,
    /// `-` if the address is not a load balancer's.
    pub mode: String,
    pub flows: u64,
    pub packets: u64,
    pub bytes: u64,
    pub passed: u64,
    /// Rejected and dropped.
    pub drops: u64,
}

impl Sample {
    pub fn read(pins: &Pins, (pin_path, agent): (&Path, SocketAddr), began: Instant) -> anyhow::Result<Self> {
        let warnings = ask::warnings(agent).ok().map(|warnings| warnings.len());
        // One silent address is asked once.
        let services = warnings.map(|_| ask::services(agent, pin_path)).unwrap_or_default();
        let tables = pins.tables()?;
        let losses = Losses::by(&pins.drop_counts()?, |row| row.frontend);
        let frontend = |row: FrontendRow| {
            Ok((row.frontend_id, Frontend::of(&row, pins, &services, losses.get(&row.frontend_id))?))
        };
        Ok(Self {
            at_secs: began.elapsed().as_secs_f64(),
            frontends: frontends(&tables).into_iter().map(frontend).collect::<anyhow::Result<_>>()?,
            counters: pins.counters()?,
            fill: pins.fill(&tables)?,
            warnings,
        })
    }
}

impl Frontend {
    fn of(row: &FrontendRow, pins: &Pins, services: &Services, losses: Option<&Losses>) -> anyhow::Result<Self> {
        let FrontendStats { flows, packets, bytes, passed_packets, .. } = pins.frontend_stats(row.frontend_id)?;
        let service = services.names.get(&row.service_port_id).cloned();
        let name = service.unwrap_or_else(|| format!("{}/{}", row.address, row.proto));
        let mode = row.served_as();
        let drops = losses.map_or(0, Losses::total);
        Ok(Self { name, mode, flows, packets, bytes, passed: passed_packets, drops })
    }
}
