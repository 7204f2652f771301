//! `unload`: what it lists beforehand, how it waits for an agent, and its refusals to people without rights.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use lb_tests::agent;
use lb_tests::deadline;
use lb_tests::lab::Setup;
use lb_tests::scene::Scene;

/// The pins that `unload --dry-run` lists.
fn listed(text: &str) -> Vec<PathBuf> {
    let paths = text.lines().filter_map(|line| line.strip_prefix("  /")).map(|path| format!("/{path}").into());
    let mut paths: Vec<PathBuf> = paths.collect();
    paths.sort();
    paths
}

/// All files below the pins.
fn pinned(scene: &Scene) -> Vec<PathBuf> {
    let output = Command::new("find").arg(scene.agent.pin_path()).args(["-type", "f"]).output().expect("find runs");
    let mut paths: Vec<PathBuf> = String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect();
    paths.sort();
    paths
}

#[test]
fn unload_removes_what_it_listed_once_the_agent_has_ended() {
    let mut scene = Scene::start(Setup::new("opunload"));
    scene.publish("shop", 70, "VIP", &["a"]);
    let before = pinned(&scene);
    let list = scene.agent.says(&["unload", "--dry-run"]);
    assert!(list.contains("an agent runs on these pins") && list.starts_with("would remove "), "{list}");
    assert_eq!(listed(&list), before);
    assert_eq!(pinned(&scene), before, "nothing was changed");
    // It gives up, and the agent still serves.
    let refused = scene.agent.ask(&["unload", "--wait=0"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("waiting for the agent on") && refused.stderr.contains("another agent"));
    scene.expect_all(lb_tests::address::vip(lb_tests::address::Family::V4, 70, 80), &["a"]);
    let mut waiting = Command::new(agent::program());
    waiting.args(["unload", "--wait", "--pin-path"]).arg(scene.agent.pin_path());
    let mut waiting = scene.lab.node.inside(|| waiting.spawn()).expect("it starts");
    std::thread::sleep(Duration::from_millis(300));
    assert!(waiting.try_wait().expect("a child").is_none(), "the agent still runs");
    assert_eq!(pinned(&scene), before);
    // In a container it is the first process, which the kernel lets ignore SIGTERM.
    let mut first = Command::new("unshare");
    first.args(["--pid", "--fork", "--kill-child"]).arg(agent::program());
    first.args(["unload", "--wait", "--pin-path"]).arg(scene.agent.pin_path());
    let mut first = scene.lab.node.inside(|| first.stderr(Stdio::piped()).spawn()).expect("it starts");
    let mut said = String::new();
    BufReader::new(first.stderr.take().expect("piped")).read_line(&mut said).expect("text");
    assert!(said.contains("waiting for the agent"), "{said}");
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", first.id())).expect("it runs");
    let sent = Command::new("kill").args(["-TERM", children.trim()]).status().expect("it starts");
    assert!(sent.success(), "{children}");
    let ended = deadline::until("SIGTERM ends it", || first.try_wait().expect("a child"));
    assert_eq!(ended.code(), Some(128 + 15));
    assert_eq!(pinned(&scene), before);
    scene.agent.terminate();
    assert!(waiting.wait().expect("a child").success());
    assert!(!scene.agent.pin_path().exists());
    let again = scene.agent.says(&["unload", "--dry-run"]);
    assert!(again.starts_with("lb-agent has pinned nothing in "), "{again}");
}

#[test]
fn who_lacks_rights_is_told_which_and_what_to_do() {
    let mut scene = Scene::start(Setup::new("oprights"));
    // Its pins stay.
    scene.agent.terminate();
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let program = folder.path().join("lb-agent");
    // By a process of its own: a child of another test that inherits the open file would make the program busy.
    let copied = Command::new("cp").arg(agent::program()).arg(&program).status().expect("it starts");
    assert!(copied.success(), "there is room");
    let client = scene.lab.pod_address("client", lb_tests::address::Family::V4).to_string();
    let explain = ["explain", "--from", &client, "--to", "198.51.100.1:80/tcp"];
    let source = format!("dir:{}", folder.path().display());
    let start = ["run", "--source", &source, "--http", "127.0.0.1:0"];
    let container = ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"].as_slice();
    let person = ["--reuid=65534", "--regid=65534", "--clear-groups"].as_slice();
    let run = |user: &[&str], words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(user).arg(&program).args(words);
        let is_plain = words.iter().any(|word| matches!(*word, "--help" | "--version"));
        if !is_plain {
            command.arg("--pin-path").arg(scene.agent.pin_path());
        }
        let output = scene.lab.node.inside(|| command.output()).expect("setpriv is installed");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let missing = "CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF";
    // Root's files are open to root without capabilities, and reading maps is if the node lets anyone use BPF.
    let of_root = [&["show", "guard"][..], &start];
    let of_others = [&["show", "frontends"][..], &["show", "guard"], &explain, &["unload"], &start];
    for (user, lines, remedy) in
        [(container, &of_root[..], "capabilities.add"), (person, &of_others[..], "run as root")]
    {
        for words in lines {
            let (code, _, said) = run(user, words);
            let is_told = said.contains(missing) && said.contains(remedy);
            assert!(code == Some(1) && is_told, "{words:?} by {user:?}: {code:?} {said}");
        }
        let (code, table, said) = run(user, &["check"]);
        assert!(code == Some(1) && table.contains(missing) && table.contains("FAIL"), "{table}{said}");
        for words in [["--help"], ["--version"]] {
            assert_eq!(run(user, &words).0, Some(0), "{words:?}");
        }
    }
}
