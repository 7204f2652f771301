//! `unload`: removes programs, links and pins, and nothing else. Traffic goes where it would without us.

use crate::args::UnloadArgs;
use crate::dataplane::pins;

pub fn run(args: &UnloadArgs) -> anyhow::Result<()> {
    let path = &args.pins.pin_path;
    let removed = pins::unload(path)?;
    if removed == pins::Unloaded::default() {
        println!("nothing is pinned in {}", path.display());
    } else {
        println!("removed {} links and {} maps from {}", removed.links, removed.maps, path.display());
    }
    Ok(())
}
