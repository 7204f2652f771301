//! The rows of `show flows`: the request entries. Each of them has a partner entry for the replies.

use std::net::SocketAddr;

use lb_common::addr::Addr;
use lb_common::flow::quiet_jiffies;
use lb_common::table::{Direction, GONE};
use schemars::JsonSchema;
use serde::Serialize;

use super::names::{InterfaceNames, ServiceNames};
use crate::ask::Services;
use crate::dataplane::Error;
use crate::dataplane::pins::{FlowRows, Pins};
use crate::filter::{Facet, Facets, Filtered};
use crate::render::{Item, Row};

#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FlowRow {
    /// `shop/web:http`. Known only while an agent runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    pub proto: &'static str,
    pub client: SocketAddr,
    /// The frontend that the client dialled.
    pub address: SocketAddr,
    /// The backend of the flow.
    pub backend: SocketAddr,
    /// The client's address and port as the backend sees them.
    pub seen_as: SocketAddr,
    /// `uplink`, the interface of the client's pod, or `#17` if that interface is gone.
    pub interface: String,
    pub state: String,
    /// Seconds since the last packet.
    pub idle_secs: u64,
    /// 0: the client dialled the backend itself. 4294967295: the frontend is gone since an upgrade.
    pub frontend_id: u32,
    pub pool_id: u32,
}

impl Item for FlowRow {
    const KIND: &'static str = "Flows";
}

impl Row for FlowRow {
    const TITLES: &'static [&'static str] = &[
        "SERVICE",
        "PROTO",
        "CLIENT",
        "ADDRESS",
        "BACKEND",
        "SEEN-AS",
        "INTERFACE",
        "STATE",
        "IDLE",
        "FRONTEND",
        "POOL",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.service.clone().unwrap_or_else(|| "?".into()),
            self.proto.into(),
            self.client.to_string(),
            self.address.to_string(),
            self.backend.to_string(),
            self.seen_as.to_string(),
            self.interface.clone(),
            self.state.clone(),
            format!("{} s", self.idle_secs),
            if self.frontend_id == GONE { "gone".into() } else { self.frontend_id.to_string() },
            self.pool_id.to_string(),
        ]
    }

    const USUAL: &'static [&'static str] = &["SERVICE", "CLIENT", "ADDRESS", "BACKEND", "INTERFACE", "STATE", "IDLE"];
    const EXPENDABLE: &'static [&'static str] = &["INTERFACE", "STATE", "IDLE", "SERVICE"];

    fn usual(&self) -> Vec<String> {
        vec![
            self.service.clone().unwrap_or_else(|| "?".into()),
            self.client.to_string(),
            format!("{}/{}", self.address, self.proto),
            self.backend.to_string(),
            self.interface.clone(),
            self.state.clone(),
            format!("{} s", self.idle_secs),
        ]
    }
}

impl Filtered for FlowRow {
    const FACETS: &'static [Facet] = &[Facet::Service, Facet::Address, Facet::Client, Facet::Interface];

    fn facets(&self) -> Facets<'_> {
        Facets {
            service: self.service.as_deref(),
            address: Some(self.address),
            client: Some(self.client.ip()),
            interface: Some(&self.interface),
            ..Facets::default()
        }
    }
}

pub fn read(pins: &Pins, services: &Services) -> anyhow::Result<Vec<FlowRow>> {
    let (tables, interfaces) = (pins.tables()?, InterfaceNames::read(pins)?);
    let names = (&ServiceNames::new(services, &tables), &interfaces);
    let clock = Clock::read(pins)?;
    let mut rows = rows(pins.flows4()?, clock, names);
    rows.extend(self::rows(pins.flows6()?, clock, names));
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

fn rows<A: Addr>(
    mut flows: FlowRows<A>,
    clock: Clock,
    (services, interfaces): (&ServiceNames<'_>, &InterfaceNames),
) -> Vec<FlowRow> {
    flows.retain(|(key, _)| key.direction == Direction::Request);
    flows.sort_unstable();
    let row = |(key, flow): (lb_common::table::FlowKey<A>, lb_common::table::Flow<A>)| FlowRow {
        service: services.of(flow.frontend),
        proto: key.proto.name(),
        client: SocketAddr::new(key.tuple.src.into(), key.tuple.sport),
        address: SocketAddr::new(key.tuple.dst.into(), key.tuple.dport),
        backend: SocketAddr::new(flow.to.dst.into(), flow.to.dport),
        seen_as: SocketAddr::new(flow.to.src.into(), flow.to.sport),
        interface: interfaces.of_edge(key.edge),
        state: format!("{:?}", flow.state),
        idle_secs: clock.secs(quiet_jiffies(flow.last_seen_jiffies, clock.now_jiffies)),
        frontend_id: flow.frontend,
        pool_id: flow.pool,
    };
    flows.into_iter().map(row).collect()
}
