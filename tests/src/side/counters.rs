//! What the agent has counted of datagrams to some addresses.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::scene::Scene;

/// Counters that also grow by other traffic, such as the end of an earlier connection, or by no packet. What they count of
/// the datagrams is counted by address as well.
const NOISY: [&str; 4] = ["request_translated", "reply_translated", "flow_created", "flow_collected"];

/// Numbers by what they count.
#[derive(Debug, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    pub fn read(scene: &Scene) -> Self {
        let mut numbers = BTreeMap::new();
        for row in scene.agent.rows("frontends").iter().filter(|row| row["proto"] == "udp") {
            for what in ["flows", "packets"] {
                let name = name(row["address"].as_str().expect("an address"), what);
                numbers.insert(name, row[what].as_u64().expect("a number"));
            }
        }
        for row in scene.agent.rows("counters") {
            let name = row["counter"].as_str().expect("a name");
            if !NOISY.contains(&name) {
                numbers.insert(name.to_owned(), row["packets"].as_u64().expect("a number"));
            }
        }
        Self(numbers)
    }

    /// Nothing.
    pub const fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds a flow with one datagram and its answer.
    pub fn add_exchange(&mut self, to: SocketAddr) {
        for (what, count) in [("flows", 1), ("packets", 2)] {
            *self.0.entry(name(&to.to_string(), what)).or_default() += count;
        }
    }

    pub fn add(&mut self, counter: &str, packets: u64) {
        *self.0.entry(counter.to_owned()).or_default() += packets;
    }

    /// What has been counted since, without what stayed.
    pub fn since(self, before: &Self) -> Self {
        let grown = self.0.into_iter().map(|(name, number)| {
            let before = before.0.get(&name).copied().unwrap_or_default();
            (name, number - before)
        });
        Self(grown.filter(|(_, number)| *number > 0).collect())
    }
}

fn name(address: &str, what: &str) -> String {
    format!("{address} {what}")
}
