//! The test programs of the workspace: their list, their levels in the test pyramid, and the run of each.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace;

/// The longest that one test program may run; a longer run hangs.
const LIMIT: Duration = Duration::from_mins(15);

/// How often a running test program is polled.
const POLL: Duration = Duration::from_millis(50);

/// A level of the test pyramid, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Unit,
    Property,
    Script,
    Api,
    PacketHost,
    PacketKernel,
    Netns,
    Life,
}

/// Test programs of the `tests` package, by the first word of their name.
const LEVELS: &[(&str, Level)] = &[
    ("apiserver", Level::Api),
    ("kubernetes", Level::Api),
    ("deploy", Level::Unit),
    ("model", Level::Property),
    ("properties", Level::Property),
    ("explain", Level::Property),
    ("header", Level::Property),
    ("corpus", Level::Property),
    ("script", Level::Script),
    ("upstream", Level::Unit),
    ("path", Level::PacketHost),
    ("progrun", Level::PacketKernel),
    ("kernel", Level::PacketKernel),
    ("reference", Level::PacketKernel),
    ("netns", Level::Netns),
    ("adopt", Level::Life),
    ("restart", Level::Life),
    ("demo", Level::Life),
];

impl Level {
    /// All levels, in the order in which they run.
    pub const ALL: [Self; 8] = [
        Self::Unit,
        Self::Property,
        Self::Script,
        Self::Api,
        Self::PacketHost,
        Self::PacketKernel,
        Self::Netns,
        Self::Life,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Property => "property",
            Self::Script => "script",
            Self::Api => "API server",
            Self::PacketHost => "packet on the host",
            Self::PacketKernel => "packet in the kernel",
            Self::Netns => "network namespaces",
            Self::Life => "life cycle",
        }
    }

    /// Whether tests of this level load programs or make network namespaces.
    pub const fn needs_root(self) -> bool {
        match self {
            Self::Unit | Self::Property | Self::Script | Self::Api | Self::PacketHost => false,
            Self::PacketKernel | Self::Netns | Self::Life => true,
        }
    }

    /// How many tests run at once, if not one per core: these tests mostly wait for the network.
    const fn threads(self) -> Option<u32> {
        match self {
            Self::Netns => Some(4),
            Self::Life => Some(2),
            Self::Unit | Self::Property | Self::Script | Self::Api | Self::PacketHost | Self::PacketKernel => None,
        }
    }

    fn of(kind: &str, name: &str) -> Result<Self> {
        if kind != "test" {
            return Ok(Self::Unit);
        }
        let first = name.split('-').next().unwrap_or(name);
        let Some((_, level)) = LEVELS.iter().find(|(word, _)| *word == first) else {
            bail!("the test program {name} is at no level: add its first word to LEVELS in {}", file!());
        };
        Ok(*level)
    }
}

/// A built test program.
pub struct Suite {
    pub name: String,
    pub level: Level,
    program: PathBuf,
    folder: PathBuf,
}

/// The results of a program's tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Count {
    pub const fn ran(self) -> u32 {
        self.passed + self.failed
    }

    /// Whether nothing ran and nothing was skipped. A program that lists its tests at run time may have listed none.
    pub const fn is_empty(self) -> bool {
        self.ran() + self.skipped == 0
    }

    pub const fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// Builds all test programs in one go, so that they share one set of features, and lists them by level. Also builds
/// the agent and the demo, because tests run both.
pub fn build() -> Result<Vec<Suite>> {
    if !workspace::cargo().args(["build", "--workspace", "--exclude", "lb-ebpf", "--bins"]).status()?.success() {
        bail!("the programs do not build");
    }
    let mut child = workspace::cargo()
        .args([
            "test",
            "--workspace",
            "--exclude",
            "lb-ebpf",
            "--no-run",
            "--message-format",
            "json-render-diagnostics",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let reports = BufReader::new(child.stdout.take().expect("piped above"));
    let mut suites = Vec::new();
    for line in reports.lines() {
        let report: Value = serde_json::from_str(&line?).context("cargo reported a line that is not JSON")?;
        suites.extend(suite(&report)?);
    }
    if !child.wait()?.success() {
        bail!("the tests do not build");
    }
    suites.sort_by(|a, b| (a.level, &a.name).cmp(&(b.level, &b.name)));
    Ok(suites)
}

/// The test program that a report of cargo describes, if any.
fn suite(report: &Value) -> Result<Option<Suite>> {
    if report["reason"] != "compiler-artifact" || report["profile"]["test"] != true {
        return Ok(None);
    }
    let (Some(program), Some(manifest)) = (report["executable"].as_str(), report["manifest_path"].as_str()) else {
        return Ok(None);
    };
    let target = &report["target"];
    let (kind, name) = (target["kind"][0].as_str().unwrap_or_default(), target["name"].as_str().unwrap_or_default());
    let folder = PathBuf::from(manifest).parent().context("a manifest is in a folder")?.to_owned();
    let level = Level::of(kind, name)?;
    Ok(Some(Suite { name: format!("{name} ({kind})"), level, program: program.into(), folder }))
}

impl Suite {
    /// Runs all tests of the program.
    pub fn run(&self) -> Result<Count> {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder).env("PATH", workspace::search_path());
        command.env("CARGO_MANIFEST_DIR", &self.folder);
        if let Some(threads) = self.level.threads() {
            command.arg(format!("--test-threads={threads}"));
        }
        count(&mut command)
    }
}

/// Runs the examples in the documentation.
pub fn run_doc_tests() -> Result<Count> {
    count(workspace::cargo().args(["test", "--quiet", "--workspace", "--exclude", "lb-ebpf", "--doc"]))
}

/// Runs a command that prints like the standard test runner. Shows the output and counts the results.
fn count(command: &mut Command) -> Result<Count> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = BufReader::new(child.stdout.take().expect("piped above"));
    let (sender, counts) = mpsc::channel();
    // Not joined: a process that outlives a killed test would keep the output open.
    thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            println!("{line}");
            if let Some(count) = result_line(&line) {
                let _ = sender.send(count); // The receiver is gone: the run is over.
            }
        }
    });

    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if started.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(POLL);
    };
    let mut sum = Count::default();
    while let Ok(count) = counts.recv_timeout(Duration::from_secs(2)) {
        sum = sum.plus(count);
    }
    match status {
        Some(status) if status.success() => {}
        Some(status) if sum.failed == 0 => {
            eprintln!("error: the test program ended with {status}");
            sum.failed = 1;
        }
        Some(_) => {}
        None => {
            eprintln!("error: the test program still ran after {} s and was ended", LIMIT.as_secs());
            sum.failed += 1;
        }
    }
    Ok(sum)
}

/// Reads `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
fn result_line(line: &str) -> Option<Count> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut count = Count::default();
    for part in numbers.split("; ") {
        match part.split_once(' ') {
            Some((number, "passed")) => count.passed = number.parse().ok()?,
            Some((number, "failed")) => count.failed = number.parse().ok()?,
            Some((number, "ignored")) => count.skipped = number.parse().ok()?,
            _ => {}
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_s_last_line_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s";
        assert_eq!(result_line(line), Some(Count { passed: 12, failed: 3, skipped: 1 }));
        assert_eq!(result_line("test netns::dnat ... ok"), None);
    }

    #[test]
    fn a_program_that_dies_counts_as_failed() {
        let died = count(Command::new("sh").args(["-c", "exit 3"])).expect("sh starts");
        assert_eq!(died, Count { failed: 1, ..Count::default() });
    }

    #[test]
    fn every_test_program_needs_a_level() {
        assert_eq!(Level::of("test", "netns-ip-mode").expect("known"), Level::Netns);
        assert_eq!(Level::of("lib", "lb_common").expect("known"), Level::Unit);
        assert!(Level::of("test", "surprise").is_err());
    }
}
