//! Makes a fresh Debian 12 able to build, test and show the project. Changes nothing if nothing is missing.
//!
//! On another system it installs nothing and lists what is missing.

mod linker;
pub mod packages;
pub mod toolchain;
mod tools;

use anyhow::{Result, bail};

use crate::machine;

/// Prepares the machine and prints what it can do.
pub fn run() -> Result<()> {
    ensure_tests()?;
    println!("ready: this machine can build, test and run the demo");
    match machine::kernel_lacks_for_tests() {
        Some(lack) => println!("note: {lack}; building, the demo and the unprivileged tests work without"),
        None if !machine::is_root() => println!("note: the demo and the privileged tests need root"),
        None => {}
    }
    Ok(())
}

/// Prepares the machine and prints only what it changes.
pub fn ensure() -> Result<()> {
    install(packages::missing)?;
    toolchain::ensure()?;
    linker::ensure()
}

/// Prepares the machine for all tests: those of `deploy/` need tools of Kubernetes and Prometheus.
pub fn ensure_tests() -> Result<()> {
    ensure()?;
    install(packages::missing_for_deploy)?;
    tools::ensure()
}

/// Prepares the machine for building for another processor.
pub fn ensure_arm64() -> Result<()> {
    install(packages::missing_for_arm64)
}

/// Prepares the machine for virtual machines with other kernels.
pub fn ensure_vm() -> Result<()> {
    install(packages::missing_for_vm)
}

/// Installs what is missing.
fn install(missing: fn() -> Vec<packages::Need>) -> Result<()> {
    let needs = missing();
    if needs.is_empty() {
        return Ok(());
    }
    refuse_elsewhere(&needs)?;
    packages::install(&needs.iter().map(|need| need.package).collect::<Vec<_>>())?;
    let still = missing();
    if !still.is_empty() {
        bail!("still missing after the packages were installed:\n{}", packages::list(&still));
    }
    Ok(())
}

/// Fails with the whole list if this task cannot install packages here.
fn refuse_elsewhere(missing: &[packages::Need]) -> Result<()> {
    let names = missing.iter().map(|need| need.package).collect::<Vec<_>>().join(" ");
    let list = packages::list(missing);
    if !machine::is_debian_12() {
        let (system, version) = machine::system();
        bail!(
            "this is {system} {version}, and set-up installs packages on Debian 12 only. Missing here:\n{list}\n\
             install these by the means of your system and run this again"
        );
    }
    if !machine::is_root() {
        bail!("missing:\n{list}\nrun this as root, or: sudo apt-get install --no-install-recommends {names}");
    }
    Ok(())
}
