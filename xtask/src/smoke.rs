//! `cargo xtask smoke --kernel 6.1`: moves real packets on another kernel, in a virtual machine.
//!
//! The program (`tests/src/bin/smoke.rs`) makes the same namespaces as the tests of this machine.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::handover::{self, Profile};
use crate::machine;
use crate::vm;

/// For interfaces, for clsact and a classifier of others, for the guard's rules, and for ending UDP sockets. The machine loads none by itself.
const MODULES: [&str; 9] =
    ["veth", "sch_ingress", "cls_bpf", "cls_u32", "nf_tables", "nft_fib_inet", "nft_nat", "nft_chain_nat", "udp_diag"];
/// What the program starts besides the agent.
const TOOLS: [&str; 2] = ["ip", "tc"];

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

pub fn run(args: &Args) -> Result<()> {
    let program = handover::build("smoke", Profile::Debug)?;
    let mut tools = vec![program.with_file_name("lb-agent")];
    for tool in TOOLS {
        tools.push(machine::which(tool).with_context(|| format!("no {tool} on the search path"))?);
    }
    let tools: Vec<PathBuf> = tools;
    vm::run(&args.kernel, &vm::Task { program: &program, tools: &tools, modules: &MODULES }, |line| println!("{line}"))
}
