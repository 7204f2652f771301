//! Namespaces, pins and folders that a killed test leaves behind, all named `lb-<test>-<pid>-<part>`, and their
//! removal.
//!
//! Guards remove what they made. This module covers the ends that no guard sees. It never touches other names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::deadline;

/// The folder of named namespaces.
pub const NAMESPACES: &str = "/run/netns";

/// The folder of pinned maps.
pub const PINS: &str = "/sys/fs/bpf";

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether this process was interrupted. Then failures need no report.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Does not return if the process was interrupted. A test that fails because its programs were killed must not end the
/// process before everything is removed, nor choose its exit code.
pub fn leave_the_end_to_the_interrupt() {
    while is_interrupted() {
        std::thread::park();
    }
}

/// The name of an object that this process makes.
#[track_caller]
pub fn name(test: &str, part: &str) -> String {
    let name = format!("lb-{test}-{}-{part}", std::process::id());
    assert_eq!(owner(&name), Some(std::process::id()), "a dash in {test} or {part} would hide whose it is");
    name
}

/// Removes the leftovers of dead processes, once per process.
pub fn sweep() {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| remove_if(|pid| !Path::new("/proc").join(pid.to_string()).exists()));
}

/// Removes everything of this process when it is interrupted (SIGINT, SIGTERM), and ends it.
pub fn remove_on_interrupt() {
    let mut signals = Signals::new([SIGINT, SIGTERM]).expect("these signals can be caught");
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            eprintln!("\ninterrupted: removing what was made");
            // Tests whose programs are killed panic, for a known reason.
            INTERRUPTED.store(true, Ordering::SeqCst);
            std::panic::set_hook(Box::new(|_| {}));
            remove_if(|pid| pid == std::process::id());
            std::process::exit(128 + signal);
        }
    });
}

/// Removes a namespace, after killing the processes in it. Never panics: it runs while a test unwinds.
pub fn remove_namespace(name: &str) {
    let gone = deadline::within(deadline::PATIENCE, || {
        let pids = pids(name);
        for pid in &pids {
            // It may have ended by itself in between.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        pids.is_empty().then_some(())
    });
    if gone.is_none() {
        eprintln!("processes in {name} do not end");
    }
    match Command::new("ip").args(["netns", "delete", name]).output() {
        Ok(output) if output.status.success() || !Path::new(NAMESPACES).join(name).exists() => {}
        Ok(output) => eprintln!("cannot remove {name}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => eprintln!("cannot remove {name}: {error}"),
    }
}

/// Removes everything of the processes that `is_meant` selects: namespaces first, so that none of their programs runs
/// any more.
fn remove_if(is_meant: impl Fn(u32) -> bool) {
    let meant = |folder: &Path| -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        let paths = entries.flatten().map(|entry| entry.path());
        paths.filter(|path| owner(&file_name(path)).is_some_and(&is_meant)).collect()
    };
    for path in meant(Path::new(NAMESPACES)) {
        remove_namespace(&file_name(&path));
    }
    for path in [meant(Path::new(PINS)), meant(&std::env::temp_dir())].concat() {
        if let Err(error) = fs::remove_dir_all(&path) {
            eprintln!("cannot remove {}: {error}", path.display());
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Processes in the network namespace, except the test itself, whose threads may be in it.
fn pids(name: &str) -> Vec<i32> {
    let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() else { return Vec::new() };
    let own = std::process::id().cast_signed();
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| *pid != own).collect()
}

/// The process that made `lb-<test>-<pid>-<part>`.
fn owner(name: &str) -> Option<u32> {
    match name.split('-').collect::<Vec<_>>()[..] {
        ["lb", _, pid, _] => pid.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn only_names_of_our_shape_have_an_owner() {
        assert_eq!(owner("lb-demo-4711-node"), Some(4711));
        assert_eq!(owner("lb-demo"), None);
        assert_eq!(owner("lb-blue-green-production"), None);
        assert_eq!(owner("cni-1234-4711-node"), None);
    }
}
