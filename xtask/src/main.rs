//! `cargo xtask`: every task of this project beyond `cargo build`.
//!
//! Depends on no crate of the project, so it runs before the machine can build one.

mod deb;
mod dist;
mod fuzz;
mod handover;
mod image;
mod job;
mod machine;
mod setup;
mod smoke;
mod suites;
mod test;
mod tidy;
mod verify;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use handover::Profile;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, tests, the demo and measurements of lb-agent")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, testing and the demo need (Debian 12, root); elsewhere, list what is missing
    Setup,
    /// Run every check and test, as CI does; installs what is missing first
    Test(test::Args),
    /// Show the problem and the cure on real packets, in network namespaces of its own
    Demo(handover::Args),
    /// Measure the programs, connections and bulk traffic beside plain routing and kube-proxy's rules
    Bench(handover::Args),
    /// Load every BPF program and compare the verifier's figures with the budget
    Verify(verify::Args),
    /// Move real packets on another kernel, in a virtual machine
    Smoke(smoke::Args),
    /// Move real packets over bonds, VLANs, bridges and tunnels on another kernel, in a virtual machine
    Devices(smoke::Args),
    /// Fuzz the packet path; inputs that crashed it are kept in tests/corpus
    Fuzz(fuzz::Args),
    /// Build the static agent and its image, and start it there
    Image(image::Args),
    /// Build the stand-alone balancer as a Debian package
    Deb(deb::Args),
    /// Check the rules that no linter knows: imports, sizes, unsafe code, names
    Tidy,
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Setup => setup::run(),
        Task::Test(args) => test::run(&args),
        Task::Demo(args) => handover::run("demo", Profile::Debug, &args),
        Task::Bench(args) => handover::run("bench", Profile::Release, &args),
        Task::Verify(args) => verify::run(&args),
        Task::Smoke(args) => smoke::run(&args),
        Task::Devices(args) => smoke::devices(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Image(args) => image::run(&args),
        Task::Deb(args) => deb::run(&args),
        Task::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
