//! The names of what records hold by number.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use lb_common::table::Told;

use crate::args::MonitorArgs;
use crate::ask::{self, Services};
use crate::dataplane::lease::boot_ns;
use crate::dataplane::links::interface_name;
use crate::dataplane::pins::{FrontendNow, Pins};
use crate::event::{Event, Names};
use crate::show::names::edge_name;

/// The pause between two questions for the names of Services.
const ASK_INTERVAL: Duration = Duration::from_secs(2);

/// Names, refreshed each second.
pub struct NameBook {
    pins: Pins,
    http: SocketAddr,
    pin_path: PathBuf,
    services: Services,
    /// The names that a thread asks for. The agent may take its time to answer, and the lease must not wait for it.
    answers: Receiver<Services>,
    /// IDs of Service ports, by ID of the frontend.
    ports: BTreeMap<u32, u32>,
}

impl NameBook {
    pub fn open(args: &MonitorArgs) -> anyhow::Result<Self> {
        let pins = Pins::open(&args.pins.pin_path)?;
        let services = ask::services(args.http.http, &args.pins.pin_path);
        if services.names.is_empty() && !args.filters.service.is_empty() {
            anyhow::bail!(
                "--service: only a running agent knows the names of Services, and none with any answers at {}: start one, or \
                 name its --http",
                args.http.http
            );
        }
        let (http, pin_path) = (args.http.http, args.pins.pin_path.clone());
        let answers = ask_again_and_again(http, pin_path.clone())?;
        Ok(Self { pins, http, pin_path, services, answers, ports: BTreeMap::new() })
    }

    /// After the pins were replaced.
    pub fn reopen(&mut self, args: &MonitorArgs) -> anyhow::Result<()> {
        self.pins = Pins::open(&args.pins.pin_path)?;
        Ok(())
    }

    /// Reads the tables, and with them the names. Without an answer of the agent, the known names stay.
    pub fn refresh(&mut self) -> anyhow::Result<Vec<FrontendNow>> {
        if let Some(services) = self.answers.try_iter().last() {
            self.services = services;
        }
        let frontends = self.pins.frontends_now()?;
        self.ports = frontends.iter().map(|now| (now.frontend.id, now.scopes.service_port)).collect();
        Ok(frontends)
    }

    /// For a message: whether an agent answers.
    pub fn agent_state(&self) -> String {
        match ask::services(self.http, &self.pin_path) {
            services if services == Services::default() => format!("none answers at {}", self.http),
            _ => format!("the one at {} has not done so", self.http),
        }
    }

    pub fn service(&self, port: u32) -> Option<String> {
        self.services.names.get(&port).cloned()
    }

    /// The event of a record.
    pub fn event(&self, told: &Told) -> Option<Event> {
        let service = self.ports.get(&told.frontend).and_then(|port| self.service(*port));
        Event::of(told, Names { time: time(told.at_ns), service, interface: interface(told.edge) })
    }
}

/// Asks for the names on a thread of its own. Without an answer, nothing is sent.
fn ask_again_and_again(http: SocketAddr, pin_path: PathBuf) -> std::io::Result<Receiver<Services>> {
    let (sender, answers) = channel();
    let ask = move || {
        loop {
            std::thread::sleep(ASK_INTERVAL);
            let services = ask::services(http, &pin_path);
            if !services.names.is_empty() && sender.send(services).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("names".into()).spawn(ask)?;
    Ok(answers)
}

/// Asked for each event: interfaces come and go.
fn interface(edge: u32) -> String {
    edge_name(edge, interface_name)
}

/// The time of an event, in milliseconds.
fn time(at_ns: u64) -> String {
    let ago = boot_ns().unwrap_or(at_ns).saturating_sub(at_ns);
    let at = SystemTime::now() - Duration::from_nanos(ago);
    Timestamp::try_from(at).map_or_else(|_| "-".to_owned(), |at| format!("{at:.3}"))
}
