//! Folders that must be refused. Tests that need a BPF file system are in `tests/`.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

/// The message that refuses a path below a temporary folder.
fn refusal(path: &Path) -> String {
    match Folder::make(path) {
        Ok(_) => panic!("{} was taken", path.display()),
        Err(error @ (Error::Untrusted(_) | Error::Refused(_))) => error.to_string(),
        Err(other) => panic!("{other}"),
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

#[test]
fn links_are_not_followed() {
    let top = tempfile::tempdir().expect("a temporary folder");
    let top = top.path().canonicalize().expect("it is there");
    fs::create_dir(top.join("real")).expect("it is ours");
    symlink(top.join("real"), top.join("link")).expect("it is ours");
    symlink(top.join("nowhere"), top.join("dangling")).expect("it is ours");
    for path in ["link", "link/", "link/deeper", "dangling", "real/../link/x"] {
        let said = refusal(&top.join(path));
        assert!(said.contains("symbolic link") && said.contains("--pin-path"), "{path}: {said}");
    }
    assert!(Folder::open(&top.join("link")).is_err(), "nor to read");
    fs::write(top.join("file"), "").expect("it is ours");
    for path in ["file", "file/", "file/x"] {
        assert!(refusal(&top.join(path)).contains("is not a folder"), "{path}");
    }
    for path in ["real", "real/", "real/./x/..", "absent"] {
        assert!(refusal(&top.join(path)).contains("no BPF file system"), "{path}");
    }
    assert!(!top.join("absent").exists() && Folder::open(&top.join("absent")).is_ok_and(|folder| folder.is_none()));
}

#[test]
fn folders_that_others_can_change_are_refused() {
    let top = tempfile::tempdir().expect("a temporary folder");
    let top = top.path().canonicalize().expect("it is there");
    let (shared, inner) = (top.join("shared"), top.join("shared/inner"));
    fs::create_dir_all(&inner).expect("it is ours");
    set_mode(&inner, 0o755);
    for (mode, word) in
        [(0o777, "other users can replace"), (0o1777, "no BPF file system"), (0o755, "no BPF file system")]
    {
        set_mode(&shared, mode);
        assert!(refusal(&inner).contains(word), "{mode:o}: {}", refusal(&inner));
    }
    for mode in [0o777, 0o1777, 0o770] {
        set_mode(&inner, mode);
        assert!(refusal(&inner).contains("other users can write"), "{mode:o}: {}", refusal(&inner));
    }
}

#[test]
fn folders_of_others_are_refused() {
    if !geteuid().is_root() {
        return; // Only root can give a folder away.
    }
    let top = tempfile::tempdir().expect("a temporary folder");
    let theirs = top.path().canonicalize().expect("it is there").join("theirs");
    fs::create_dir_all(theirs.join("inner")).expect("it is ours");
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).expect("root may");
    for path in [theirs.clone(), theirs.join("inner"), theirs.join("absent"), theirs.join("inner/absent")] {
        assert!(refusal(&path).contains("belongs to user 65534"), "{}", path.display());
    }
}

#[test]
fn what_lies_there_is_looked_at_and_not_followed() {
    let top = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| top.path().join(name);
    fs::write(at("pin"), "").expect("it is ours");
    symlink(at("pin"), at("link")).expect("it is ours");
    fs::create_dir(at("folder")).expect("it is ours");
    let found = ["pin", "link", "folder", "nothing"].map(|name| look(&at(name)).expect("it can be looked at"));
    assert_eq!(found, [Found::Pin, Found::Link, Found::Folder, Found::Nothing]);
}
