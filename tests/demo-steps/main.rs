//! The demo as a test: it succeeds unless a step is sabotaged, and reports each sabotaged step.

use std::fs;
use std::process::{Command, Stdio};

use lb_tests::deadline::{self, until_true};
use lb_tests::leftovers::{NAMESPACES, PINS};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs the demo; returns its exit code, and the steps that it calls wrong.
fn demo(arguments: &[&str]) -> (Option<i32>, Vec<char>) {
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).args(arguments).output().expect("the demo starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (mut step, mut wrong) = (' ', Vec::new());
    for line in text.lines() {
        if let Some(letter) = line.strip_prefix('(').and_then(|rest| rest.chars().next()) {
            step = letter;
        }
        if line.ends_with(" WRONG") && wrong.last() != Some(&step) {
            wrong.push(step);
        }
    }
    let code = output.status.code();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code, Some(i32::from(!wrong.is_empty())), "the exit code does not tell:\n{text}{errors}");
    println!("{text}");
    (code, wrong)
}

/// Asserts that exactly the sabotaged step is called wrong.
fn is_noticed(step: char) {
    assert_eq!(demo(&["--break", &step.to_string()]), (Some(1), vec![step]));
}

#[test]
fn all_steps_happen_as_expected() {
    assert_eq!(demo(&[]), (Some(0), vec![]));
}

#[test]
fn a_shortcut_that_is_not_taken_is_noticed() {
    is_noticed('a');
}

#[test]
fn an_edit_that_is_not_made_is_noticed() {
    is_noticed('b');
}

#[test]
fn a_header_that_no_annotation_asks_for_is_noticed() {
    is_noticed('c');
}

#[test]
fn a_plain_service_that_takes_the_long_way_is_noticed() {
    is_noticed('d');
}

#[test]
fn neighbours_with_each_other_s_mode_are_noticed() {
    is_noticed('e');
}

#[test]
fn tools_that_show_another_mode_are_noticed() {
    is_noticed('f');
}

#[test]
fn a_node_that_does_not_forward_is_noticed() {
    is_noticed('g');
}

#[test]
fn a_node_s_process_that_takes_the_long_way_is_noticed() {
    is_noticed('h');
}

/// The namespaces, pins and folders of a process.
fn traces(pid: u32) -> Vec<String> {
    let temporary = std::env::temp_dir();
    let folders = [NAMESPACES.as_ref(), PINS.as_ref(), temporary.as_path()];
    let entries = folders.into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&format!("lb-demo-{pid}-"))).collect()
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo")).stdout(Stdio::null()).spawn().expect("the demo starts");
    let pid = demo.id();
    until_true("the agent has pinned its maps", || traces(pid).len() >= 8);
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGINT).expect("it runs");
    let status = deadline::until("it ends", || demo.try_wait().expect("a child can be waited for"));
    assert_eq!(status.code(), Some(130));
    assert_eq!(traces(pid), [""; 0]);
}
