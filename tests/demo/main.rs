//! The demo as a test: it is satisfied when nothing is wrong, and notices each step that is sabotaged.

use std::process::Command;

/// Runs the demo: its exit code, and the steps that it calls wrong.
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
fn a_plain_service_that_takes_the_long_way_is_noticed() {
    is_noticed('c');
}

#[test]
fn neighbours_with_each_other_s_mode_are_noticed() {
    is_noticed('d');
}

#[test]
fn tools_that_show_another_mode_are_noticed() {
    is_noticed('e');
}
