//! The pin folder if it existed before, or contains foreign files.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::lab::Setup;
use lb_tests::scene::{BALANCER, Scene};

/// Checks that the agent and `check` refuse the folder; returns the agent's output.
#[track_caller]
fn refused(scene: &mut Scene) -> String {
    scene.agent.spawn();
    let (code, said) = scene.agent.refused();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&scene.agent.pin_path().display().to_string()), "it names the place: {said}");
    let check = scene.agent.ask(&["check"]);
    assert!(check.code == Some(1) && check.stdout.contains("FAIL"), "{}", check.stdout);
    // Reading is refused as well.
    assert_eq!(scene.agent.ask(&["show", "frontends"]).code, Some(1));
    said
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("root may");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

fn clear(path: &Path) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
    assert!(fs::symlink_metadata(path).is_err(), "{} is still there", path.display());
}

#[test]
fn a_folder_that_others_made_is_refused() {
    let mut scene = Scene::without_agent(Setup::new("opuser"), &[]);
    let pins = scene.agent.pin_path().to_owned();
    for inner in ["", "maps", "links", "maps-next"] {
        fs::create_dir_all(pins.join(inner)).expect("root may");
        chown(pins.join(inner), Some(65534), Some(65534)).expect("root may");
        let said = refused(&mut scene);
        assert!(said.contains("belongs to user 65534") && said.contains("--pin-path"), "{inner}: {said}");
        assert_eq!(scene.agent.ask(&["unload"]).code, Some(1), "{inner}");
        clear(&pins);
    }
    for inner in ["", "maps"] {
        fs::create_dir_all(pins.join(inner)).expect("root may");
        set_mode(&pins.join(inner), 0o1777);
        assert!(refused(&mut scene).contains("other users can write"), "{inner}");
        clear(&pins);
    }
    // kubelet makes the folder readable by others: the agent removes that right.
    fs::create_dir_all(&pins).expect("root may");
    set_mode(&pins, 0o755);
    scene.agent.start();
    assert_eq!([mode(&pins), mode(&pins.join("maps")), mode(&pins.join("links"))], [0o700; 3]);
}

#[test]
fn links_are_not_followed() {
    let mut scene = Scene::start(Setup::new("oplinks"));
    let pins = scene.agent.pin_path().to_owned();
    scene.publish("shop", 53, "VIP", &["a"]);
    scene.agent.terminate();
    let aside = pins.with_file_name(format!("{}-aside", scene.lab.node.name()));
    fs::create_dir(&aside).expect("root may");
    for inner in ["maps", "links", "maps/frontends4", "maps/owner"] {
        let (place, other) = (pins.join(inner), aside.join("moved"));
        fs::rename(&place, &other).expect("root may");
        symlink(&other, &place).expect("root may");
        let said = refused(&mut scene);
        assert!(said.contains("symbolic link") || said.contains("is not a map of lb-agent"), "{inner}: {said}");
        fs::remove_file(&place).expect("root may");
        fs::rename(&other, &place).expect("root may");
    }
    fs::rename(&pins, aside.join("moved")).expect("root may");
    symlink(aside.join("moved"), &pins).expect("root may");
    assert!(refused(&mut scene).contains("symbolic link"));
    fs::remove_file(&pins).expect("root may");
    fs::rename(aside.join("moved"), &pins).expect("root may");
    fs::remove_dir(&aside).expect("it is empty");
    scene.agent.start();
    scene.expect_all(vip(Family::V4, 53, 80), &["a"]);
}

#[test]
fn what_is_not_ours_stays_and_is_named() {
    let mut scene = Scene::start(Setup::new("opforeign"));
    let pins = scene.agent.pin_path().to_owned();
    scene.publish("shop", 54, "VIP", &["a"]);
    let foreign = ["map", "maps/map", "maps/folder", "links/map", "links/folder", "folder", "maps/link", "link"];
    for name in foreign {
        let path = pins.join(name);
        match path.file_name().and_then(|name| name.to_str()) {
            Some("folder") => fs::create_dir(&path).expect("root may"),
            Some("link") => symlink("/etc/hostname", &path).expect("root may"),
            _ => make_map(&path),
        }
    }
    // In the place of an agent's link, for an interface that does not exist.
    make_map(&pins.join("links/workload-99999-ingress"));
    scene.agent.terminate();
    // Neither a restart nor tables of other sizes remove it.
    scene.agent.set_flags(&["--flows-max", "16384"]);
    scene.agent.start();
    scene.expect_all(vip(Family::V4, 54, 80), &["a"]);
    scene.agent.terminate();
    let foreign_maps = foreign.iter().filter(|name| name.starts_with("maps/")).count();
    let ours = fs::read_dir(pins.join("maps")).expect("it is there").count() - foreign_maps;
    let finished = scene.agent.ask(&["unload"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let left: Vec<_> = foreign.into_iter().chain(["links/workload-99999-ingress"]).collect();
    for name in &left {
        assert!(fs::symlink_metadata(pins.join(name)).is_ok(), "{name} was removed");
        let line = format!("not made by lb-agent, left in place: {}\n", pins.join(name).display());
        assert!(finished.stdout.contains(&line), "{name}: {}", finished.stdout);
    }
    assert_eq!(finished.stdout.matches("left in place").count(), left.len(), "{}", finished.stdout);
    assert!(finished.stdout.contains(&format!("links and {ours} maps")), "{}", finished.stdout);
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 54, 80)).who(), Some(BALANCER));
    }
    // In the place of one of the agent's maps, it prevents the start.
    make_map(&pins.join("maps/frontends4"));
    assert!(refused(&mut scene).contains("is not a map of lb-agent"));
    assert_eq!(scene.agent.ask(&["unload"]).code, Some(0));
    assert!(pins.join("maps/frontends4").exists());
}

#[track_caller]
fn make_map(path: &Path) {
    let words = ["type", "hash", "key", "4", "value", "4", "entries", "16", "name", "foreign"];
    let output = Command::new("bpftool").args(["map", "create"]).arg(path).args(words).output();
    let output = output.expect("bpftool is installed");
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
}
