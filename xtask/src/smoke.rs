//! `cargo xtask smoke --kernel 6.1` and `cargo xtask devices --kernel 6.1`: move real packets on another kernel, in a
//! virtual machine.
//!
//! The programs (`tests/src/bin/smoke.rs`, `tests/src/bin/devices`) make the same namespaces as the tests of this machine.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::handover::{self, Profile};
use crate::machine;
use crate::setup;
use crate::vm;

/// What every node needs, for interfaces, clsact, the guard's rules, and ending UDP sockets. The machine loads none by
/// itself.
const MODULES: [&str; 8] =
    ["veth", "sch_ingress", "cls_bpf", "nf_tables", "nft_fib_inet", "nft_nat", "nft_chain_nat", "udp_diag"];
/// What every program starts besides the agent.
const TOOLS: [&str; 2] = ["ip", "tc"];

/// What runs in the machine.
struct Program {
    name: &'static str,
    /// Further modules and tools.
    modules: &'static [&'static str],
    tools: &'static [&'static str],
}

/// With a classifier of others.
const SMOKE: Program = Program { name: "smoke", modules: &["cls_u32"], tools: &[] };

/// With all devices.
const DEVICES: Program = Program {
    name: "devices",
    modules: &["bonding", "8021q", "bridge", "ipip", "ip_gre", "sit", "macvlan", "wireguard"],
    tools: &["wg"],
};

#[derive(clap::Args)]
pub struct Args {
    /// Debian's kernel of this version (6.1, 6.12)
    #[arg(long, value_name = "VERSION", default_value = "6.1")]
    kernel: String,
}

impl Args {
    pub fn on(version: &str) -> Self {
        Self { kernel: version.into() }
    }
}

/// A node with plain veths: attached, served, killed, started again, unloaded.
pub fn run(args: &Args) -> Result<()> {
    in_a_machine(&SMOKE, args)
}

/// A node with devices that this machine's kernel may not have.
pub fn devices(args: &Args) -> Result<()> {
    in_a_machine(&DEVICES, args)
}

fn in_a_machine(&Program { name, modules, tools }: &Program, args: &Args) -> Result<()> {
    setup::ensure_vm()?;
    let program = handover::build(name, Profile::Debug)?;
    let mut files: Vec<PathBuf> = vec![program.with_file_name("lb-agent")];
    for tool in TOOLS.iter().chain(tools) {
        files.push(machine::which(tool).with_context(|| format!("no {tool} on the search path"))?);
    }
    let modules = [&MODULES, modules].concat();
    let task = vm::Task { program: &program, arguments: &[], files: &[], tools: &files, modules: &modules };
    vm::run(&args.kernel, &task, |line| println!("{line}"))
}
