//! The rows of `show drops`: the last packet of each family that was refused for each reason.

use std::net::SocketAddr;

use lb_common::addr::Addr;
use lb_common::flow::quiet_jiffies;
use lb_common::table::{Counter, Dropped};
use serde::Serialize;

use super::flows::{Clock, edge};
use crate::dataplane::Error;
use crate::dataplane::drops::LastDrops;
use crate::dataplane::pins::Pins;
use crate::render::Row;

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct DropRow {
    /// The counter of the reason.
    pub reason: &'static str,
    /// Seconds since the last packet.
    pub age_secs: u64,
    pub proto: &'static str,
    /// Source and destination of the last packet, as it came.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// `uplink`, or the interface index of the pod.
    pub edge: String,
    /// The packets that are counted.
    pub meaning: &'static str,
}

impl Row for DropRow {
    const TITLES: &'static [&'static str] = &["REASON", "LAST", "PROTO", "SOURCE", "DESTINATION", "EDGE", "MEANING"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.reason.into(),
            format!("{} s ago", self.age_secs),
            self.proto.into(),
            self.source.to_string(),
            self.destination.to_string(),
            self.edge.clone(),
            self.meaning.into(),
        ]
    }
}

pub fn read(pins: &Pins) -> Result<Vec<DropRow>, Error> {
    let clock = Clock::read(pins)?;
    let mut rows = rows(pins.drops().last4()?, clock);
    rows.extend(self::rows(pins.drops().last6()?, clock));
    rows.sort_by_key(|row| row.age_secs);
    Ok(rows)
}

fn rows<A: Addr>(drops: LastDrops<A>, clock: Clock) -> Vec<DropRow> {
    let row = |(reason, Dropped { at_jiffies, key, .. }): (Counter, Dropped<A>)| DropRow {
        reason: reason.name(),
        age_secs: clock.secs(quiet_jiffies(at_jiffies, clock.now_jiffies)),
        proto: key.proto.name(),
        source: SocketAddr::new(key.tuple.src.into(), key.tuple.sport),
        destination: SocketAddr::new(key.tuple.dst.into(), key.tuple.dport),
        edge: edge(key.edge),
        meaning: reason.meaning(),
    };
    drops.into_iter().map(row).collect()
}
