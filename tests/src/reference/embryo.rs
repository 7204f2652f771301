//! Half-open connections are bounded: above the limit, each new one evicts the oldest.

use lb_common::addr::Proto;

use super::Reference;
use super::connection::{Connection, State};
use super::rule::Rule;
use crate::packet::End;

/// A connection by the tuple of its requests.
type Name = (u32, Proto, End, End);

/// How many half-open connections may still be made, and the ones that were made.
#[derive(Debug)]
pub struct Embryos {
    max: usize,
    left: usize,
    refilled_secs: Option<u64>,
    made: Vec<Name>,
}

/// The allowance is restored after this time.
const REFILL_SECS: u64 = 60;

impl Embryos {
    pub const fn new(max: usize) -> Self {
        Self { max, left: max, refilled_secs: None, made: Vec::new() }
    }

    /// Returns the allowance of a connection that became established.
    pub fn give_back(&mut self) -> bool {
        let is_missing = self.left < self.max;
        self.left += usize::from(is_missing);
        is_missing
    }
}

impl Reference {
    /// Counts a new connection, and evicts the oldest half-open one if the allowance is used up.
    pub(super) fn bound_embryos(&mut self, made: &Connection) {
        let (now_secs, embryos) = (self.now_secs, &mut self.embryos);
        let is_refill = embryos.refilled_secs.is_none_or(|refilled_secs| now_secs - refilled_secs >= REFILL_SECS);
        if is_refill {
            if embryos.left < embryos.max {
                self.hits.hit(Rule::EmbryosRefilled);
            }
            (embryos.left, embryos.refilled_secs) = (embryos.max, Some(now_secs));
        }
        embryos.made.push((made.edge, made.proto, made.client, made.service));
        let is_allowed = embryos.left > 0;
        embryos.left = embryos.left.saturating_sub(1);
        let Some(oldest) = embryos.made.len().checked_sub(embryos.max + 1).filter(|_| !is_allowed) else { return };
        let (edge, proto, client, service) = embryos.made[oldest];
        let Some(oldest) = self.connections.iter().position(|known| known.is_request(edge, proto, (client, service)))
        else {
            return;
        };
        let known = &self.connections[oldest];
        if known.has_ended() || matches!(known.state, State::Asked | State::Answered) {
            self.hits.hit(Rule::EmbryoEvicted);
            self.connections.remove(oldest);
        } else {
            self.hits.hit(Rule::EmbryoSpared);
        }
    }
}
