//! Decides when to do what, as a pure function of past events: the first change is applied at once, further changes at
//! an interval, retries with back-off, audits and reclaims at long intervals.

use std::time::{Duration, Instant};

use crate::config::Times;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The interval of checks for draining frontends that no flow refers to. A check reads all flows.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(30);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Apply,
    /// Attach again: an interface failed.
    Links,
    Reclaim,
    Audit,
    /// Drop frontends of an earlier run that no object claims.
    Unclaimed,
    /// Look for expired flows.
    Collect,
}

/// Deadlines.
#[derive(Debug)]
pub struct Timetable {
    times: Times,
    apply_at: Option<Instant>,
    /// The earliest time of the next apply.
    rested_at: Option<Instant>,
    retry_after: Duration,
    links_at: Option<Instant>,
    links_retry_after: Duration,
    reclaim_at: Option<Instant>,
    audit_at: Instant,
    /// Happens once.
    unclaimed_at: Option<Instant>,
    collect_at: Instant,
}

impl Timetable {
    pub fn new(times: Times, now: Instant) -> Self {
        let (audit_at, collect_at) = (now + times.audit_interval, now + times.gc_interval);
        Self {
            times,
            apply_at: None,
            rested_at: None,
            retry_after: RETRY_MIN,
            links_at: None,
            links_retry_after: RETRY_MIN,
            reclaim_at: None,
            audit_at,
            unclaimed_at: Some(now + times.keep_unclaimed),
            collect_at,
        }
    }

    /// A change: apply now, or when the interval since the last apply is over.
    pub fn changed(&mut self, now: Instant) {
        let earliest = self.rested_at.map_or(now, |rested| rested.max(now));
        self.apply_at = Some(self.apply_at.map_or(earliest, |at| at.min(earliest)));
    }

    /// An apply ended at `now` and was complete.
    pub fn succeeded(&mut self, now: Instant) {
        self.rested_at = Some(now + self.times.apply_interval);
        self.retry_after = RETRY_MIN;
        self.apply_at = None;
    }

    /// An apply failed at `now`: retry, after twice the previous time.
    pub fn failed(&mut self, now: Instant) {
        self.rested_at = Some(now + self.times.apply_interval);
        self.apply_at = Some(now + self.retry_after);
        self.retry_after = (self.retry_after * 2).min(RETRY_MAX);
    }

    /// Every wanted interface is attached.
    pub fn links_succeeded(&mut self) {
        self.links_at = None;
        self.links_retry_after = RETRY_MIN;
    }

    /// An interface could not be attached at `now`: retry, after twice the previous time.
    pub fn links_failed(&mut self, now: Instant) {
        self.links_at = Some(now + self.links_retry_after);
        self.links_retry_after = (self.links_retry_after * 2).min(RETRY_MAX);
    }

    /// Sets the number of draining frontends.
    pub fn draining(&mut self, count: usize, now: Instant) {
        self.reclaim_at = match (count, self.reclaim_at) {
            (0, _) => None,
            (_, Some(at)) if at > now => Some(at),
            _ => Some(now + RECLAIM_INTERVAL),
        };
    }

    /// Sets the next audit, one interval after `now`.
    pub fn audited(&mut self, now: Instant) {
        self.audit_at = now + self.times.audit_interval;
    }

    /// A walk over the flows ended at `now`.
    pub fn collected(&mut self, now: Instant) {
        self.collect_at = now + self.times.gc_interval;
    }

    /// The unclaimed frontends were dropped.
    pub fn unclaimed_dropped(&mut self) {
        self.unclaimed_at = None;
    }

    /// The most urgent task at `now`.
    pub fn due(&self, now: Instant) -> Option<Due> {
        let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_over(self.apply_at) {
            Some(Due::Apply)
        } else if is_over(self.unclaimed_at) {
            Some(Due::Unclaimed)
        } else if is_over(self.links_at) {
            Some(Due::Links)
        } else if is_over(self.reclaim_at) {
            Some(Due::Reclaim)
        } else if self.audit_at <= now {
            Some(Due::Audit)
        } else if self.collect_at <= now {
            Some(Due::Collect)
        } else {
            None
        }
    }

    /// The time of the next task.
    pub fn next(&self) -> Instant {
        [self.apply_at, self.links_at, self.reclaim_at, self.unclaimed_at]
            .into_iter()
            .flatten()
            .fold(self.audit_at.min(self.collect_at), Instant::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(50);

    fn timetable() -> (Timetable, Instant) {
        let start = Instant::now();
        let times = Times {
            apply_interval: INTERVAL,
            audit_interval: Duration::from_mins(5),
            gc_interval: Duration::from_mins(10),
            keep_unclaimed: Duration::from_hours(1),
        };
        (Timetable::new(times, start), start)
    }

    #[test]
    fn idle_agent_applies_at_once() {
        let (mut timetable, start) = timetable();
        assert_eq!(timetable.due(start), None);
        timetable.changed(start);
        assert_eq!(timetable.due(start), Some(Due::Apply));
        timetable.succeeded(start);
        assert_eq!(timetable.due(start), None);
        let later = start + INTERVAL;
        timetable.changed(later);
        assert_eq!(timetable.due(later), Some(Due::Apply));
    }

    /// SY-05.
    #[test]
    fn storm_is_applied_at_the_interval() {
        let (mut timetable, start) = timetable();
        let mut applies = 0;
        for ms in 0..1000 {
            let now = start + Duration::from_millis(ms);
            timetable.changed(now);
            if timetable.due(now) == Some(Due::Apply) {
                timetable.succeeded(now);
                applies += 1;
            }
        }
        assert_eq!(applies, 20);
    }

    #[test]
    fn retries_back_off_and_a_change_is_not_delayed_by_them() {
        let (mut timetable, start) = timetable();
        let mut now = start;
        for _ in 0..10 {
            timetable.failed(now);
            assert_eq!(timetable.due(now), None);
            now = timetable.next();
            assert_eq!(timetable.due(now), Some(Due::Apply));
        }
        timetable.failed(now);
        assert_eq!(timetable.next(), now + RETRY_MAX);
        timetable.changed(now);
        assert_eq!(timetable.next(), now + INTERVAL);
        timetable.succeeded(now + INTERVAL);
        timetable.failed(now + INTERVAL);
        assert_eq!(timetable.next(), now + INTERVAL + RETRY_MIN);
    }

    #[test]
    fn reclaims_while_frontends_drain() {
        let (mut timetable, start) = timetable();
        timetable.draining(2, start);
        timetable.draining(1, start + Duration::from_secs(1));
        let at = start + RECLAIM_INTERVAL;
        assert_eq!((timetable.next(), timetable.due(at)), (at, Some(Due::Reclaim)));
        timetable.draining(1, at);
        assert_eq!(timetable.next(), at + RECLAIM_INTERVAL);
        timetable.draining(0, at);
        assert_eq!(timetable.due(at + RECLAIM_INTERVAL), None);
    }

    #[test]
    fn interfaces_are_retried_apart_from_the_tables() {
        let (mut timetable, start) = timetable();
        timetable.links_failed(start);
        timetable.changed(start);
        timetable.succeeded(start);
        assert_eq!((timetable.next(), timetable.due(start + RETRY_MIN)), (start + RETRY_MIN, Some(Due::Links)));
        timetable.links_failed(start + RETRY_MIN);
        assert_eq!(timetable.next(), start + RETRY_MIN * 3);
        timetable.links_succeeded();
        assert_eq!(timetable.due(start + RETRY_MIN * 3), None);
    }

    #[test]
    fn collects_until_a_walk_is_at_its_end() {
        let (mut timetable, start) = timetable();
        let at = start + Duration::from_mins(10);
        timetable.audited(at);
        assert_eq!(timetable.due(at), Some(Due::Collect));
        assert_eq!((timetable.next(), timetable.due(at)), (at, Some(Due::Collect)));
        timetable.collected(at);
        assert_eq!(timetable.due(at), None);
    }

    #[test]
    fn what_nobody_claims_is_dropped_once() {
        let (mut timetable, start) = timetable();
        let at = start + Duration::from_hours(1);
        timetable.audited(at);
        timetable.collected(at);
        assert_eq!(timetable.due(at), Some(Due::Unclaimed));
        timetable.unclaimed_dropped();
        assert_eq!(timetable.due(at), None);
    }

    #[test]
    fn audits_once_in_a_while() {
        let (mut timetable, start) = timetable();
        let at = start + Duration::from_mins(5);
        assert_eq!((timetable.next(), timetable.due(at)), (at, Some(Due::Audit)));
        timetable.audited(at);
        assert_eq!(timetable.due(at), None);
    }
}
