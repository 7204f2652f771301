//! The rows of `show counters`: packets and bytes by reason, summed over all CPUs.

use schemars::JsonSchema;
use serde::Serialize;

use crate::dataplane::Error;
use crate::dataplane::pins::Pins;
use crate::filter::{Facet, Facets, Filtered};
use crate::render::{Item, Row};

#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CounterRow {
    pub counter: &'static str,
    pub packets: u64,
    pub bytes: u64,
    /// The packets that are counted.
    pub meaning: &'static str,
}

impl Item for CounterRow {
    const KIND: &'static str = "Counters";
}

impl Filtered for CounterRow {
    const FACETS: &'static [Facet] = &[];

    fn facets(&self) -> Facets<'_> {
        Facets::default()
    }
}

impl Row for CounterRow {
    const TITLES: &'static [&'static str] = &["COUNTER", "PACKETS", "BYTES", "MEANING"];

    fn cells(&self) -> Vec<String> {
        vec![self.counter.into(), self.packets.to_string(), self.bytes.to_string(), self.meaning.into()]
    }
}

pub fn read(pins: &Pins) -> Result<Vec<CounterRow>, Error> {
    let counters = pins.counters()?;
    let row = |(counter, value): (lb_common::table::Counter, lb_common::table::CounterValue)| CounterRow {
        counter: counter.name(),
        packets: value.packets,
        bytes: value.bytes,
        meaning: counter.meaning(),
    };
    Ok(counters.into_iter().map(row).collect())
}
