//! The rows of `show drops`: the last packet of each family that was refused for each reason.

use std::net::SocketAddr;

use lb_common::addr::Addr;
use lb_common::flow::quiet_jiffies;
use lb_common::table::{Counter, Dropped};
use schemars::JsonSchema;
use serde::Serialize;

use super::flows::Clock;
use super::names::{InterfaceNames, ServiceNames};
use crate::ask::Services;
use crate::dataplane::drops::LastDrops;
use crate::dataplane::pins::Pins;
use crate::filter::{Facet, Facets, Filtered};
use crate::render::{Item, Row};

#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DropRow {
    /// The counter of the reason.
    pub reason: &'static str,
    /// Seconds since the last packet.
    pub age_secs: u64,
    pub proto: &'static str,
    /// Source and destination of the last packet, as it came.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// The Service at the destination, as `shop/web:http`. Known only while an agent runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `uplink`, the interface of the pod, or `#17` if that interface is gone.
    pub interface: String,
    /// The packets that are counted.
    pub meaning: &'static str,
}

impl Item for DropRow {
    const KIND: &'static str = "Drops";
}

impl Row for DropRow {
    const TITLES: &'static [&'static str] =
        &["REASON", "LAST", "PROTO", "SOURCE", "DESTINATION", "SERVICE", "INTERFACE", "MEANING"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.reason.into(),
            format!("{} s ago", self.age_secs),
            self.proto.into(),
            self.source.to_string(),
            self.destination.to_string(),
            self.service.clone().unwrap_or_else(|| "?".into()),
            self.interface.clone(),
            self.meaning.into(),
        ]
    }

    const USUAL: &'static [&'static str] =
        &["REASON", "LAST", "SOURCE", "DESTINATION", "SERVICE", "INTERFACE", "MEANING"];
    const EXPENDABLE: &'static [&'static str] = &["MEANING", "INTERFACE", "SERVICE"];

    fn usual(&self) -> Vec<String> {
        vec![
            self.reason.into(),
            format!("{} s ago", self.age_secs),
            self.source.to_string(),
            format!("{}/{}", self.destination, self.proto),
            self.service.clone().unwrap_or_else(|| "?".into()),
            self.interface.clone(),
            self.meaning.into(),
        ]
    }
}

impl Filtered for DropRow {
    const FACETS: &'static [Facet] = &[Facet::Service, Facet::Address, Facet::Client, Facet::Interface];

    fn facets(&self) -> Facets<'_> {
        Facets {
            service: self.service.as_deref(),
            address: Some(self.destination),
            client: Some(self.source.ip()),
            interface: Some(&self.interface),
            ..Facets::default()
        }
    }
}

pub fn read(pins: &Pins, services: &Services) -> anyhow::Result<Vec<DropRow>> {
    let (tables, interfaces) = (pins.tables()?, InterfaceNames::read(pins)?);
    let names = (&ServiceNames::new(services, &tables), &interfaces);
    let clock = Clock::read(pins)?;
    let mut rows = rows(pins.drops().last4()?, clock, names);
    rows.extend(self::rows(pins.drops().last6()?, clock, names));
    rows.sort_by_key(|row| row.age_secs);
    Ok(rows)
}

fn rows<A: Addr>(
    drops: LastDrops<A>,
    clock: Clock,
    (services, interfaces): (&ServiceNames<'_>, &InterfaceNames),
) -> Vec<DropRow> {
    let row = |(reason, Dropped { at_jiffies, key, .. }): (Counter, Dropped<A>)| DropRow {
        reason: reason.name(),
        age_secs: clock.secs(quiet_jiffies(at_jiffies, clock.now_jiffies)),
        proto: key.proto.name(),
        source: SocketAddr::new(key.tuple.src.into(), key.tuple.sport),
        destination: SocketAddr::new(key.tuple.dst.into(), key.tuple.dport),
        service: services.at(SocketAddr::new(key.tuple.dst.into(), key.tuple.dport), key.proto),
        interface: interfaces.of_edge(key.edge),
        meaning: reason.meaning(),
    };
    drops.into_iter().map(row).collect()
}
