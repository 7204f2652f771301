//! The demo's output: the expected and the actual result of each step, and the overall verdict.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use super::Step;

/// The result of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    AsExpected,
    Wrong,
}

/// A check: its subject, the expected and the actual result.
pub struct Check {
    pub at: &'static str,
    pub expected: String,
    pub happened: String,
    pub holds: bool,
}

/// The report so far.
pub struct Report {
    sabotage: Option<Step>,
    colours: bool,
    wrong: Vec<char>,
    checks: usize,
}

impl Report {
    pub fn new(sabotage: Option<Step>) -> Self {
        Self { sabotage, colours: stdout().is_terminal(), wrong: Vec::new(), checks: 0 }
    }

    pub fn introduce(&self) {
        println!(
            "
A node with three pods, and the cloud's load balancer outside; the backends insist on a PROXY header:

    client pod ---.                             .--- haproxy, send-proxy-v2: adds the header
    nginx pod a ---+--- node with lb-agent ---+
    nginx pod b --'                             each is a network namespace of its own"
        );
        if let Some(step) = self.sabotage {
            println!("\nstep ({}) is sabotaged: it must be reported as wrong", letter(step));
        }
    }

    /// Prints the setting of the second act.
    pub fn introduce_nodes(&self) {
        println!(
            "
{}

    client outside ---+--- node 1 with lb-agent
                      +--- node 2 with lb-agent, and curl on it
    haproxy ----------+--- node 3 with lb-agent --- nginx",
            self.paint(BOLD, "Three nodes, of which one has the pod; the balancer's pool is node 1 alone:")
        );
    }

    /// Prints the title of a step.
    pub fn step(&self, step: Step, title: &str) {
        println!("\n{}", self.paint(BOLD, &format!("({}) {title}", letter(step))));
    }

    /// Prints text of a step, indented.
    pub fn quote(text: &str) {
        for line in text.lines() {
            println!("      {line}");
        }
    }

    /// Prints a check, and remembers whether it failed.
    pub fn check(&mut self, step: Step, check: &Check) {
        let Check { at, expected, happened, holds } = check;
        let verdict = if *holds { self.paint(GREEN, "ok") } else { self.paint(RED, "WRONG") };
        println!("    {at:<20} expected  {expected}");
        println!("    {:<20} happened  {happened:<60} {verdict}", "");
        self.checks += 1;
        if !holds && self.wrong.last() != Some(&letter(step)) {
            self.wrong.push(letter(step));
        }
    }

    /// Prints the last line.
    pub fn conclude(&self, took: Duration) -> Verdict {
        let secs = took.as_secs_f32();
        if self.wrong.is_empty() {
            println!("\n{}: {} checks in {secs:.1} s", self.paint(GREEN, "all as expected"), self.checks);
            return Verdict::AsExpected;
        }
        let steps: Vec<String> = self.wrong.iter().map(|letter| format!("({letter})")).collect();
        println!("\n{} in {}: see above; {secs:.1} s", self.paint(RED, "WRONG"), steps.join(", "));
        Verdict::Wrong
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.into() }
    }
}

const BOLD: &str = "1";
const GREEN: &str = "32";
const RED: &str = "31;1";

const fn letter(step: Step) -> char {
    match step {
        Step::A => 'a',
        Step::B => 'b',
        Step::C => 'c',
        Step::D => 'd',
        Step::E => 'e',
        Step::F => 'f',
        Step::G => 'g',
        Step::H => 'h',
    }
}
