//! Loads every BPF program and prints the figures of verifier and compiler, as JSON by program name.
//!
//! `cargo xtask verify` compares them with the budget. Nothing is attached, and the pins are removed again.

mod stack;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use aya::programs::SchedClassifier;
use lb_agent::dataplane::bpf::BpfDataplane;
use lb_agent::dataplane::object::{BARE_PROGRAMS, OBJECT, PROGRAMS, load_programs};
use lb_agent::dataplane::{Repair, Settings, Sizes, SocketLb, Timeouts, pins};

use serde_json::{Value, json};

fn main() -> Result<()> {
    let pin_path = PathBuf::from(format!("/sys/fs/bpf/lb-programs-{}", std::process::id()));
    let loaded = load(&pin_path);
    // In both cases: pins made before a failure must be removed as well.
    pins::unload(&pin_path)?;
    println!("{}", serde_json::to_string_pretty(&loaded?)?);
    Ok(())
}

fn load(pin_path: &std::path::Path) -> Result<BTreeMap<&'static str, Value>> {
    let settings = Settings {
        pin_path: pin_path.to_owned(),
        sizes: Sizes { frontends_max: 1024, backends_max: 1024, flows_max: 1024, ..Sizes::default() },
        timeouts: Timeouts::default(),
        rejects_per_sec: 1,
        repair: Repair::Off,
        sockets: SocketLb::Off,
    };
    let mut dataplane = BpfDataplane::open(&settings)?;
    load_programs(dataplane.ebpf(), &BARE_PROGRAMS)?;
    let stacks = stack::depths(OBJECT)?;
    PROGRAMS.into_iter().chain(BARE_PROGRAMS).map(|name| Ok((name, figures(&mut dataplane, name, &stacks)?))).collect()
}

fn figures(dataplane: &mut BpfDataplane, name: &str, stacks: &BTreeMap<String, u32>) -> Result<Value> {
    let program: &mut SchedClassifier =
        dataplane.ebpf().program_mut(name).with_context(|| format!("there is no program {name}"))?.try_into()?;
    let info = program.info()?;
    Ok(json!({
        "verified_instructions": info.verified_instruction_count().context("the kernel does not tell")?,
        "translated_bytes": info.size_translated().context("the kernel does not tell")?,
        "jited_bytes": info.size_jitted(),
        "stack_bytes": stacks.get(name).with_context(|| format!("{name} is not in the object"))?,
    }))
}
