//! The agent as `deploy/` runs it: three capabilities, the seccomp profile, and one folder of the BPF file system.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::agent;
use lb_tests::deadline;
use lb_tests::lab::Setup;
use lb_tests::manifest::deployed as documents;
use lb_tests::scene::{BALANCER, Scene};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const PROFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/seccomp/lb-agent.json");

/// Starts the following command in a mount namespace in which the folder `$1` is mounted at `$2`, as kubelet and the
/// runtime do.
const START: &str = r#"mount --bind "$1" "$2" && shift 2 && exec "$@""#;

/// The command line before the agent's own, which has these capabilities.
fn launcher(pins: &Path, seen_at: &Path, capabilities: &[String]) -> Vec<String> {
    let capabilities: Vec<String> = capabilities.iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
    let capabilities = format!("--bounding-set=-all{}", capabilities.concat());
    let shown = |path: &Path| path.display().to_string();
    let mut words = ["unshare", "--mount", "bash", "-c", START, "start"].map(str::to_owned).to_vec();
    words.extend([shown(pins), shown(seen_at)]);
    words.extend(["setpriv", "--no-new-privs", "--inh-caps=-all"].map(str::to_owned));
    words.push(capabilities);
    words.extend([env!("CARGO_BIN_EXE_confined"), PROFILE].map(str::to_owned));
    words
}

/// The arguments and the capabilities of the container that a manifest describes.
fn container(manifest: &str, list: &str) -> (Vec<String>, Vec<String>) {
    let daemon_set = documents(manifest).remove(0);
    let container = daemon_set.pointer(&format!("/spec/template/spec/{list}/0")).expect("it has one");
    let words =
        |path: &str| serde_json::from_value(container.pointer(path).expect("it is said").clone()).expect("words");
    (words("/args"), words("/securityContext/capabilities/add"))
}

/// Cleans the node as the container of `deploy/uninstall` does: what it said.
#[track_caller]
fn uninstall(scene: &Scene, seen_at: &Path) -> String {
    let (args, capabilities) = container("uninstall/daemonset.yaml", "initContainers");
    let mut words = launcher(scene.agent.pin_path(), seen_at, &capabilities);
    words.push(agent::program().display().to_string());
    words.extend(args.iter().map(|arg| arg.replace("/pins", &seen_at.display().to_string())));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    scene.lab.node.run(words[0], &words[1..])
}

/// A scene whose agent is not started yet, and the path of its pins as the agent sees it.
fn deployed(test: &'static str, flags: &[&str]) -> (Scene, PathBuf) {
    let mut scene = Scene::without_agent(Setup::new(test), &[]);
    let (pins, seen_at) = (scene.agent.pin_path().to_owned(), scene.lab.folder().join("pins"));
    fs::create_dir(&seen_at).expect("the temporary folder is writable");
    fs::create_dir(&pins).expect("root may");
    let words = launcher(&pins, &seen_at, &container("daemonset.yaml", "containers").1);
    scene.agent.launch_by(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let seen = seen_at.display().to_string();
    scene.agent.set_flags(&[&["--pin-path", &seen], flags].concat());
    (scene, seen_at)
}

#[test]
fn a_node_is_served_with_three_capabilities_and_the_profile() {
    let (mut scene, seen_at) =
        deployed("opdeploy", &["--uplink-interfaces", "auto", "--audit-secs", "1", "--gc-secs", "1"]);
    scene.agent.start();
    let status = fs::read_to_string(format!("/proc/{}/status", scene.agent.pid())).expect("it runs");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    assert_eq!(field("Seccomp"), Some("2"), "a filter is in force");
    assert_eq!(field("CapEff"), Some("000000c000001000"), "three capabilities");
    scene.publish("shop", 60, "VIP", &["a"]);
    scene.publish("left", 61, "Proxy", &["a"]);
    scene.add_pod("late");
    for family in FAMILIES {
        scene.expect_all(vip(family, 60, 80), &["a"]);
        assert_eq!(scene.dial().tcp(vip(family, 61, 80)).who(), Some(BALANCER));
        assert_eq!(scene.dial().udp(vip(family, 60, 80)).who(), Some("a"));
    }
    scene.lab.remove_pod("late");
    for page in ["/livez", "/readyz", "/healthz", "/metrics", "/warnings", "/services"] {
        assert_eq!(scene.agent.page(page).map(|(code, _)| code), Some(200), "{page}");
    }
    // `check` does not warn of what is recommended: it says the same as to root.
    let warned = |check: &mut Command| {
        let output = scene.lab.node.inside(|| check.output()).expect("it starts");
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let rows = document["items"].as_array().expect("a list").clone();
        let said = |row: &&Value| row["verdict"] != "ok";
        rows.iter().filter(said).map(|row| row["check"].to_string()).collect::<Vec<_>>()
    };
    let line = launcher(scene.agent.pin_path(), &seen_at, &container("daemonset.yaml", "containers").1);
    let question = ["check", "-o", "json", "--pin-path"];
    let mut confined = Command::new(&line[0]);
    confined.args(&line[1..]).arg(agent::program()).args(question).arg(&seen_at);
    let mut as_root = Command::new(agent::program());
    as_root.args(question).arg(scene.agent.pin_path());
    assert_eq!(warned(&mut confined), warned(&mut as_root));
    // From the node, by the path that the folder has there: one dataplane, with names from the agent.
    let frontends = scene.agent.rows("frontends");
    assert!(frontends.iter().any(|row| row["service"] == "default/shop:web"), "{frontends:?}");
    let seen = |path: &str| seen_at.join(path).exists();
    assert!(!seen("maps") && scene.agent.maps().exists(), "seen in its own mount namespace only");
    // A restart, with tables of other sizes, and a crash.
    scene.agent.terminate();
    let seen = seen_at.display().to_string();
    scene.agent.set_flags(&["--pin-path", &seen, "--flows-max", "16384"]);
    scene.agent.start();
    scene.agent.crash();
    scene.agent.start();
    scene.publish("shop", 60, "VIP", &["b"]);
    scene.expect_all(vip(Family::V4, 60, 80), &["b"]);
    scene.agent.terminate();
    let gone = scene.agent.ask(&["unload"]);
    assert!(gone.code == Some(0) && !scene.agent.pin_path().exists(), "{gone:?}");
}

#[test]
fn what_the_profile_does_not_name_is_refused() {
    let run = |words: &[&str]| {
        let status = Command::new(env!("CARGO_BIN_EXE_confined")).arg(PROFILE).args(words).status();
        status.expect("it starts").signal()
    };
    assert_eq!(run(&["true"]), None);
    assert_eq!(run(&["chroot", "/", "true"]), Some(Signal::SIGSYS as i32));
}

#[test]
fn the_guard_goes_by_the_path_of_the_node() {
    let (mut scene, seen_at) = deployed("opguard", &["--default-ip-mode", "Proxy"]);
    scene.agent.start();
    let table = || scene.lab.node.run("nft", &["list", "tables"]);
    let service = scene.service("unsaid", 62, &FAMILIES.map(|family| json!({"ip": vip(family, 62, 0).ip()})));
    scene.apply("unsaid", &[vec![service.object()], scene.slices(&service, &["a"])].concat());
    deadline::until_true("the guard is written", || table().contains("lb-agent-guard-"));
    assert!(!scene.agent.rows("guard").is_empty());
    scene.agent.terminate();
    let said = uninstall(&scene, &seen_at);
    assert!(said.contains("removed the nftables table") && said.contains(" links and "), "{said}");
    // The folder itself is mounted there, and stays.
    assert_eq!(fs::read_dir(scene.agent.pin_path()).expect("it is there").count(), 0);
    assert_eq!(uninstall(&scene, &seen_at).lines().count(), 1, "a second time it finds nothing");
    assert!(!scene.lab.node.run("nft", &["list", "tables"]).contains("lb-agent-guard-"));
}
