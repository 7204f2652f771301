//! `monitor`: prints what happens to packets and dials, as it happens.
//!
//! The programs tell only while this command runs: it writes a lease, the running agent sees it and exchanges the programs
//! (`dataplane::monitor`). Frontends that come, go or change are found by comparing the tables.

mod changes;
mod filter;
mod names;
mod output;

use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

use self::changes::Frontends;
use self::names::NameBook;
use self::output::{Flow, Printer};
use crate::args::MonitorArgs;
use crate::dataplane::lease::Telling;
use crate::dataplane::monitor::Listener;

/// The pause between two looks into the ring.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The pause between two renewals of the lease and comparisons of the tables.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);
/// How long the agent may take to exchange the programs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prints until a signal, the limit, or a closed pipe.
pub fn run(args: &MonitorArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        let mut monitor = Monitor::open(args)?;
        loop {
            if monitor.turn()? == Flow::Over {
                return Ok(());
            }
            tokio::select! {
                _ = interrupted.recv() => return Ok(()),
                _ = terminated.recv() => return Ok(()),
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    })
}

struct Monitor<'a> {
    args: &'a MonitorArgs,
    listener: Listener,
    names: NameBook,
    frontends: Frontends,
    printer: Printer<'a>,
    started: Instant,
    /// Whether the programs have begun to tell.
    is_heard: bool,
    renew_at: Instant,
}

impl<'a> Monitor<'a> {
    fn open(args: &'a MonitorArgs) -> anyhow::Result<Self> {
        let listener = Listener::open(&args.pins.pin_path)?;
        let now = Instant::now();
        let mut names = NameBook::open(args)?;
        let frontends = Frontends::new(names.refresh()?);
        let printer = Printer::new(args);
        Ok(Self { args, listener, names, frontends, printer, started: now, is_heard: false, renew_at: now })
    }

    fn turn(&mut self) -> anyhow::Result<Flow> {
        let now = Instant::now();
        if now >= self.renew_at {
            self.renew_at = now + RENEW_INTERVAL;
            self.renew()?;
        }
        if !self.is_heard {
            self.await_programs(now)?;
        }
        let mut told = Vec::new();
        self.listener.take(|record| told.push(record));
        for record in told {
            if let Some(event) = self.names.event(&record)
                && self.printer.event(&event)? == Flow::Over
            {
                return Ok(Flow::Over);
            }
        }
        self.printer.check()
    }

    /// What is done each second.
    fn renew(&mut self) -> anyhow::Result<()> {
        if self.listener.is_outdated() {
            // An agent with tables of other sizes has replaced the maps.
            self.listener = Listener::open(&self.args.pins.pin_path)?;
            self.names.reopen(self.args)?;
        }
        self.listener.renew(self.args.events_per_sec)?;
        let frontends = self.names.refresh()?;
        for event in self.frontends.changed(frontends, &self.names) {
            self.printer.event(&event)?;
        }
        match self.listener.lost()? {
            0 => Ok(()),
            lost => self.printer.lost(lost, self.args.events_per_sec),
        }
    }

    /// Waits until the agent has exchanged the programs.
    fn await_programs(&mut self, now: Instant) -> anyhow::Result<()> {
        match self.listener.telling()? {
            Telling::Telling => {
                self.is_heard = true;
                self.printer.begin()
            }
            Telling::Refused => bail!(
                "the running agent has --monitor=off: its programs tell nothing; start it with --monitor=auto (a restart \
                 loses no connection)"
            ),
            Telling::Silent if now > self.started + PATIENCE => bail!(
                "the programs tell nothing: only a running agent can exchange them, and {}; start one (`lb-agent run`), or \
                 read its log",
                self.names.agent_state()
            ),
            Telling::Silent => Ok(()),
        }
    }
}
