//! `unload`: removes programs, links, pins and the guard's table, and nothing else. Afterwards traffic flows as without
//! the agent.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use anyhow::Context as _;

use crate::args::UnloadArgs;
use crate::dataplane::Error;
use crate::dataplane::removal::{self, Removal};
use crate::guard::{Change, Door as _, Found, Table};
use crate::print::{complain, print};

pub fn run(args: &UnloadArgs) -> anyhow::Result<()> {
    let path = &args.pins.pin_path;
    if args.dry_run {
        return list(path);
    }
    if let Some(limit) = args.patience() {
        if removal::is_used(path)? {
            complain(&format!("waiting for the agent on {} to end", path.display()));
        }
        removal::wait_until_free(path, limit)?;
    }
    let mut guard = Table::of_pins(path);
    let removed = match removal::unload(path) {
        Ok(removed) => Ok(removed),
        // The pins are not ours, but the guard's table is removed in any case.
        Err(error @ Error::Untrusted(_)) => Err(error),
        Err(error) => return Err(error.into()),
    };
    let is_guard_removed =
        remove_guard(&mut guard).with_context(|| format!("removing the nftables table inet {}", guard.name()))?;
    let mut text = String::new();
    if is_guard_removed {
        let _ = writeln!(text, "removed the nftables table inet {}", guard.name());
    }
    if let Ok(removed) = &removed {
        text.push_str(&summary(path, removed, "removed"));
        for path in &removed.left {
            let _ = writeln!(text, "not made by lb-agent, left in place: {}", path.display());
        }
    }
    print(&text)?;
    removed?;
    Ok(())
}

/// Prints what `unload` would remove, each thing on a line of its own.
fn list(path: &Path) -> anyhow::Result<()> {
    let mut guard = Table::of_pins(path);
    let removal = Removal::of(path)?;
    let mut text = String::new();
    if has_guard(&mut guard)? {
        let _ = writeln!(text, "would remove the nftables table inet {}", guard.name());
    }
    text.push_str(&summary(path, &removal, "would remove"));
    for attachment in &removal.filters {
        let _ = writeln!(text, "  classifier {attachment}");
    }
    for pin in removal.links.iter().chain(&removal.maps) {
        let _ = writeln!(text, "  {}", pin.display());
    }
    for path in &removal.left {
        let _ = writeln!(text, "not made by lb-agent, would be left in place: {}", path.display());
    }
    if removal::is_used(path)? {
        text.push_str("an agent runs on these pins: `unload` fails until it has ended, or waits with --wait\n");
    }
    print(&text)
}

/// The numbers of what is removed.
fn summary(path: &Path, removal: &Removal, verb: &str) -> String {
    let (shown, links, maps) = (path.display(), removal.links.len(), removal.maps.len());
    let mut text = match (links, maps) {
        (0, 0) => format!("lb-agent has pinned nothing in {shown}\n"),
        _ => format!("{verb} {links} links and {maps} maps from {shown}\n"),
    };
    if !removal.filters.is_empty() {
        let _ = writeln!(text, "{verb} {} classifiers (clsact) from interfaces", removal.filters.len());
    }
    if removal.is_elsewhere {
        let remedy = "if they were served by clsact, run `lb-agent unload` there as well";
        let _ = writeln!(text, "the tables belonged to interfaces of another network namespace: {remedy}");
    }
    text
}

/// Removes the guard's table. Returns whether it existed.
fn remove_guard(guard: &mut Table) -> io::Result<bool> {
    let is_there = has_guard(guard)?;
    if is_there {
        guard.perform(&Change::Remove)?;
    }
    Ok(is_there)
}

/// Whether there is a table of the guard.
fn has_guard(guard: &mut Table) -> io::Result<bool> {
    match guard.read() {
        Ok(Found::Absent) => Ok(false),
        Ok(Found::Foreign | Found::Rows(_)) => Ok(true),
        // A kernel without nftables has no table.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error),
    }
}
