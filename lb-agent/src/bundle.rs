//! `bundle`: what a report of a fault needs, in one archive. What cannot be had is there as its error.
//!
//! No secrets: of the environment only our own variables, of a kubeconfig only its path.

mod archive;
mod contents;
mod part;
mod redaction;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::args::BundleArgs;
use crate::printable::printable;
use part::Part;

pub fn run(args: &BundleArgs) -> anyhow::Result<()> {
    let mut parts = contents::collect(args);
    if args.redact {
        redaction::redact(&mut parts);
    }
    let listed = list(&parts);
    let now = jiff::Timestamp::now();
    let named = args.output.clone().unwrap_or_else(|| default_name(now));
    if named == Path::new("-") {
        archive::write(io::stdout().lock(), &parts, now).context("the bundle cannot be written to standard output")?;
        // If the list cannot be written, the bundle is there nevertheless.
        let _ = io::stderr().write_all(listed.as_bytes());
        return Ok(());
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&named);
    file.and_then(|file| archive::write(file, &parts, now))
        .with_context(|| format!("--output: {} cannot be written", named.display()))?;
    crate::print::print(&format!("{listed}wrote {}\n", named.display()))
}

fn default_name(now: jiff::Timestamp) -> PathBuf {
    format!("lb-agent-bundle-{}.tar.gz", now.strftime("%Y%m%dT%H%M%SZ")).into()
}

/// A line for each file.
fn list(parts: &[Part]) -> String {
    let line = |part: &Part| {
        let problem = part.problem.as_deref().map_or_else(String::new, |problem| format!("  ({problem})"));
        printable(&format!("{:>9}  {}{problem}", part.text.len(), part.name)).into_owned() + "\n"
    };
    let head = "    bytes  file\n".to_owned();
    parts.iter().fold(head, |text, part| text + &line(part))
}
