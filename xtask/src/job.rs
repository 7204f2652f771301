//! A command that runs with visible progress: quiet while it succeeds, its last lines if it fails.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::workspace;

/// Lines of a failed command that are printed.
const LAST_WORDS: usize = 30;

/// The progress of a command, read from one line of its output.
pub struct Progress {
    pub text: String,
    pub percent: Option<f32>,
}

/// Reads the progress from a line of output. None if the line shows none.
pub type Reader = fn(&str) -> Option<Progress>;

/// Takes each line that is not empty as a step.
pub fn each_line(line: &str) -> Option<Progress> {
    let text = line.trim();
    (!text.is_empty()).then(|| Progress { text: text.into(), percent: None })
}

/// Runs `command` to its end. Its whole output goes to a log file in the target folder.
pub fn run(title: &str, command: &mut Command, reader: Reader) -> Result<()> {
    let started = Instant::now();
    let bar = bar(title);
    let (log_path, log) = log(title)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{title}: cannot start {}", command.get_program().display()))?;

    let sink = Mutex::new(Sink { bar: &bar, log, last: VecDeque::new(), reader });
    let (stdout, stderr) = (child.stdout.take().expect("piped above"), child.stderr.take().expect("piped above"));
    thread::scope(|scope| {
        scope.spawn(|| drain(stdout, &sink));
        scope.spawn(|| drain(stderr, &sink));
    });
    let status = child.wait()?;
    bar.finish_and_clear();

    let secs = started.elapsed().as_secs_f32();
    if status.success() {
        println!("  {title}: done in {secs:.1} s");
        return Ok(());
    }
    let last = sink.into_inner().map(|sink| sink.last).unwrap_or_default();
    for line in last {
        eprintln!("    {line}");
    }
    bail!("{title} failed ({status}); the whole output is in {}", log_path.display())
}

fn bar(title: &str) -> ProgressBar {
    let bar = ProgressBar::new(1000);
    let style = ProgressStyle::with_template("  {spinner} {prefix} [{elapsed}] {wide_msg}").expect("template is fixed");
    bar.set_style(style);
    bar.set_prefix(title.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    if bar.is_hidden() {
        println!("  {title} ...");
    }
    bar
}

fn log(title: &str) -> Result<(PathBuf, File)> {
    let folder = workspace::target().join("xtask");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(format!("{}.log", title.replace(|c: char| !c.is_alphanumeric(), "-")));
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok((path, file))
}

/// Collects both outputs of a command.
struct Sink<'a> {
    bar: &'a ProgressBar,
    log: File,
    last: VecDeque<String>,
    reader: Reader,
}

impl Sink<'_> {
    fn take(&mut self, line: &str) {
        // A full disk must not end the command; only its exit code counts.
        let _ = writeln!(self.log, "{line}");
        match (self.reader)(line) {
            Some(Progress { text, percent: Some(percent) }) => self.bar.set_message(format!("{percent:.0} % {text}")),
            Some(Progress { text, percent: None }) => self.bar.set_message(text),
            None => {}
        }
        self.last.push_back(line.to_owned());
        if self.last.len() > LAST_WORDS {
            self.last.pop_front();
        }
    }
}

fn drain(output: impl Read, sink: &Mutex<Sink>) {
    let mut reader = BufReader::new(output);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        if let Ok(mut sink) = sink.lock() {
            sink.take(&line);
        }
        bytes.clear();
    }
}
