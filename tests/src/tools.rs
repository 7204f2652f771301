//! The tools of others that check what `deploy/` ships: promtool, helm and kubectl.

use std::env;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The program, in `tools` of the target folder.
#[track_caller]
fn program(name: &str) -> PathBuf {
    let own = env::current_exe().expect("Linux knows the path of a running program");
    let found = own.ancestors().map(|folder| folder.join("tools").join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("there is no target/tools/{name}: cargo xtask setup"))
}

/// Runs a tool to its end, with this text as its input.
#[track_caller]
pub fn run(name: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(program(name));
    // Neither a cluster nor settings of the person who runs the tests.
    command.args(arguments).env("KUBECONFIG", "/nonexistent").env("HOME", "/nonexistent");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // A tool that does not read its input closes it.
    let _ = child.stdin.take().expect("piped above").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

/// The output of a tool that must succeed.
#[track_caller]
pub fn says(name: &str, arguments: &[&str], input: &str) -> String {
    let output = run(name, arguments, input);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {arguments:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout.into_owned()
}
