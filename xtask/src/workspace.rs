//! Where the project is on this disk, and how its cargo is called.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The top of the source tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask stands in the workspace")
}

/// Where builds and logs go.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Where `cargo install` puts programs.
pub fn cargo_bin() -> PathBuf {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    home.unwrap_or_else(|| PathBuf::from("/root/.cargo")).join("bin")
}

/// The search path of programs, with the folders of cargo's own and of administration, which not every system puts
/// there. Where it names them already it stays as it is: build scripts run again when it changes.
pub fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    let known = dirs.len();
    for dir in [cargo_bin(), "/usr/sbin".into(), "/sbin".into()] {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    if dirs.len() == known { path } else { env::join_paths(dirs).unwrap_or(path) }
}

/// A program, found on [`search_path`], started at the top of the source tree.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root()).env("PATH", search_path());
    command
}

/// The cargo that runs this task.
pub fn cargo() -> Command {
    let mut command = program(&env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    // Set by `cargo run` for this program alone; build scripts would rebuild whenever they change.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}
