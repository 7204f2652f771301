//! `unload`: removes programs, links, pins and the guard's table, and nothing else. Afterwards traffic flows as without
//! the agent.

use std::fmt::Write as _;
use std::io;

use anyhow::Context as _;

use crate::args::UnloadArgs;
use crate::dataplane::{Error, pins};
use crate::guard::{Change, Door as _, Found, Table};
use crate::print::print;

pub fn run(args: &UnloadArgs) -> anyhow::Result<()> {
    let path = &args.pins.pin_path;
    let mut guard = Table::of_pins(path);
    let removed = match pins::unload(path) {
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
    if let Ok(pins::Unloaded { links, filters, maps, is_elsewhere, left }) = &removed {
        let shown = path.display();
        let _ = match (links, maps) {
            (0, 0) => writeln!(text, "lb-agent has pinned nothing in {shown}"),
            _ => writeln!(text, "removed {links} links and {maps} maps from {shown}"),
        };
        if *filters > 0 {
            let _ = writeln!(text, "removed {filters} classifiers (clsact) from interfaces");
        }
        if *is_elsewhere {
            let remedy = "if they were served by clsact, run `lb-agent unload` there as well";
            let _ = writeln!(text, "the tables belonged to interfaces of another network namespace: {remedy}");
        }
        for path in left {
            let _ = writeln!(text, "not made by lb-agent, left in place: {}", path.display());
        }
    }
    print(&text)?;
    removed?;
    Ok(())
}

/// Removes the guard's table. Returns whether it existed.
fn remove_guard(guard: &mut Table) -> io::Result<bool> {
    match guard.read() {
        Ok(Found::Absent) => Ok(false),
        Ok(Found::Foreign | Found::Rows(_)) => guard.perform(&Change::Remove).map(|()| true),
        // A kernel without nftables has no table.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error),
    }
}
