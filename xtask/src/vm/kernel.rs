//! Debian's kernel images and its static shell.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::machine;
use crate::setup::packages::{self, unpacked};

/// The newest kernel image of a version (`6.1`) that Debian has. One that was fetched before is used again.
pub fn image(folder: &Path, version: &str) -> Result<PathBuf> {
    ensure!(std::env::consts::ARCH == "x86_64", "the virtual machine emulates x86-64 only, for programs built there");
    let numbers = machine::version(version).filter(|(major, minor)| format!("{major}.{minor}") == version);
    let (major, minor) = numbers.with_context(|| format!("{version} is no version of a kernel, such as 6.1"))?;
    let root = unpacked(&folder.join(version), || package(major, minor))?;
    let mut files = fs::read_dir(root.join("boot"))?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let is_image = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    files.find(is_image).with_context(|| format!("no kernel in {}", root.display()))
}

/// A shell that needs no library.
pub fn busybox(folder: &Path) -> Result<PathBuf> {
    Ok(unpacked(&folder.join("busybox"), || Ok("busybox-static".into()))?.join("bin/busybox"))
}

/// The package of the newest kernel of a version: the smallest one, for virtual machines.
fn package(major: u32, minor: u32) -> Result<String> {
    let pattern = format!("^linux-image-{major}\\.{minor}\\..*-cloud-amd64$");
    let search = || -> Result<Option<String>> {
        let output = Command::new("apt-cache").args(["search", "--names-only", &pattern]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = text.lines().filter_map(|line| line.split_whitespace().next());
        Ok(names.max_by_key(|name| numbers(name)).map(ToOwned::to_owned))
    };
    if let Some(found) = search()? {
        return Ok(found);
    }
    packages::update()?;
    search()?.with_context(|| format!("Debian has no kernel {major}.{minor} here; Debian 12 has 6.1 and 6.12"))
}

/// The numbers in a name, by which versions are ordered.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let newest = ["6.1.0-9-cloud", "6.1.0-57-cloud", "6.1.0-10-cloud"].into_iter().max_by_key(|name| numbers(name));
        assert_eq!(newest, Some("6.1.0-57-cloud"));
        assert!(numbers("6.12.117+deb12") > numbers("6.12.90+deb12"));
    }
}
