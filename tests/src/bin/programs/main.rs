//! Loads every BPF program and prints the figures of verifier and compiler, or why the kernel refuses the program: for
//! each program a line of JSON, and a line with the name alone before the verifier begins.
//!
//! `cargo xtask verify` compares the figures with the budget. Nothing is attached, and the pins are removed again.

mod stack;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use aya::programs::Program;
use lb_agent::dataplane::object::{self, OBJECT};
use lb_agent::dataplane::{AttachBy, Monitor, Repair, Settings, Sizes, SocketLb, Timeouts, removal};
use lb_common::way::SnatPorts;
use serde_json::{Value, json};

/// Ticks per second. The programs only multiply by this, so any number shows the same figures.
const JIFFIES_PER_SEC: u32 = 250;

fn main() -> Result<()> {
    let pin_path = PathBuf::from(format!("/sys/fs/bpf/lb-programs-{}", std::process::id()));
    let loaded = load(&pin_path);
    // In both cases: pins made before a failure must be removed as well.
    removal::remove_pins(&pin_path)?;
    loaded
}

fn load(pin_path: &Path) -> Result<()> {
    let settings = Settings {
        pin_path: pin_path.to_owned(),
        sizes: Sizes { frontends_max: 1024, backends_max: 1024, flows_max: 1024, ..Sizes::default() },
        timeouts: Timeouts::default(),
        rejects_per_sec: 1,
        repair: Repair::Off,
        monitor: Monitor::default(),
        sockets: SocketLb::Off,
        attach: AttachBy::Auto,
        snat_ports: Some(SnatPorts::DEFAULT),
    };
    let maps = pin_path.join("maps");
    fs::create_dir_all(&maps)?;
    let mut ebpf = object::open(&maps, &settings, JIFFIES_PER_SEC, None)?;
    let stacks = stack::depths(OBJECT)?;
    let programs: BTreeMap<&str, &mut Program> = ebpf.programs_mut().collect();
    for (name, program) in programs {
        println!("{}", json!({ "program": name }));
        let started = Instant::now();
        let mut verdict = match verify(program) {
            Ok(()) => json!({ "program": name, "figures": figures(name, program, &stacks)? }),
            Err(error) => json!({ "program": name, "refused": format!("{error:#}") }),
        };
        verdict["millis"] = json!(started.elapsed().as_millis());
        println!("{verdict}");
    }
    Ok(())
}

fn verify(program: &mut Program) -> Result<()> {
    match program {
        Program::SchedClassifier(program) => program.load()?,
        Program::CgroupSockAddr(program) => program.load()?,
        other => bail!("no task loads a program of the type {:?}", other.prog_type()),
    }
    Ok(())
}

fn figures(name: &str, program: &Program, stacks: &BTreeMap<String, u32>) -> Result<Value> {
    let info = program.info()?;
    Ok(json!({
        "verified_instructions": info.verified_instruction_count().context("the kernel does not tell")?,
        "translated_bytes": info.size_translated().context("the kernel does not tell")?,
        "jited_bytes": info.size_jitted(),
        "stack_bytes": stacks.get(name).with_context(|| format!("{name} is not in the object"))?,
    }))
}
