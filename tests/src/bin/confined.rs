//! `confined PROFILE PROGRAM ARGUMENT...`: runs a program as a container runtime would under a seccomp profile of the
//! OCI's form.
//!
//! One thing differs: a call that the profile does not allow kills the program, whereas the runtime lets the call fail.
//! So calls that the program could do without are found as well.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use seccompiler::{BpfProgram, TargetArch, apply_filter, compile_from_json};
use serde::Deserialize;
use serde_json::{Value, json};

/// The fields of a profile that the agent's profile uses; any other field is an error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    #[serde(rename = "defaultErrnoRet")]
    _default_errno_ret: u32,
    #[serde(rename = "architectures")]
    _architectures: Vec<String>,
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    names: Vec<String>,
    action: String,
}

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let (Some(profile), Some(program)) = (arguments.next(), arguments.next()) else {
        bail!("usage: confined PROFILE PROGRAM ARGUMENT...");
    };
    let text = fs::read_to_string(&profile).with_context(|| format!("reading {}", profile.display()))?;
    apply_filter(&filter(&serde_json::from_str(&text)?)?)?;
    Err(Command::new(program).args(arguments).exec().into())
}

fn filter(profile: &Profile) -> Result<BpfProgram> {
    ensure!(profile.default_action == "SCMP_ACT_ERRNO", "the default action is {}", profile.default_action);
    let mut names = BTreeSet::new();
    for rule in &profile.syscalls {
        ensure!(rule.action == "SCMP_ACT_ALLOW", "a rule with the action {}", rule.action);
        names.extend(rule.names.iter().map(String::as_str));
    }
    // Runtimes leave out names of other architectures, and so does this program.
    let known: Vec<Value> = names
        .iter()
        .map(|name| json!({"syscall": name}))
        .filter(|call| compile(std::slice::from_ref(call)).is_ok())
        .collect();
    compile(&known)
}

fn compile(calls: &[Value]) -> Result<BpfProgram> {
    let filter = json!({"main": {"mismatch_action": "kill_process", "match_action": "allow", "filter": calls}});
    let arch = TargetArch::try_from(env::consts::ARCH)?;
    let mut programs = compile_from_json(filter.to_string().as_bytes(), arch)?;
    programs.remove("main").context("the filter was compiled")
}
