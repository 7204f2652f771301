//! The lease by which `lb-agent monitor` lets the programs tell what happens.
//!
//! The command writes until when it listens, again and again. The agent sees it, and gives the hooks programs that tell.
//! If the command is killed, the lease ends.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use lb_common::table::Monitor;
use lb_common::table::maps::SHARED;

use super::mapped::{Array, Mapped};
use super::pinned::find_pin;
use super::{Error, Refusal, sys};

/// How long a lease lasts. The command renews it each second.
pub const LEASE: Duration = Duration::from_secs(10);

/// What the agent says of the attached programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    Silent,
    Telling,
    /// `--monitor=off`.
    Refused,
}

/// The element of the map `monitor`, mapped into this process.
pub struct Lease(Mapped<Monitor>);

impl Lease {
    /// `None` if an older version made the pins.
    pub fn find(directory: &Path) -> Result<Option<Self>, Error> {
        let Some(_) = find_pin(directory, SHARED.monitor.name())? else { return Ok(None) };
        Ok(Some(Self(Array::open(directory, SHARED.monitor)?.all()?)))
    }

    /// Whether the command listens.
    pub fn is_live(&self) -> Result<bool, Error> {
        let [until, ..] = self.words()?;
        Ok(boot_ns()? < until.load(Relaxed))
    }

    pub fn set_telling(&self, telling: Telling) -> Result<(), Error> {
        let [_, _, state, ..] = self.words()?;
        let word = match telling {
            Telling::Silent => Monitor::SILENT,
            Telling::Telling => Monitor::TELLING,
            Telling::Refused => Monitor::REFUSED,
        };
        state.store(word, Relaxed);
        Ok(())
    }

    /// What the agent says of the attached programs.
    pub fn telling(&self) -> Result<Telling, Error> {
        let [_, _, state, ..] = self.words()?;
        Ok(match state.load(Relaxed) {
            Monitor::TELLING => Telling::Telling,
            Monitor::REFUSED => Telling::Refused,
            _ => Telling::Silent,
        })
    }

    /// Says that the command listens, for [`LEASE`], and wants so many events per second at most.
    pub fn renew(&self, per_sec: u32) -> Result<(), Error> {
        let [until, wanted, ..] = self.words()?;
        wanted.store(per_sec.into(), Relaxed);
        until.store(boot_ns()? + LEASE.as_nanos() as u64, Relaxed);
        Ok(())
    }

    /// Ends the lease.
    pub fn end(&self) -> Result<(), Error> {
        let [until, ..] = self.words()?;
        until.store(0, Relaxed);
        Ok(())
    }

    /// How many events were lost so far.
    pub fn lost(&self) -> Result<u64, Error> {
        let [_, _, _, lost, _] = self.words()?;
        Ok(lost.load(Relaxed))
    }

    /// The words of the element: until when, events per second, state, lost events, and the programs' own.
    fn words(&self) -> Result<[&AtomicU64; 5], Error> {
        self.0.words(0).ok_or_else(|| Refusal::Torn { map: "monitor" }.into())
    }
}

/// Nanoseconds since the boot, as the programs read them.
pub fn boot_ns() -> Result<u64, Error> {
    sys::boot_ns().map_err(|source| Error::Kernel { op: "asking for the time since the boot", source })
}
