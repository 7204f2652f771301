//! The pages of the documentation as data: their commands, what each is to print, the files that they show, and the
//! stages on which they run. `docs/CONTRIBUTING.md` describes the format.
//!
//! Reading a page runs nothing. A block that looks like commands and is written in another way is an error.

mod alike;
#[cfg(test)]
mod providers;
mod stage;
mod unrun;
mod web;

use std::fs;
use std::path::{Path, PathBuf};

pub use alike::difference;
pub use stage::{Stage, Wrong};
pub use unrun::check as check_unrun;

/// The top of the repository.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository exists")
}

/// The paths of all pages, relative to the top.
pub fn pages() -> Vec<String> {
    let mut found = vec!["README.md".to_owned(), "deploy/README.md".to_owned()];
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(top().join(&folder)).expect("it can be listed") {
            let path = folder.join(entry.expect("it can be read").file_name());
            if top().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "md") {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// One thing that a page does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A stage begins: its words.
    Stage(String),
    /// A file of the stage, by its absolute path, and its text.
    File(String, String),
    /// A command to run.
    Run(Command),
    /// A command that is only checked, and why it is not run.
    Unrun { line: usize, command: String, reason: String },
}

/// A command that is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its line in the page, from 1.
    pub line: usize,
    pub text: String,
    /// The first line below it in the page.
    pub below: usize,
    /// What the page shows there.
    pub output: Vec<String>,
    pub exit_code: i32,
    /// Whether the page ends it with `^C`.
    pub is_interrupted: bool,
}

/// Comments that apply to the block below them.
#[derive(Default)]
struct Remarks {
    unrun: Option<String>,
    exit_code: i32,
    file: Option<String>,
}

/// A fenced block.
struct Block<'a> {
    /// The line of its first line of text.
    line: usize,
    kind: &'a str,
    lines: Vec<&'a str>,
}

/// Languages of fences that readers would take for commands.
const SHELLS: &[&str] = &["sh", "bash", "shell", "zsh", "shell-session"];

/// First words that are commands.
const PROGRAMS: &[&str] = &[
    "$",
    "#",
    "apt",
    "apt-get",
    "bpftool",
    "buildah",
    "cargo",
    "conntrack",
    "curl",
    "docker",
    "dpkg",
    "helm",
    "ip",
    "journalctl",
    "kubectl",
    "lb-agent",
    "make",
    "nft",
    "podman",
    "sudo",
    "systemctl",
    "tc",
    "target/release/lb-agent",
];

/// What a page does, in order.
pub fn read(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut remarks = Remarks::default();
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        let bare = line.trim();
        if let Some(comment) = bare.strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->")) {
            match comment.trim().split_once(": ") {
                Some(("stage", words)) => steps.push(Step::Stage(words.to_owned())),
                Some(("file", path)) => remarks.file = Some(path.to_owned()),
                Some(("not run", reason)) => remarks.unrun = Some(reason.to_owned()),
                Some(("exit", code)) => {
                    remarks.exit_code = code.parse().map_err(|_| format!("line {number}: {code} is no exit code"))?;
                }
                _ => {}
            }
        } else if let Some(kind) = bare.strip_prefix("```") {
            let indent = line.len() - line.trim_start().len();
            let body = lines.by_ref().take_while(|(_, line)| line.trim() != "```");
            let lines = body.map(|(_, line)| line.get(indent..).unwrap_or_default()).collect();
            let block = Block { line: number + 1, kind, lines };
            steps.extend(block.steps(&std::mem::take(&mut remarks))?);
        } else if !bare.is_empty() && (remarks.unrun.is_some() || remarks.file.is_some() || remarks.exit_code != 0) {
            return Err(format!("line {number}: the comment above it applies to a block, and none follows"));
        }
    }
    Ok(steps)
}

impl Block<'_> {
    fn steps(&self, remarks: &Remarks) -> Result<Vec<Step>, String> {
        if let Some(path) = &remarks.file {
            return Ok(vec![Step::File(path.clone(), self.lines.join("\n") + "\n")]);
        }
        if self.kind == "console" {
            return self.commands(remarks);
        }
        if SHELLS.contains(&self.kind) {
            return Err(format!("line {}: write ```console, and `$ ` before each command", self.line));
        }
        let first_word = |line: &&&str| line.split_whitespace().next().is_some_and(|word| PROGRAMS.contains(&word));
        match self.lines.iter().find(first_word) {
            Some(line) if matches!(self.kind, "" | "text") => {
                Err(format!("line {}: `{line}` looks like a command: write ```console", self.line))
            }
            _ => Ok(Vec::new()),
        }
    }

    fn commands(&self, remarks: &Remarks) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        let mut lines = (self.line..).zip(&self.lines).peekable();
        while let Some((line, first)) = lines.next() {
            let Some(text) = first.strip_prefix("$ ") else {
                return Err(format!("line {line}: `{first}` is below no command"));
            };
            let mut text = text.to_owned();
            while is_unfinished(&text) {
                let Some((_, more)) = lines.next() else { return Err(format!("line {line}: `{text}` does not end")) };
                text =
                    text.strip_suffix('\\').unwrap_or(&format!("{text}\n")).to_owned() + more.trim_start_matches("> ");
            }
            let below = lines.peek().map_or(self.line + self.lines.len(), |(line, _)| *line);
            let mut output = Vec::new();
            while let Some((_, printed)) = lines.next_if(|(_, line)| !line.starts_with("$ ")) {
                output.push((*printed).to_owned());
            }
            if let Some(reason) = &remarks.unrun {
                steps.push(Step::Unrun { line, command: text, reason: reason.clone() });
                continue;
            }
            let is_interrupted = output.last().is_some_and(|last| last == "^C");
            output.truncate(output.len() - usize::from(is_interrupted));
            steps.push(Step::Run(Command { line, text, below, output, exit_code: remarks.exit_code, is_interrupted }));
        }
        if steps.is_empty() { Err(format!("line {}: a block of commands without one", self.line)) } else { Ok(steps) }
    }
}

/// The page with other outputs in the place of what it shows, in order. Times of log lines become `...`.
pub fn rewritten(page: &str, outputs: &[(Command, String)]) -> String {
    let mut lines: Vec<String> = page.lines().map(ToOwned::to_owned).collect();
    for (command, printed) in outputs.iter().rev() {
        let line = &lines[command.line - 1];
        let indent = " ".repeat(line.len() - line.trim_start().len());
        let without_time = |line: &str| match line.split_once(' ') {
            Some((first, rest)) if first.ends_with('Z') && first.contains('T') => format!("... {rest}"),
            _ => line.to_owned(),
        };
        let new =
            printed.trim_end().lines().map(|line| format!("{indent}{}", without_time(line)).trim_end().to_owned());
        lines.splice(command.below - 1..command.below - 1 + command.output.len(), new.collect::<Vec<_>>());
    }
    lines.join("\n") + "\n"
}

/// Whether a command continues on the next line: after a backslash, or within quotes.
fn is_unfinished(text: &str) -> bool {
    text.ends_with('\\') || shlex::split(text).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Vec<Command> {
        let steps = read(text).expect("a valid page");
        let commands = steps.into_iter().filter_map(|step| match step {
            Step::Run(command) => Some(command),
            _ => None,
        });
        commands.collect()
    }

    #[test]
    fn a_page_is_read_in_order() {
        let page = "<!-- stage: machine -->\nText.\n<!-- file: /etc/a -->\n```yaml\na: b\n```\n<!-- exit: 1 -->\n\
                    1. In a list:\n";
        assert!(read(page).is_err(), "a comment for a block needs one");
        let page = "<!-- stage: machine -->\n<!-- file: /etc/a -->\n```yaml\na: b\n```\n1. In a list:\n   <!-- exit: 1 -->\n\
                    \x20  ```console\n   $ one \\\n     --two\n   said\n\n   $ three '{\n   }'\n   ...\n   ^C\n   ```\n\
                    <!-- not run: no cluster -->\n```console\n$ kubectl get pods\nx\n```\n";
        let run = |line, text: &str, output: &[&str], is_interrupted| {
            let output = output.iter().map(ToString::to_string).collect();
            Step::Run(Command { line, text: text.into(), below: line + 2, output, exit_code: 1, is_interrupted })
        };
        let wanted = vec![
            Step::Stage("machine".into()),
            Step::File("/etc/a".into(), "a: b\n".into()),
            run(9, "one   --two", &["said", ""], false),
            run(13, "three '{\n}'", &["..."], true),
            Step::Unrun { line: 20, command: "kubectl get pods".into(), reason: "no cluster".into() },
        ];
        assert_eq!(read(page).expect("a valid page"), wanted);
    }

    #[test]
    fn commands_in_other_blocks_are_refused() {
        for block in
            ["```\nlb-agent run\n```", "```text\nx\n  kubectl get pods\n```", "```sh\necho\n```", "```\n$ ls\n```"]
        {
            assert!(read(block).is_err(), "{block}");
        }
        for block in ["```console\nwithout a prompt\n```", "```console\n```", "```console\n$ open '\n```"] {
            assert!(read(block).is_err(), "{block}");
        }
        for block in ["```\npacket -> act\n```", "```yaml\ncurl: x\n```", "```console\n$ ls\n```"] {
            assert!(read(block).is_ok(), "{block}");
        }
        assert_eq!(commands("```console\n$ a\n$ b\n```").len(), 2);
    }

    #[test]
    fn outputs_are_written_below_their_commands() {
        let page = "  ```console\n  $ a\n  old\n  $ b\n  $ c\n  x\n  y\n  ```\nEnd.\n";
        let new = commands(page).into_iter().zip(["1\n\n2\n", "2026-01-01T00:00:00Z INFO b\n", ""].map(String::from));
        let wanted = "  ```console\n  $ a\n  1\n\n  2\n  $ b\n  ... INFO b\n  $ c\n  ```\nEnd.\n";
        assert_eq!(rewritten(page, &new.collect::<Vec<_>>()), wanted);
    }

    #[test]
    fn every_page_is_found() {
        let pages = pages();
        for page in ["README.md", "deploy/README.md", "docs/CONTRIBUTING.md"] {
            assert!(pages.iter().any(|found| found == page), "{page}: {pages:?}");
        }
    }
}
