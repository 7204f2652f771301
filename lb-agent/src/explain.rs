//! Explains what would happen to a packet, and which rule decided: runs the packet path itself over the dumped tables.
//!
//! Reads the pins only, so it works with or without a running agent.

mod answer;
mod decision;
mod frame;
mod trial;
mod words;

pub use crate::question::{Destination, Sender};
pub use answer::{Decision, Explanation};
pub use decision::{Facts, explain};

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::args::{ExplainArgs, Output};
use crate::ask;
use crate::dataplane::links::Class;
use crate::dataplane::pins::{FlowRows, Pins};
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
    let attached = pins.attachments()?;
    let is_attached = |class| attached.iter().any(|attachment| attachment.class == class);
    let facts = Facts {
        tables: pins.tables()?,
        services: ask::services(args.http.http, &args.pins.pin_path),
        warnings: ask::warnings(args.http.http).unwrap_or_default(),
        // Flows are read only if the question names a client.
        flows4: if args.from.addr().is_some_and(|addr| addr.is_ipv4()) { pins.flows4()? } else { FlowRows::new() },
        flows6: if args.from.addr().is_some_and(|addr| addr.is_ipv6()) { pins.flows6()? } else { FlowRows::new() },
        is_local: local_addresses()?.contains(&args.to.addr),
        refused: ask::judgements(args.http.http, &args.pins.pin_path).unwrap_or_default().refused,
        has_workloads: is_attached(Class::Workload),
        has_uplinks: is_attached(Class::Uplink),
    };
    let explanation = explain(&args.from, &args.to, &facts);
    match args.output {
        Output::Table => print(&explanation.to_string()),
        Output::Json => print(&(render::pretty(&explanation) + "\n")),
    }
}

/// The addresses of this node's interfaces.
fn local_addresses() -> anyhow::Result<BTreeSet<IpAddr>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut interfaces = Interfaces::default();
    interfaces.apply(runtime.block_on(watch::list_once())?);
    Ok(interfaces.addresses().copied().collect())
}
