//! What was rejected and dropped, of a frontend or an interface.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::dataplane::drop_counts::Drops;
use crate::event::{EventKind, kind};

/// Rejected packets and dials, and dropped ones by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Losses {
    /// Answered with an ICMP error, or refused (ECONNREFUSED).
    pub rejects: u64,
    pub drops: Vec<Loss>,
}

/// What was dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Loss {
    /// The counter of the reason.
    pub reason: &'static str,
    pub packets: u64,
    /// 0 for dials of sockets.
    pub bytes: u64,
}

impl Losses {
    /// The sums by something that rows have in common.
    pub fn by(rows: &[Drops], what: impl Fn(&Drops) -> u32) -> BTreeMap<u32, Self> {
        let mut sums: BTreeMap<u32, Self> = BTreeMap::new();
        for row in rows {
            sums.entry(what(row)).or_default().add(row);
        }
        sums
    }

    fn add(&mut self, row: &Drops) {
        if kind(row.reason) == Some(EventKind::Reject) {
            self.rejects += row.packets;
            return;
        }
        let reason = row.reason.name();
        match self.drops.iter_mut().find(|loss| loss.reason == reason) {
            Some(loss) => {
                loss.packets += row.packets;
                loss.bytes += row.bytes;
            }
            None => self.drops.push(Loss { reason, packets: row.packets, bytes: row.bytes }),
        }
    }

    /// Packets that were dropped, for whatever reason.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(|loss| loss.packets).sum()
    }

    /// Packets and dials that were rejected or dropped.
    pub fn total(&self) -> u64 {
        self.rejects + self.dropped()
    }
}

#[cfg(test)]
mod tests {
    use lb_common::table::Counter;

    use super::*;

    #[test]
    fn rows_are_summed_by_frontend_and_by_interface() {
        let row = |frontend, edge, reason, packets| Drops {
            frontend,
            edge,
            reason,
            packets,
            bytes: 60 * packets,
            last_jiffies: 1,
        };
        let rows = [
            row(1, 0, Counter::Rejected, 2),
            row(1, 7, Counter::DropSourceRange, 3),
            row(1, 8, Counter::DropSourceRange, 4),
            row(1, 8, Counter::SocketRefused, 1),
            row(2, 8, Counter::DropNoLocalEndpoint, 5),
        ];
        let of_frontends = Losses::by(&rows, |row| row.frontend);
        let loss = Loss { reason: "drop_source_range", packets: 7, bytes: 420 };
        assert_eq!(of_frontends[&1], Losses { rejects: 3, drops: vec![loss] });
        assert_eq!((of_frontends[&2].dropped(), of_frontends[&1].total()), (5, 10));
        let of_edges = Losses::by(&rows, |row| row.edge);
        assert_eq!((of_edges[&8].rejects, of_edges[&8].dropped(), of_edges[&8].drops.len()), (1, 9, 2));
    }
}
