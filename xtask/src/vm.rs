//! Debian's kernels in a virtual machine: what a program does on a kernel that is not the one of this machine.
//!
//! The machine is emulated (tcg), so it works alike on every host. Everything stays below `target/vm`.

mod archive;
mod kernel;
mod modules;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use self::archive::Archive;
use crate::machine;
use crate::setup;
use crate::workspace;

/// Longer than any task in the machine takes on a busy host.
const SECS_MAX: &str = "1800";
/// The line that says how the program ended.
const ENDED: &str = "the program ended with ";

/// The first program of the machine: mounts what the agent needs, runs the program, and switches the machine off.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox mount -t bpf bpf /sys/fs/bpf
busybox mount -t cgroup2 cgroup /sys/fs/cgroup
busybox mount -t tmpfs tmp /tmp
busybox mount -t tmpfs run /run
for module in /modules/*.ko; do
    [ -e "$module" ] && { busybox insmod "$module" || echo "$module was refused"; }
done
echo 1 >/proc/sys/net/core/bpf_jit_enable
/bin/program $(busybox cat /arguments)
echo "the program ended with $?"
busybox poweroff -f
"#;

/// Whether this machine can fetch Debian's kernels and emulate them.
pub fn is_possible() -> bool {
    std::env::consts::ARCH == "x86_64" && machine::which("apt-get").is_some()
}

/// What runs in the machine.
pub struct Task<'a> {
    pub program: &'a Path,
    /// Its arguments, without blanks.
    pub arguments: &'a [String],
    /// Files that it reads, at their places.
    pub files: &'a [(PathBuf, &'a str)],
    /// Programs that it starts: of this system, or built beside it.
    pub tools: &'a [PathBuf],
    /// Modules of the kernel that it needs.
    pub modules: &'a [&'a str],
}

/// Boots Debian's kernel of a version (`6.1`), runs a program there as root, and passes on every line that it prints.
/// Fails if the program fails.
pub fn run(version: &str, task: &Task<'_>, mut heard: impl FnMut(&str)) -> Result<()> {
    setup::ensure_vm()?;
    let folder = workspace::target().join("vm");
    let image = kernel::image(&folder, version)?;
    let archive = folder.join(format!("{version}.cpio"));
    fs::write(&archive, root(task, &folder, version)?)?;
    println!("booting {}", image.file_name().map(OsStr::display).context("a file has a name")?);
    let mut emulator = command(&image, &archive).spawn().context("cannot start qemu")?;
    let (mut ended, mut last) = (None, Vec::new());
    for line in BufReader::new(emulator.stdout.take().context("piped")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        match line.strip_prefix(ENDED) {
            Some(code) => ended = Some(code.to_owned()),
            None => heard(&line),
        }
        last.push(line);
    }
    emulator.wait()?;
    match ended.as_deref() {
        Some("0") => Ok(()),
        Some(code) => bail!("the program failed in the machine (exit code {code})\n{}", tail(&last)),
        None => bail!("the machine ended before the program\n{}", tail(&last)),
    }
}

fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// `timeout` ends the machine if it hangs; in the foreground, so that an interruption reaches both.
fn command(image: &Path, archive: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", SECS_MAX, "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max"]);
    command.args(["-smp", "1", "-m", "1024", "-net", "none", "-display", "none", "-monitor", "none"]);
    command.args(["-serial", "stdio", "-no-reboot", "-append", "console=ttyS0 quiet panic=-1 mitigations=off"]);
    command.arg("-kernel").arg(image).arg("-initrd").arg(archive);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// The file system of the machine: the programs with their shared libraries, modules, and a shell.
fn root(task: &Task<'_>, folder: &Path, version: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["proc", "sys", "dev", "tmp", "run", "modules"] {
        archive.folder(Path::new(folder));
    }
    archive.file(Path::new("init"), INIT.as_bytes());
    archive.file(Path::new("arguments"), task.arguments.join(" ").as_bytes());
    for (file, place) in task.files {
        archive.file(Path::new(place), &fs::read(file)?);
    }
    archive.file(Path::new("bin/busybox"), &fs::read(kernel::busybox(folder)?)?);
    for (number, module) in modules::in_order(&folder.join(version), task.modules)?.iter().enumerate() {
        archive.file(Path::new(&format!("modules/{number:02}-{}.ko", module.name)), &module.content);
    }
    let mut needed = BTreeSet::new();
    for (program, place) in
        task.tools.iter().map(|tool| (tool.as_path(), tool_place(tool))).chain([(task.program, "bin/program".into())])
    {
        archive.file(&place, &stripped(program, folder)?);
        needed.extend(libraries(program)?);
    }
    for library in needed {
        archive.file(library.strip_prefix("/")?, &fs::read(&library)?);
    }
    Ok(archive.finish())
}

fn tool_place(tool: &Path) -> PathBuf {
    Path::new("bin").join(tool.file_name().unwrap_or_default())
}

/// A program without what only debuggers read: the machine is quicker to start.
fn stripped(program: &Path, folder: &Path) -> Result<Vec<u8>> {
    let small = folder.join("stripped");
    let done = Command::new("strip").arg("--strip-debug").arg("-o").arg(&small).arg(program).status();
    let is_done = done.is_ok_and(|status| status.success());
    Ok(fs::read(if is_done { &small } else { program })?)
}

/// The shared libraries of a program, by the paths at which the program looks for them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    ensure!(output.status.success(), "ldd does not list the libraries of {}", program.display());
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}
