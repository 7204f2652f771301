//! The packet cases: tables, packets, and the outcome of each packet. Every case runs in both families, on the host and
//! in the kernel (`tests/path.rs`, `tests/progrun.rs`), as a test of its own.

mod affinity;
mod direct;
mod flows;
mod fragments;
mod frames;
mod hairpins;
mod headers;
mod icmp;
mod lookup;
mod maglev;
mod scene;
mod wire;

use libtest_mimic::Trial;

pub use scene::{ACK, FIN, Net, RST, SYN, SYN_ACK, Scene, UDP, proto};

/// The function that runs a case on a machine.
pub type Run = fn(&mut Scene<'_>);

/// A case by name.
type Case = (&'static str, Run);

/// All cases, by module.
const ALL: &[(&str, &[Case])] = &[
    ("lookup", lookup::CASES),
    ("affinity", affinity::CASES),
    ("maglev", maglev::CASES),
    ("flows", flows::CASES),
    ("hairpins", hairpins::CASES),
    ("headers", headers::CASES),
    ("direct", direct::CASES),
    ("wire", wire::CASES),
    ("fragments", fragments::CASES),
    ("frames", frames::CASES),
    ("icmp", icmp::CASES),
];

/// A test for each case and family, named `PREFIX::MODULE::CASE::v4`.
pub fn trials(prefix: &str, run: impl Fn(Run, Net) + Clone + Send + 'static) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (module, cases) in ALL {
        for (name, case) in *cases {
            for (net, family) in [(Net::V4, "v4"), (Net::V6, "v6")] {
                let (run, case) = (run.clone(), *case);
                trials.push(Trial::test(format!("{prefix}::{module}::{name}::{family}"), move || {
                    run(case, net);
                    Ok(())
                }));
            }
        }
    }
    trials
}
