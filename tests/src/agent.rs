//! The agent under test: the real program on the node of a lab, with pins of its own.

use std::env;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use serde_json::Value;

use crate::deadline;
use crate::http;
use crate::leftovers;
use crate::netns::Netns;
use crate::printed;
use crate::process::{Finished, Process, finish};

/// The agents' HTTP port: each namespace has a loopback interface of its own.
const HTTP_PORT: u16 = 10356;

/// The time limit of a subcommand.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// Small tables, which are quickly made, unless a test sets other sizes.
const SIZES: [(&str, &str); 3] = [("--frontends-max", "1024"), ("--backends-max", "4096"), ("--flows-max", "8192")];

/// The program: `$LB_AGENT_BIN`, or what cargo built beside this program.
#[track_caller]
pub fn program() -> PathBuf {
    if let Some(path) = env::var_os("LB_AGENT_BIN") {
        return path.into();
    }
    let own = env::current_exe().expect("Linux knows the path of a running program");
    let built = own.ancestors().skip(1).take(2).map(|folder| folder.join("lb-agent")).find(|path| path.is_file());
    match built {
        Some(path) => path,
        None => panic!("there is no lb-agent beside {}: cargo build -p lb-agent", own.display()),
    }
}

/// The owner of the pins that an agent uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Own,
    Another,
}

/// An agent's settings. It can be started, ended, and started again with the same settings.
pub struct Agent {
    netns: Netns,
    folder: PathBuf,
    source: PathBuf,
    /// If given, the API is the source instead.
    kubeconfig: Option<PathBuf>,
    pin_path: PathBuf,
    owner: Owner,
    http: SocketAddr,
    node: &'static str,
    flags: Vec<String>,
    launcher: Vec<String>,
    process: Option<Process>,
}

impl Agent {
    /// An agent that is not started yet. `folder` gets its log, `source` holds its manifests.
    pub fn new(netns: &Netns, folder: &Path, source: &Path) -> Self {
        let pin_path = Path::new(leftovers::PINS).join(netns.name());
        let (folder, source) = (folder.to_owned(), source.to_owned());
        Self {
            netns: netns.clone(),
            folder,
            source,
            kubeconfig: None,
            pin_path,
            owner: Owner::Own,
            http: http_address(HTTP_PORT),
            node: crate::manifest::NODE,
            flags: Vec::new(),
            launcher: Vec::new(),
            process: None,
        }
    }

    /// Follows the API instead of a folder.
    #[must_use]
    pub fn following(mut self, kubeconfig: PathBuf) -> Self {
        self.kubeconfig = Some(kubeconfig);
        self
    }

    /// Serves another node than [`crate::manifest::NODE`].
    #[must_use]
    pub const fn on(mut self, node: &'static str) -> Self {
        self.node = node;
        self
    }

    /// Adds flags of `lb-agent run`.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// Starts the agent by another program, which becomes the agent: `prlimit --nofile=256 lb-agent run ...`.
    pub fn launch_by(&mut self, launcher: &[&str]) {
        self.launcher = launcher.iter().map(ToString::to_string).collect();
    }

    /// Uses the pins of another agent, which still removes them.
    #[must_use]
    pub fn pins(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.pin_path);
        self.owner = Owner::Another;
        self
    }

    /// Replaces the flags, for the next start.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(ToString::to_string).collect();
    }

    /// Serves HTTP on another port: two agents in one namespace need different ports.
    #[must_use]
    pub fn http_port(mut self, port: u16) -> Self {
        self.http = http_address(port);
        self
    }

    /// The folder of its pins.
    pub fn pin_path(&self) -> &Path {
        &self.pin_path
    }

    /// The folder of its pinned maps, each under its name.
    pub fn maps(&self) -> PathBuf {
        self.pin_path.join("maps")
    }

    /// Starts it and waits until it has programmed its first full state.
    #[track_caller]
    #[must_use]
    pub fn started(mut self) -> Self {
        self.start();
        self
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(&mut self) {
        self.spawn();
        self.wait_until_ready(deadline::PATIENCE);
    }

    /// Waits until it has programmed its first full state.
    #[track_caller]
    pub fn wait_until_ready(&mut self, limit: Duration) {
        let (netns, http) = (self.netns.clone(), self.http);
        let is_ready = || matches!(http::get(&netns, http, "/readyz"), Some((200, _)));
        self.process_mut().wait_until_up_for(limit, is_ready);
    }

    /// Starts it without waiting.
    #[track_caller]
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let words = ["run", "--node-name", self.node, "--log-level", "info"];
        let mut command = match self.launcher.split_first() {
            None => self.command(&words),
            Some((launcher, more)) => {
                let mut command = Command::new(launcher);
                command.args(more).arg(program()).args(words).arg("--pin-path").arg(&self.pin_path);
                command
            }
        };
        match &self.kubeconfig {
            Some(kubeconfig) => command.args(["--source", "kube", "--kubeconfig"]).arg(kubeconfig),
            None => command.arg("--source").arg(format!("dir:{}", self.source.display())),
        };
        command.args(["--http", &self.http.to_string()]).args(&self.flags);
        for (flag, size) in SIZES {
            if !self.flags.iter().any(|given| given == flag) {
                command.args([flag, size]);
            }
        }
        self.process = Some(Process::start(&self.netns, "agent", &self.folder, &mut command));
    }

    /// Ends it as a crash would.
    #[track_caller]
    pub fn crash(&mut self) {
        self.process_mut().crash();
        self.process = None;
    }

    /// Asks it to end (SIGTERM), and waits until it has done so in good order.
    #[track_caller]
    pub fn terminate(&mut self) {
        let process = self.process_mut();
        process.signal(Signal::SIGTERM);
        let status = process.wait();
        assert!(
            status.success(),
            "the agent ended with {status} (signal {:?}):\n{}",
            status.signal(),
            process.output()
        );
        self.process = None;
    }

    /// Waits until the agent ends by itself; returns its exit code and output.
    #[track_caller]
    pub fn refused(&mut self) -> (Option<i32>, String) {
        let process = self.process_mut();
        let status = process.wait();
        let output = process.output();
        self.process = None;
        (status.code(), output)
    }

    /// The process ID.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the agent runs").pid()
    }

    /// Its log since the first start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()
    }

    /// A page of its HTTP server.
    pub fn page(&self, path: &str) -> Option<(u16, String)> {
        http::get(&self.netns, self.http, path)
    }

    /// Runs a subcommand on the same pins, whether the agent runs or not.
    #[track_caller]
    pub fn ask(&self, arguments: &[&str]) -> Finished {
        finish(&self.netns, &mut self.command(arguments), COMMAND_LIMIT)
    }

    /// The output of a subcommand. Panics if it fails.
    #[track_caller]
    pub fn says(&self, arguments: &[&str]) -> String {
        let finished = self.ask(arguments);
        assert_eq!(finished.code, Some(0), "lb-agent {arguments:?} failed: {}", finished.stderr);
        finished.stdout
    }

    /// The rows of `lb-agent show SUBJECT`.
    #[track_caller]
    pub fn rows(&self, subject: &str) -> Vec<Value> {
        printed::items(&self.says(&["show", subject, "-o", "json"]))
    }

    /// What `lb-agent explain` answers about a packet.
    #[track_caller]
    pub fn explains(&self, from: &str, to: &str) -> Value {
        printed::item(&self.says(&["explain", "--from", from, "--to", to, "-o", "json"]))
    }

    /// What `lb-agent check` finds.
    #[track_caller]
    pub fn findings(&self) -> Vec<Value> {
        printed::items(&self.says(&["check", "-o", "json"]))
    }

    /// Packets, or dials, of a counter.
    #[track_caller]
    pub fn counted(&self, counter: &str) -> u64 {
        let rows = self.rows("counters");
        let row = rows.iter().find(|row| row["counter"] == counter).expect("a counter");
        row["packets"].as_u64().expect("a number")
    }

    /// Removes programs, links and pins.
    #[track_caller]
    pub fn unload(&self) {
        self.says(&["unload"]);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).arg("--pin-path").arg(&self.pin_path);
        command
    }

    #[track_caller]
    fn process_mut(&mut self) -> &mut Process {
        self.process.as_mut().expect("the agent was started")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process = None;
        if self.owner == Owner::Own && self.pin_path.exists() {
            // While a test unwinds, an error cannot be reported. The lines below remove what is left.
            let _ = self.netns.inside(|| self.command(&["unload"]).output());
            let _ = std::fs::remove_dir_all(&self.pin_path);
        }
    }
}

fn http_address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
