//! A network namespace of a test: named `lb-<test>-<pid>-<part>`, emptied and removed when its last handle is dropped.
//!
//! Only the network of a program inside changes. It keeps the machine's mounts, so that it sees pinned maps (`ip netns
//! exec` would hide them).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns};

use crate::{deadline, leftovers};

/// Parts of the names of kernel counters of lost packets.
const LOSSES: [&str; 8] = ["Drop", "Discard", "Err", "Fail", "Filter", "NoRoutes", "Retrans", "Timeout"];

/// A handle of a network namespace, with its loopback up.
#[derive(Clone)]
pub struct Netns {
    mounted: Arc<Mounted>,
}

/// The namespace itself, under its name.
struct Mounted {
    name: String,
    file: File,
}

impl Netns {
    /// Makes the namespace `lb-<test>-<pid>-<part>`.
    #[track_caller]
    pub fn create(test: &str, part: &str) -> Self {
        leftovers::sweep();
        let name = leftovers::name(test, part);
        run(Command::new("ip").args(["netns", "add", &name]));
        let file = File::open(Path::new(leftovers::NAMESPACES).join(&name)).expect("the namespace was just made");
        let netns = Self { mounted: Arc::new(Mounted { name, file }) };
        // Addresses are usable at once, on every later interface.
        netns.sysctl(&[("net.ipv6.conf.default.accept_dad", "0"), ("net.ipv6.conf.all.accept_dad", "0")]);
        netns.ip(&["link set lo up"]);
        netns
    }

    /// The name of the namespace for `ip netns` and `nsenter --net=/run/netns/NAME`.
    pub fn name(&self) -> &str {
        &self.mounted.name
    }

    /// Runs `work` on a thread in the namespace, and waits for it. A panic of `work` is resumed here.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let entered = || {
            self.enter();
            work()
        };
        match thread::scope(|scope| scope.spawn(entered).join()) {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Starts a thread in the namespace. It keeps the namespace alive, so it must end when its owner stops it.
    pub fn thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let file = self.mounted.file.try_clone().expect("descriptors are left");
        thread::spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace");
            work()
        })
    }

    /// Runs a command in the namespace and returns its output. Panics with its error output if it fails.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments);
        self.run_command(&mut command)
    }

    /// As [`Netns::run`], for a prepared command.
    #[track_caller]
    pub fn run_command(&self, command: &mut Command) -> String {
        let output = self.inside(|| command.stdin(Stdio::null()).output());
        succeeded(command, output)
    }

    /// Runs lines of `ip` in the namespace, all in one process.
    #[track_caller]
    pub fn ip(&self, lines: &[impl AsRef<str>]) {
        let mut script = String::new();
        for line in lines {
            writeln!(script, "{}", line.as_ref()).expect("a string takes all");
        }
        self.feed("ip", &["-batch", "-"], &script);
    }

    /// Waits until the neighbours can resolve all of its IPv6 addresses. Until a worker of the kernel has joined the
    /// multicast group of an address, solicitations for that address are lost, and the next one is sent a second later.
    #[track_caller]
    pub fn settle(&self) {
        let is_settled = || {
            let read = |table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
            self.inside(|| groups_are_joined(&read("if_inet6"), &read("igmp6")))
        };
        deadline::until_true("the kernel has joined the groups of all IPv6 addresses", is_settled);
    }

    /// The kernel's counters of possible losses, and the neighbour table, to explain a failed test.
    pub fn losses(&self) -> String {
        let say =
            |program: &str, arguments: &[&str]| match self.inside(|| Command::new(program).args(arguments).output()) {
                Ok(output) => lossy(&output.stdout),
                Err(error) => format!("{program}: {error}\n"),
            };
        let mut text = say("ip", &["neigh"]);
        // Absolute values, and without the history file, which other users share.
        for line in say("nstat", &["-a", "-s"]).lines().filter(|line| LOSSES.iter().any(|word| line.contains(word))) {
            writeln!(text, "{line}").expect("a string takes all");
        }
        text
    }

    /// Loads an nftables ruleset.
    #[track_caller]
    pub fn nft(&self, ruleset: &str) {
        self.feed("nft", &["-f", "-"], ruleset);
    }

    /// Sets kernel parameters of the namespace, named with dots as in `sysctl` (names of interfaces contain none).
    #[track_caller]
    pub fn sysctl(&self, settings: &[(impl AsRef<str> + Sync, impl AsRef<str> + Sync)]) {
        self.inside(|| {
            for (key, value) in settings {
                let path = PathBuf::from("/proc/sys").join(key.as_ref().replace('.', "/"));
                if let Err(error) = fs::write(&path, value.as_ref()) {
                    panic!("cannot write {} to {}: {error}", value.as_ref(), path.display());
                }
            }
        });
    }

    /// Runs a program in the namespace with `input` on its standard input.
    #[track_caller]
    pub fn feed(&self, program: &str, arguments: &[&str], input: &str) {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.inside(|| {
            let mut child = command.spawn()?;
            // A program that ends before it has read its input reports the reason itself.
            let _ = child.stdin.take().expect("piped above").write_all(input.as_bytes());
            child.wait_with_output()
        });
        if !output.as_ref().is_ok_and(|output| output.status.success()) {
            let said = output.map_or_else(|error| error.to_string(), |output| lossy(&output.stderr));
            panic!("{program} refused in {}:\n{}{said}", self.name(), numbered(input));
        }
    }

    /// Moves the calling thread into the namespace, for good.
    fn enter(&self) {
        setns(&self.mounted.file, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        leftovers::remove_namespace(&self.name);
    }
}

/// Whether each address of `if_inet6` has its solicited-node group (RFC 4291, 2.7.1) in `igmp6`.
fn groups_are_joined(addresses: &str, groups: &str) -> bool {
    let has_group = |line: &str| {
        let (address, interface) = (line.get(..32)?, line.split_whitespace().last()?);
        let group = format!("ff0200000000000000000001ff{}", &address[26..]);
        let is_it = |line: &str| line.contains(&group) && line.split_whitespace().nth(1) == Some(interface);
        (interface == "lo" || groups.lines().any(is_it)).then_some(())
    };
    addresses.lines().all(|line| has_group(line).is_some())
}

/// Runs a command outside the tests' namespaces. Panics with its error output if it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    succeeded(command, output)
}

#[track_caller]
fn succeeded(command: &Command, output: std::io::Result<std::process::Output>) -> String {
    match output {
        Ok(output) if output.status.success() => lossy(&output.stdout),
        Ok(output) => {
            panic!("{command:?} failed ({}):\n{}{}", output.status, lossy(&output.stdout), lossy(&output.stderr))
        }
        Err(error) => panic!("{command:?} does not start: {error}"),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn numbered(text: &str) -> String {
    let mut lines = String::new();
    for (index, line) in text.lines().enumerate() {
        writeln!(lines, "{:>3}  {line}", index + 1).expect("a string takes all");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::groups_are_joined;

    #[test]
    fn an_address_needs_the_group_of_its_last_three_octets() {
        let address = "fd00001002440001000000000000000b 02 80 00 80     eth0\n";
        let group = "2    eth0            ff0200000000000000000001ff00000b     1 00000004 0\n";
        assert!(groups_are_joined(address, group));
        assert!(!groups_are_joined(address, &group.replace("eth0", "eth1")));
        assert!(!groups_are_joined(address, ""));
        assert!(groups_are_joined("00000000000000000000000000000001 01 80 10 80       lo\n", ""));
    }
}
