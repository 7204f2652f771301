//! Loads every BPF program and prints the figures of verifier and compiler, or why the kernel refuses the program: for
//! each program a line of JSON, and a line with the name alone before the verifier begins.
//!
//! `cargo xtask verify` compares the figures with the budget. Nothing is attached, and the pins are removed again. The
//! path of another BPF object may be given; its debug channel is then on.

mod stack;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use aya::programs::Program;
use lb_agent::dataplane::object::{self, BARE_PROGRAMS, OBJECT};
use lb_agent::dataplane::{AttachBy, BpfLog, Monitor, Repair, Settings, Sizes, SocketLb, Timeouts, Xdp, removal};
use lb_common::way::SnatPorts;
use serde_json::{Value, json};

/// Ticks per second. The programs only multiply by this, so any number shows the same figures.
const JIFFIES_PER_SEC: u32 = 250;

fn main() -> Result<()> {
    let pin_path = PathBuf::from(format!("/sys/fs/bpf/lb-programs-{}", std::process::id()));
    let loaded = load(&pin_path, std::env::args_os().nth(1).as_deref().map(Path::new));
    // In both cases: pins made before a failure must be removed as well.
    removal::remove_pins(&pin_path)?;
    loaded
}

fn load(pin_path: &Path, given: Option<&Path>) -> Result<()> {
    let bytes = given.map(fs::read).transpose().context("reading the object")?;
    let object = bytes.as_deref().unwrap_or(OBJECT);
    let settings = Settings {
        pin_path: pin_path.to_owned(),
        sizes: Sizes { frontends_max: 1024, backends_max: 1024, flows_max: 1024, ..Sizes::default() },
        timeouts: Timeouts::default(),
        rejects_per_sec: 1,
        repair: Repair::Off,
        monitor: Monitor::default(),
        bpf_log: if bytes.is_some() { BpfLog::On } else { BpfLog::Off },
        sockets: SocketLb::Off,
        attach: AttachBy::Auto,
        xdp: Xdp::Off,
        snat_ports: Some(SnatPorts::DEFAULT),
    };
    let maps = pin_path.join("maps");
    fs::create_dir_all(&maps)?;
    let mut ebpf = object::open_object(object, &maps, &settings, JIFFIES_PER_SEC, None)?;
    let telling = Settings { monitor: Monitor::On, ..settings };
    let mut telling = object::open_object(object, &maps, &telling, JIFFIES_PER_SEC, None)?;
    let stacks = stack::depths(object)?;
    let programs: BTreeMap<&str, &mut Program> = ebpf.programs_mut().collect();
    for (name, program) in programs {
        println!("{}", json!({ "program": name }));
        let started = Instant::now();
        // Those without a link header are the same but for that, and those with a debug channel tell anyway.
        let telling = telling.program_mut(name).filter(|_| given.is_none() && !BARE_PROGRAMS.contains(&name));
        let mut verdict = match load_both(program, telling) {
            Ok(telling) => json!({ "program": name, "figures": figures(name, program, telling, &stacks)? }),
            Err(error) => json!({ "program": name, "refused": format!("{error:#}") }),
        };
        verdict["millis"] = json!(started.elapsed().as_millis());
        println!("{verdict}");
    }
    Ok(())
}

/// Loads a program, and the one that tells `lb-agent monitor`.
fn load_both<'a>(program: &mut Program, telling: Option<&'a mut Program>) -> Result<Option<&'a Program>> {
    verify(program)?;
    let Some(telling) = telling else { return Ok(None) };
    verify(telling).context("for lb-agent monitor")?;
    Ok(Some(telling))
}

fn verify(program: &mut Program) -> Result<()> {
    match program {
        Program::SchedClassifier(program) => program.load()?,
        Program::CgroupSockAddr(program) => program.load()?,
        Program::Xdp(program) => program.load()?,
        other => bail!("no task loads a program of the type {:?}", other.prog_type()),
    }
    Ok(())
}

/// The figures of a program. What the one for `lb-agent monitor` costs is a figure if it costs more.
fn figures(name: &str, program: &Program, telling: Option<&Program>, stacks: &BTreeMap<String, u32>) -> Result<Value> {
    let verified = |program: &Program| program.info()?.verified_instruction_count().context("the kernel does not tell");
    let info = program.info()?;
    let mut figures = json!({
        "verified_instructions": verified(program)?,
        "translated_bytes": info.size_translated().context("the kernel does not tell")?,
        "jited_bytes": info.size_jitted(),
        "stack_bytes": stacks.get(name).with_context(|| format!("{name} is not in the object"))?,
    });
    let telling =
        telling.map(verified).transpose()?.filter(|count| verified(program).is_ok_and(|silent| silent != *count));
    if let Some(count) = telling {
        figures["verified_instructions_telling"] = json!(count);
    }
    Ok(figures)
}
