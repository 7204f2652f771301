//! A program that runs in a namespace until its guard is dropped. Its output is kept for failure messages.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::deadline;
use crate::leftovers;
use crate::netns::Netns;

/// A running program. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// The thread that started it waits until this is dropped.
    starter: Option<mpsc::Sender<()>>,
}

impl Process {
    /// Starts `command` in `netns`, with both outputs in `<folder>/<name>.log`.
    #[track_caller]
    pub fn start(netns: &Netns, name: &str, folder: &Path, command: &mut Command) -> Self {
        netns.inside(|| Self::spawn(name, folder, command))
    }

    /// As [`Process::start`], in the network namespace of the calling thread.
    #[track_caller]
    pub fn spawn(name: &str, folder: &Path, command: &mut Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("the folder is writable");
        let errors = file.try_clone().expect("descriptors are left");
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("{} does not start: {error}", command.get_program().display()));
        Self { name: name.into(), child, log, starter: None }
    }

    /// As [`Process::spawn`], for a program outside the tests' namespaces, where no sweep would find it: the kernel
    /// kills it also if this process ends without dropping the guard.
    #[track_caller]
    pub fn spawn_bound(name: &str, folder: &Path, program: &Path, arguments: &[String]) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).args(arguments);
        let (name, folder) = (name.to_owned(), folder.to_owned());
        let (result, started) = mpsc::channel();
        let (starter, end) = mpsc::channel();
        // The kernel kills it when the thread that started it ends, not the process (prctl(2), PR_SET_PDEATHSIG).
        // Threads of tests end too early.
        thread::spawn(move || {
            // The caller waits for the result below.
            let _ = result.send(Self::spawn(&name, &folder, &mut command));
            // Nothing is ever sent: this returns when the guard is dropped.
            let _ = end.recv();
        });
        let mut process = started.recv().expect("it starts");
        process.starter = Some(starter);
        process
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The output so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("the process has not been waited for");
    }

    /// Waits for the end. Panics after the time limit.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        match deadline::within(deadline::PATIENCE, || self.ended()) {
            Some(status) => status,
            None => panic!("{} still runs; it said:\n{}", self.name, self.output()),
        }
    }

    /// Kills it as a crash would (kill -9), and waits for its end.
    pub fn crash(&mut self) {
        self.signal(Signal::SIGKILL);
        let status = self.wait();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{} ended by itself: {status}", self.name);
    }

    /// Waits until `is_up`. Panics with its output if it ends before that, or takes too long.
    #[track_caller]
    pub fn wait_until_up(&mut self, is_up: impl FnMut() -> bool) {
        self.wait_until_up_for(deadline::PATIENCE, is_up);
    }

    /// As [`Process::wait_until_up`], with another time limit.
    #[track_caller]
    pub fn wait_until_up_for(&mut self, limit: Duration, mut is_up: impl FnMut() -> bool) {
        let up = deadline::within(limit, || {
            if let Some(status) = self.ended() {
                panic!("{} ended ({status}); it said:\n{}", self.name, self.output());
            }
            is_up().then_some(())
        });
        assert!(up.is_some(), "{} does not come up; it said:\n{}", self.name, self.output());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() && !leftovers::is_interrupted() {
            eprintln!("--- {} said:\n{}", self.name, last_lines(&self.output(), 40));
        }
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The result of a command that was run to its end.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command in a namespace to its end, and accepts any exit code. Panics if it takes longer than `limit`.
#[track_caller]
pub fn finish(netns: &Netns, command: &mut Command, limit: Duration) -> Finished {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let (stdout, stderr) = (folder.path().join("stdout"), folder.path().join("stderr"));
    let create = |path: &Path| File::create(path).expect("the folder is ours");
    command.stdin(Stdio::null()).stdout(create(&stdout)).stderr(create(&stderr));
    let mut child = match netns.inside(|| command.spawn()) {
        Ok(child) => child,
        Err(error) => panic!("{} does not start: {error}", command.get_program().display()),
    };
    let status = deadline::within(limit, || child.try_wait().expect("a child can be waited for"));
    let Some(status) = status else {
        // It may have ended just now.
        let _ = child.kill();
        let _ = child.wait();
        panic!("{command:?} took longer than {} s", limit.as_secs());
    };
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    Finished { code: status.code(), stdout: read(&stdout), stderr: read(&stderr) }
}
