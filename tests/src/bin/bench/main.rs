//! `cargo xtask bench`: what the dataplane costs, beside plain routing and beside kube-proxy's rules.
//!
//! Everything that is compared is taken in the same run, in turns, several times; medians and ranges are printed.

mod figures;
mod plot;
mod program;
mod ring;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

use figures::Figure;

#[derive(Parser)]
#[command(name = "cargo xtask bench", about = "Measure the dataplane; needs root")]
struct Args {
    /// Turns of every measurement; the figures are their medians
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Folder for bench.svg and bench.txt
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    println!("programs: {} rounds of test-run", args.rounds);
    let figures: Vec<Figure> = program::measure(args.rounds)?;
    let table = figures::table(&figures);
    print!("\n{table}");
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    std::fs::write(args.out.join("bench.txt"), &table)?;
    let picture = args.out.join("bench.svg");
    plot::svg(&picture, &figures)?;
    println!("\nplot: {}", picture.display());
    Ok(())
}
