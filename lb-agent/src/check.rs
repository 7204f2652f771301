//! `check`: reports whether this machine has what the agent needs, and which other programs act on the traffic. Changes
//! nothing.

mod driver;
mod finding;
mod hooks;
mod kernel;
mod memory;
mod mounts;
mod netfilter;
mod network;
mod ports;
mod privilege;
mod running;
mod source;

pub use finding::{Finding, Verdict};

use crate::args::{CheckArgs, Output};
use crate::dataplane::Xdp;
use crate::interfaces::{Globs, InterfaceRules};
use crate::print::print;
use crate::show;

/// Prints all findings. Returns an error if any of them is a failure.
pub fn run(mut args: CheckArgs) -> anyhow::Result<()> {
    let running = running::settings(args.http.http);
    let told = running::fill_in(&mut args, running.as_ref());
    let mut findings = kernel::findings();
    findings.extend(privilege::findings(&args.pins.pin_path));
    findings.extend(mounts::findings(&args.pins.pin_path));
    findings.extend(memory::findings());
    let interfaces = network::interfaces()?;
    let globs = |given: &Option<Globs>| given.clone().unwrap_or(Globs::Auto);
    let rules = InterfaceRules { workload: globs(&args.workload_interfaces), uplink: globs(&args.uplink_interfaces) };
    let xdp = args.xdp.map(Xdp::from);
    findings.extend(network::findings(&interfaces, &rules, xdp, &args.pins.pin_path));
    findings.extend(netfilter::findings(&args.pins.pin_path, network::ipvs_of(&interfaces)));
    findings.extend(told);
    findings.extend(ports::findings(&args, running.as_ref()));
    findings.extend(source::findings(&args)?);
    print(&show::text_of(&findings, args.output))?;
    let failures = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count();
    if failures > 0 {
        anyhow::bail!("{failures} of {} checks failed", findings.len());
    }
    if matches!(args.output, Output::Table | Output::Wide) {
        let warnings = findings.iter().filter(|finding| finding.verdict == Verdict::Warn).count();
        print(&format!("{} checks, {warnings} warnings, no failure\n", findings.len()))?;
    }
    Ok(())
}
