//! What the log says: one line for each change.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Agent;
use crate::controller::{Outcome, Step};
use crate::dataplane::Dataplane;
use crate::health;
use crate::model::{Warning, WarningKind};
use crate::run::troubles::Tried;

/// New warnings that are logged in full per apply. The rest are only counted.
const LOGGED_WARNINGS_MAX: usize = 20;

impl<D: Dataplane> Agent<D> {
    /// Logs new warnings, and how many are over.
    pub(super) fn tell_warnings(&mut self) {
        let warnings = self.controller.warnings().chain(self.outlook.warnings()).chain(&self.crowding);
        let warnings = warnings.chain(self.health.iter().flat_map(health::Keeper::warnings));
        let warnings: Vec<Warning> = warnings.cloned().chain(self.ipsec_warning()).collect();
        let current: BTreeSet<Warning> = warnings.iter().cloned().collect();
        let new: Vec<&Warning> = current.difference(&self.logged).collect();
        for warning in new.iter().take(LOGGED_WARNINGS_MAX) {
            let kind = warning.kind.name();
            // Each new Service waits a moment for its balancer.
            if warning.kind == WarningKind::Unserved {
                tracing::info!(kind, "{warning}");
            } else {
                tracing::warn!(kind, "{warning}");
            }
        }
        if new.len() > LOGGED_WARNINGS_MAX {
            tracing::warn!(more = new.len() - LOGGED_WARNINGS_MAX, "further warnings: `lb-agent show warnings`");
        }
        let over = self.logged.difference(&current).count();
        if over > 0 {
            tracing::info!(over, left = current.len(), "warnings no longer apply");
        }
        self.logged = current;
        self.status.warnings = warnings.into();
    }

    pub(super) fn tell_step(&mut self, step: &Step, started: Instant, ended: Instant) {
        let Step { outcome, services, ops, rows, failed_rows, errors, draining } = step;
        if *outcome == Outcome::NotListed {
            return;
        }
        let took = ended.saturating_duration_since(started);
        self.metrics.applied(took, errors);
        let ms = took.as_millis();
        let mut reasons: Vec<String> = errors.iter().map(ToString::to_string).collect();
        reasons.dedup();
        if *failed_rows == 0 {
            self.troubles.over(Tried::Apply);
            if *ops > 0 {
                let services = *services;
                tracing::info!(services, ops, rows, draining, ms, "applied");
            }
        } else if self.troubles.is_news(Tried::Apply, &reasons.join("\n")) {
            tracing::warn!(ops, rows, failed_rows, draining, ms, "applied in part, trying again later");
        } else {
            return;
        }
        for error in reasons {
            tracing::warn!(error, "not written");
        }
    }
}
