//! Explains what would happen to a packet, and which rule decided: runs the packet path itself over the dumped tables.
//!
//! Reads the pins only, so it works with or without a running agent.

mod answer;
mod decision;
mod frame;
mod trial;
mod words;

pub use crate::question::{Destination, Sender};
pub use answer::{Decision, Explanation, Netfilter, Sight};
pub use decision::{Facts, explain};

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::args::{ExplainArgs, Output};
use crate::ask;
use crate::dataplane::pins::{AffinityRows, FlowRows, Pins};
use crate::interfaces::{Interfaces, watch};
use crate::print::print;
use crate::render;

/// Prints the answer.
pub fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    if let Some(addr) = args.from.addr()
        && addr.is_ipv4() != args.to.addr.is_ipv4()
    {
        anyhow::bail!("--from {addr} and --to {} are of different families", args.to);
    }
    let pins = Pins::open(&args.pins.pin_path)?;
    let (is_v4, is_v6) = (is_named(args, IpAddr::is_ipv4), is_named(args, IpAddr::is_ipv6));
    let is_host = args.from == Sender::Host;
    let facts = Facts {
        tables: Arc::new(pins.tables()?),
        address_words: pins.address_words(),
        now_secs: (pins.now_jiffies()? / u64::from(pins.owner()?.jiffies_per_sec)) as u32,
        services: ask::services(args.http.http, &args.pins.pin_path),
        warnings: ask::warnings(args.http.http).unwrap_or_default(),
        // What the path itself wrote is read only if the question names a client.
        flows4: if is_v4 { pins.flows4()? } else { FlowRows::new() },
        flows6: if is_v6 { pins.flows6()? } else { FlowRows::new() },
        affinity4: if is_v4 || is_host { pins.affinity4()? } else { AffinityRows::new() },
        affinity6: if is_v6 || is_host { pins.affinity6()? } else { AffinityRows::new() },
        is_local: local_addresses()?.contains(&args.to.addr),
        refused: ask::judgements(args.http.http, &args.pins.pin_path).unwrap_or_default().refused,
        seen: pins.seen()?,
    };
    let explanation = explain(&args.from, &args.to, &facts);
    match args.output {
        Output::Table | Output::Wide => print(&explanation.to_string()),
        Output::Yaml => print(&render::yaml_of_one(&explanation)),
        Output::Json => print(&render::json_of_one(&explanation)),
    }
}

/// Whether the question names a client of a family.
fn is_named(args: &ExplainArgs, is_of: fn(&IpAddr) -> bool) -> bool {
    args.from.addr().is_some_and(|addr| is_of(&addr))
}

/// The addresses of this node's interfaces.
fn local_addresses() -> anyhow::Result<BTreeSet<IpAddr>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut interfaces = Interfaces::default();
    interfaces.apply(runtime.block_on(watch::list_once())?);
    Ok(interfaces.addresses().copied().collect())
}
