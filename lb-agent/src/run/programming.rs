//! How long changes of endpoints take until the kernel's tables hold them, as kube-proxy measures it (MET-02).
//!
//! The clocks of two machines are compared: the controller wrote the time of the change.

use std::time::{Duration, SystemTime};

use crate::model::{Change, Object, World};

/// Changes that wait at one time. Further ones are not measured: they come while nothing can be written.
const WAITING_MAX: usize = 65_536;

/// The changes that are not programmed yet.
#[derive(Debug)]
pub struct Programming {
    /// Changes that are older than the agent say nothing about it.
    started_ms: i64,
    triggered_ms: Vec<i64>,
}

impl Programming {
    pub fn since(now: SystemTime) -> Self {
        Self { started_ms: millis(now), triggered_ms: Vec::new() }
    }

    /// Takes note of the slices that change. The world does not have the changes yet: a slice that a new list brings once
    /// more is no change.
    pub fn changing(&mut self, world: &World, batch: &[Change]) {
        for change in batch {
            let Change::Apply { object: Object::EndpointSlice(slice), .. } = change else { continue };
            let known = world.slices().get(&slice.name).and_then(|known| known.triggered_ms);
            let is_new = slice.triggered_ms != known && !slice.headless;
            let triggered = slice.triggered_ms.filter(|triggered| is_new && *triggered >= self.started_ms);
            if self.triggered_ms.len() < WAITING_MAX {
                self.triggered_ms.extend(triggered);
            }
        }
    }

    /// All changes so far are in the tables: how long each has taken.
    pub fn programmed(&mut self, now: SystemTime) -> impl Iterator<Item = Duration> {
        let now_ms = millis(now);
        let took = move |triggered: i64| Duration::from_millis(u64::try_from(now_ms - triggered).unwrap_or(0));
        self.triggered_ms.drain(..).map(took)
    }
}

/// Milliseconds since 1970; 0 before.
fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use lb_common::addr::Family;

    use super::*;
    use crate::model::{EndpointSlice, ObjectName};

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    fn slice(name: &str, triggered_ms: Option<i64>) -> Change {
        let slice = EndpointSlice {
            name: ObjectName::new("a", name),
            service: "x".into(),
            family: Family::V4,
            headless: false,
            is_mirror: false,
            triggered_ms,
            ports: Vec::new(),
            endpoints: Vec::new(),
        };
        Change::Apply { object: Object::EndpointSlice(slice), warnings: Vec::new() }
    }

    #[test]
    fn each_change_is_measured_once() {
        let mut world = World::default();
        let mut programming = Programming::since(at(1_000));
        let mut change = |programming: &mut Programming, changes: &[Change]| {
            programming.changing(&world, changes);
            for change in changes {
                world.apply(change.clone());
            }
        };
        // Older than the agent, and without a time.
        change(&mut programming, &[slice("1", Some(999)), slice("2", None)]);
        assert_eq!(programming.programmed(at(2_000)).count(), 0);
        change(&mut programming, &[slice("1", Some(3_000)), slice("2", Some(3_500))]);
        let took: Vec<Duration> = programming.programmed(at(4_000)).collect();
        assert_eq!(took, [Duration::from_secs(1), Duration::from_millis(500)]);
        // A new list brings the same slices; a clock that is ahead is no time at all.
        change(&mut programming, &[slice("1", Some(3_000)), slice("2", Some(9_000))]);
        assert_eq!(programming.programmed(at(5_000)).collect::<Vec<_>>(), [Duration::ZERO]);
    }
}
