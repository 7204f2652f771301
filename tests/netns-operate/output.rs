//! Standard output and error as pipes whose readers close them, and as a device that is full.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, pipe};
use std::process::{Command, Output, Stdio};

use lb_tests::address::{Family, vip};
use lb_tests::agent;
use lb_tests::deadline;
use lb_tests::lab::Setup;
use lb_tests::scene::Scene;

/// A pipe whose reader is closed.
fn unread() -> PipeWriter {
    let (reader, writer): (PipeReader, PipeWriter) = pipe().expect("descriptors are left");
    drop(reader);
    writer
}

fn run(scene: &Scene, words: &[&str], set: impl FnOnce(&mut Command) + Send) -> Output {
    let mut command = Command::new(agent::program());
    command.args(words);
    if !words.contains(&"--help") {
        command.arg("--pin-path").arg(scene.agent.pin_path());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    set(&mut command);
    scene.lab.node.inside(|| command.spawn().and_then(std::process::Child::wait_with_output)).expect("it starts")
}

#[test]
fn readers_may_stop_reading() {
    let mut scene = Scene::start(Setup::new("oppipe"));
    scene.publish("shop", 51, "VIP", &["a"]);
    let client = scene.lab.pod_address("client", Family::V4).to_string();
    let to = format!("{}/tcp", vip(Family::V4, 51, 80));
    let explain = ["explain", "--from", &client, "--to", &to];
    let subjects = super::SUBJECTS
        .map(|subject| ["table", "wide", "json", "yaml"].map(|output| vec!["show", subject, "-o", output]));
    let mut questions = subjects.concat();
    questions.extend([explain.to_vec(), [&explain[..], &["-o", "json"]].concat(), vec!["check"]]);
    questions.extend(["table", "json"].map(|output| vec!["show", "frontends", "--watch=1", "-o", output]));
    questions.extend([vec!["--help"], vec!["run", "--help"]]);
    for words in &questions {
        let output = run(&scene, words, |command| {
            command.stdout(unread());
        });
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(0), ""), "{words:?}");
    }
    // The reason has no reader either.
    let output = run(&scene, &["unload"], |command| {
        command.stdout(unread()).stderr(unread());
    });
    assert_eq!(output.status.code(), Some(1), "an agent runs");
    // Lost output is an error.
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let output = run(&scene, &["show", "frontends"], |command| {
        command.stdout(full);
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("standard output"), "{said}");
    scene.agent.terminate();
    let output = run(&scene, &["unload"], |command| {
        command.stdout(unread());
    });
    assert_eq!((output.status.code(), scene.agent.pin_path().exists()), (Some(0), false));
}

#[test]
fn an_agent_outlives_the_reader_of_its_log() {
    let mut scene = Scene::start(Setup::new("oplogpipe"));
    scene.agent.terminate();
    // `exec` closes the shell's end of the pipe, whose reader ends at once.
    scene.agent.launch_by(&["bash", "-c", "exec \"$0\" \"$@\" 2> >(exit 0)"]);
    scene.agent.start();
    for pods in [["a"], ["b"]] {
        scene.publish("shop", 52, "VIP", &pods);
        scene.manifests.write_text("broken", &format!("kind: Service\napiVersion: v1\nx: {pods:?}\n"));
        deadline::until_true("the warning is known", || {
            scene.agent.page("/warnings").is_some_and(|(_, text)| text.contains("broken.yaml"))
        });
    }
    scene.expect_all(vip(Family::V4, 52, 80), &["b"]);
}
