//! The programs tell what happens while `lb-agent monitor` listens.

use std::time::{Duration, Instant};

use super::{Agent, Phase};
use crate::dataplane::Dataplane;
use crate::dataplane::lease::Telling;
use crate::run::troubles::Tried;

/// The interval of looks whether `lb-agent monitor` listens: two words of shared memory.
pub const LISTEN_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a failure.
const LISTEN_RETRY_INTERVAL: Duration = Duration::from_secs(30);

impl<D: Dataplane> Agent<D> {
    /// Lets the programs tell what happens while `lb-agent monitor` listens. Loading them takes a moment, so after a
    /// failure the next attempt waits.
    pub(super) fn follow_monitor(&mut self, now: Instant) {
        if self.phase != Phase::Forwarding || now < self.listen_at {
            return;
        }
        self.listen_at = now + LISTEN_INTERVAL;
        match self.dataplane.follow_monitor() {
            Ok(Some(telling)) => {
                self.troubles.over(Tried::Monitor);
                match telling {
                    Telling::Telling => tracing::info!("`lb-agent monitor` listens: the programs tell what happens"),
                    Telling::Silent | Telling::Refused => {
                        tracing::info!("`lb-agent monitor` has ended: the programs tell nothing");
                    }
                }
            }
            Ok(None) => self.troubles.over(Tried::Monitor),
            Err(error) => {
                if self.troubles.is_news(Tried::Monitor, &error) {
                    tracing::warn!(%error, "the programs could not be exchanged for `lb-agent monitor`, trying again later");
                }
                self.listen_at = now + LISTEN_RETRY_INTERVAL;
            }
        }
    }
}
