//! The stage on which the commands of a page are run: a node in namespaces, which looks to them like a machine of its
//! own.
//!
//! Beside a network namespace of a [`Lab`] it has its own mounts (an empty BPF file system, an overlay over `/etc`, the
//! pods under their names for `ip netns`), its own processes and its own host name. So pages use the default paths,
//! and nothing that they start or pin outlives the stage.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command as Program;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::web::Web;
use super::{Command, difference, top};
use crate::agent::program;
use crate::deadline;
use crate::http;
use crate::lab::{Lab, Setup};
use crate::manifest::NODE;
use crate::process::{Process, finish};

/// The port of the pods' web servers.
const TARGET: u16 = 8080;
/// The time limit of a command that ends by itself.
const LIMIT: Duration = Duration::from_secs(30);
/// The folder of the agent's source.
const SOURCE: &str = "/etc/lb-agent";

/// Makes the machine around process 1. `$1` is a folder of the stage, `$2` the host name; the others are pairs of a namespace's name in the
/// page and its real name.
const BOOT: &str = r#"
set -e
folder=$1 name=$2; shift 2
hostname "$name"
mkdir "$folder/etc" "$folder/netns"
mount -t tmpfs tmpfs "$folder/etc"
mkdir "$folder/etc/upper" "$folder/etc/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$folder/etc/upper,workdir=$folder/etc/work" /etc
mount -t bpf bpf /sys/fs/bpf
mount --rbind /run/netns "$folder/netns"
mount -t tmpfs tmpfs /run/netns
while [ $# -gt 0 ]; do
    touch "/run/netns/$1"
    mount --bind "$folder/netns/$2" "/run/netns/$1"
    shift 2
done
umount --recursive --lazy "$folder/netns"
mkdir -p /etc/lb-agent
touch "$folder/booted"
exec sleep infinity
"#;

/// Starts of commands that change nothing.
const READING: &[&str] =
    &["lb-agent show", "lb-agent explain", "lb-agent check", "curl", "bpftool map dump", "nft list", "ip link", "tc "];

/// Why a command is not as the page says.
#[derive(Debug)]
pub struct Wrong {
    pub what: String,
    /// What it printed, if that is all that is wrong.
    pub printed: Option<String>,
}

/// A machine, its pods and its network. Fields are dropped in this order: programs before the namespaces in which they
/// run.
pub struct Stage {
    background: Vec<Process>,
    /// Process 1 of the machine. The machine ends with it.
    init: Pid,
    _unshare: Process,
    _webs: Vec<Web>,
    lab: Lab,
}

impl Stage {
    /// Prepares the stage with these words, for the page with this number. `docs/CONTRIBUTING.md` lists the words.
    pub fn prepare(words: &str, page: usize) -> Result<Self, String> {
        let (name, flags) = words.split_at(words.find("--").unwrap_or(words.len()));
        let (pods, examples): (&[&'static str], &[&str]) = match name.trim() {
            "machine" => (&[], &[]),
            "pods" => (&["client", "a", "b"], &[]),
            "empty node" => (&["client", "a", "b"], &["node.yaml"]),
            "node" => (&["client", "a", "b"], &["node.yaml", "shop.yaml", "bank.yaml"]),
            other => return Err(format!("there is no stage `{other}`")),
        };
        let mut stage = Self::boot(page, pods);
        for example in examples {
            let text = fs::read_to_string(top().join("docs/examples/shop").join(example)).expect("it is there");
            stage.write(&format!("{SOURCE}/{example}"), &text);
        }
        if !examples.is_empty() {
            let run = format!("lb-agent run --source dir:{SOURCE} {flags}");
            stage.start(&run, "agent");
            let address = SocketAddr::from(([127, 0, 0, 1], 10356));
            let node = stage.lab.node.clone();
            let agent = stage.background.last_mut().expect("it was just started");
            agent.wait_until_up(|| matches!(http::get(&node, address, "/readyz"), Some((200, _))));
        }
        Ok(stage)
    }

    /// A machine without an agent.
    fn boot(page: usize, pods: &[&'static str]) -> Self {
        // Names of labs are few, and live as long as the process.
        let test: &'static str = Box::leak(format!("doc{page}").into_boxed_str());
        let lab = Setup::new(test).pods(pods).build();
        let mut webs: Vec<_> = pods.iter().map(|pod| Web::start(&lab.pod(pod).netns, pod, TARGET)).collect();
        webs.extend([80, 443].map(|port| Web::start(&lab.external, "the balancer", port)));
        prepare_folder(lab.folder());
        let mut boot = Program::new("unshare");
        boot.args(["--mount", "--propagation=private", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        boot.args(["bash", "-c", BOOT, "boot"]).arg(lab.folder()).arg(NODE);
        for pod in pods {
            boot.args([pod, lab.pod(pod).netns.name()]);
        }
        let mut unshare = Process::start(&lab.node, "machine", lab.folder(), &mut boot);
        unshare.wait_until_up(|| lab.folder().join("booted").exists());
        let pid = unshare.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
        let init = children.trim().parse().map(Pid::from_raw).expect("it has one child");
        Self { background: Vec::new(), init, _unshare: unshare, _webs: webs, lab }
    }

    /// Writes a file of the machine.
    pub fn write(&self, path: &str, text: &str) {
        let target = Path::new("/proc").join(self.init.to_string()).join("root").join(path.trim_start_matches('/'));
        let folder = target.parent().expect("a file is in a folder");
        fs::create_dir_all(folder).expect("the machine's folders are ours");
        // Renamed, so that the agent never reads half of it.
        let hidden = folder.join(".new");
        fs::write(&hidden, text).and_then(|()| fs::rename(&hidden, &target)).expect("the machine's folders are ours");
    }

    /// Runs a command and compares what it prints with the page. If the command only reads, its output may differ for
    /// as long as `patience`.
    pub fn run(&mut self, command: &Command, patience: Duration) -> Result<(), Wrong> {
        if command.is_interrupted || command.text.trim_end().ends_with('&') {
            return self.run_in_background(command);
        }
        let once = |stage: &Self| {
            let finished = finish(&stage.lab.node, &mut stage.program(&command.text), LIMIT);
            let difference = difference(&command.output, &finished.stdout);
            if finished.code == Some(command.exit_code) {
                return difference.map_or(Ok(()), |what| Err(Wrong { what, printed: Some(finished.stdout) }));
            }
            let what = format!("the exit code is {:?}; it printed\n{}", finished.code, finished.stdout);
            Err(Wrong { what, printed: None })
        };
        let limit = if reads(&command.text) { patience } else { Duration::ZERO };
        let mut last = Ok(());
        let done = deadline::within(limit, || {
            last = once(self);
            last.is_ok().then_some(())
        });
        done.map_or(last, Ok)
    }

    /// Runs a command that lasts. What it prints is awaited; then, if the page shows `^C`, it is interrupted.
    fn run_in_background(&mut self, command: &Command) -> Result<(), Wrong> {
        let name = format!("command{}", command.line);
        let text = command.text.trim_end().trim_end_matches('&');
        self.start(text, &name);
        let process = self.background.last_mut().expect("it was just started");
        let mut last = None;
        deadline::within(deadline::PATIENCE, || {
            last = difference(&command.output, &process.output());
            last.is_none().then_some(())
        });
        if let Some(what) = last {
            return Err(Wrong { what, printed: Some(process.output()) });
        }
        if !command.is_interrupted {
            return Ok(());
        }
        let mut process = self.background.pop().expect("it was just started");
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.pid())).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(child), Signal::SIGINT);
        }
        let code = process.wait().code();
        let is_right = code == Some(command.exit_code) || code == Some(128 + Signal::SIGINT as i32);
        let what = format!("interrupted, it ended with {code:?}");
        if is_right { Ok(()) } else { Err(Wrong { what, printed: None }) }
    }

    fn start(&mut self, text: &str, name: &str) {
        // The shell becomes the command, so that a signal reaches it.
        let mut program = self.program(&format!("exec {text}"));
        let process = Process::start(&self.lab.node, name, self.lab.folder(), &mut program);
        self.background.push(process);
    }

    /// A command of the machine. Both of its outputs are one, as on a terminal.
    fn program(&self, text: &str) -> Program {
        let mut program = Program::new("nsenter");
        program.arg("--target").arg(self.init.to_string()).args(["--mount", "--uts", "--pid"]);
        program.arg(format!("--wd={}", self.lab.folder().join("work").display()));
        program.args(["bash", "-c", &format!("exec 2>&1\n{text}")]);
        let paths = std::env::var("PATH").unwrap_or_default();
        program.env("PATH", format!("{}:{paths}", self.lab.folder().join("bin").display()));
        // A name of an outer node is not this one's.
        program.env_remove("NODE_NAME").env_remove("LB_AGENT_PIN_PATH");
        program
    }
}

/// `bin/` with the agent; `work/` with links to what a clone has, and the agent where a release build leaves it.
fn prepare_folder(folder: &Path) {
    let (bin, work) = (folder.join("bin"), folder.join("work"));
    let release = work.join("target/release");
    for made in [&bin, &work, &release] {
        fs::create_dir_all(made).expect("the folder is ours");
    }
    for place in [&bin, &release] {
        symlink(program(), place.join("lb-agent")).expect("the folder is ours");
    }
    for name in ["deploy", "docs", "tests", "README.md"] {
        symlink(top().join(name), work.join(name)).expect("the folder is ours");
    }
}

/// Whether a command may be repeated until it prints what the page shows.
fn reads(command: &str) -> bool {
    let command = command.trim_start();
    READING.iter().any(|start| command.starts_with(start))
        || (command.starts_with("ip netns exec") && command.contains(" curl "))
}
