//! `unload`: removes programs, links, pins and the guard's table, and nothing else. Traffic goes where it would without us.

use std::io;

use anyhow::Context as _;

use crate::args::UnloadArgs;
use crate::dataplane::pins;
use crate::guard::{Change, Door as _, Found, Table};

pub fn run(args: &UnloadArgs) -> anyhow::Result<()> {
    let path = &args.pins.pin_path;
    let mut guard = Table::of_pins(path);
    let removed = pins::unload(path)?;
    remove_guard(&mut guard).with_context(|| format!("removing the nftables table inet {}", guard.name()))?;
    if removed == pins::Unloaded::default() {
        println!("nothing is pinned in {}", path.display());
    } else {
        println!("removed {} links and {} maps from {}", removed.links, removed.maps, path.display());
    }
    Ok(())
}

fn remove_guard(guard: &mut Table) -> io::Result<()> {
    match guard.read() {
        Ok(Found::Absent) => Ok(()),
        Ok(Found::Foreign | Found::Rows(_)) => {
            guard.perform(&Change::Remove)?;
            println!("removed the nftables table inet {}", guard.name());
            Ok(())
        }
        // A kernel without nftables has no table.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}
