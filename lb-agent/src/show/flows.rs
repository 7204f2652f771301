//! The rows of `show flows`: the request entries. Each of them has a partner entry for the replies.

use std::net::SocketAddr;

use lb_common::addr::Addr;
use lb_common::flow::quiet_jiffies;
use lb_common::table::{Direction, EDGE_UPLINK};
use serde::Serialize;

use crate::dataplane::Error;
use crate::dataplane::pins::{FlowRows, Pins};
use crate::render::Row;

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FlowRow {
    pub proto: &'static str,
    pub client: SocketAddr,
    /// The frontend that the client dialled.
    pub dialled: SocketAddr,
    /// The backend of the flow.
    pub backend: SocketAddr,
    /// The client's address and port as the backend sees them.
    pub seen_as: SocketAddr,
    /// `uplink`, or the interface index of the client's pod.
    pub edge: String,
    pub state: String,
    pub idle_secs: u64,
    pub frontend: u32,
    pub pool: u32,
}

impl Row for FlowRow {
    const TITLES: &'static [&'static str] =
        &["PROTO", "CLIENT", "DIALLED", "BACKEND", "SEEN AS", "EDGE", "STATE", "IDLE", "FRONTEND"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.proto.into(),
            self.client.to_string(),
            self.dialled.to_string(),
            self.backend.to_string(),
            self.seen_as.to_string(),
            self.edge.clone(),
            self.state.clone(),
            format!("{} s", self.idle_secs),
            self.frontend.to_string(),
        ]
    }
}

pub fn read(pins: &Pins) -> Result<Vec<FlowRow>, Error> {
    let clock = Clock::read(pins)?;
    let mut rows = rows(pins.flows4()?, clock);
    rows.extend(self::rows(pins.flows6()?, clock));
    Ok(rows)
}

/// The kernel's clock, with which time stamps are compared.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub now_jiffies: u64,
    jiffies_per_sec: u64,
}

impl Clock {
    pub fn read(pins: &Pins) -> Result<Self, Error> {
        Ok(Self { now_jiffies: pins.now_jiffies()?, jiffies_per_sec: pins.owner()?.jiffies_per_sec.into() })
    }

    pub fn secs(self, jiffies: u64) -> u64 {
        jiffies / self.jiffies_per_sec.max(1)
    }
}

/// `uplink`, or the interface index of a pod.
pub(super) fn edge(edge: u32) -> String {
    if edge == EDGE_UPLINK { "uplink".into() } else { edge.to_string() }
}

fn rows<A: Addr>(mut flows: FlowRows<A>, clock: Clock) -> Vec<FlowRow> {
    flows.retain(|(key, _)| key.direction == Direction::Request);
    flows.sort_unstable();
    let row = |(key, flow): (lb_common::table::FlowKey<A>, lb_common::table::Flow<A>)| FlowRow {
        proto: key.proto.name(),
        client: SocketAddr::new(key.tuple.src.into(), key.tuple.sport),
        dialled: SocketAddr::new(key.tuple.dst.into(), key.tuple.dport),
        backend: SocketAddr::new(flow.to.dst.into(), flow.to.dport),
        seen_as: SocketAddr::new(flow.to.src.into(), flow.to.sport),
        edge: edge(key.edge),
        state: format!("{:?}", flow.state),
        idle_secs: clock.secs(quiet_jiffies(flow.last_seen_jiffies, clock.now_jiffies)),
        frontend: flow.frontend,
        pool: flow.pool,
    };
    flows.into_iter().map(row).collect()
}
