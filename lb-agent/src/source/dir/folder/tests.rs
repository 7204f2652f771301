//! The folder is read as the command line promises.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

struct Lab {
    temp: tempfile::TempDir,
    folder: Folder,
}

fn lab() -> Lab {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let folder = Folder::open(temp.path()).expect("it can be listed");
    Lab { temp, folder }
}

impl Lab {
    fn write(&self, name: &str, text: &str) {
        fs::write(self.temp.path().join(name), text).expect("the test may write");
    }

    /// The result of the next look: applied and removed objects, and warnings by place.
    fn look(&mut self) -> Vec<String> {
        describe(self.folder.look(&HashSet::new()))
    }
}

fn describe(changes: Vec<Change>) -> Vec<String> {
    let mut texts: Vec<String> = changes
        .into_iter()
        .flat_map(|change| match change {
            Change::Apply { object, warnings } => {
                let mut texts = vec![format!("+ {}", object.reference())];
                texts.extend(warnings.iter().map(|warning| format!("! {warning}")));
                texts
            }
            Change::Remove(object) => vec![format!("- {object}")],
            Change::Place { place, warnings } if warnings.is_empty() => vec![format!("{place} is fine")],
            Change::Place { warnings, .. } => warnings.iter().map(|warning| format!("! {warning}")).collect(),
            Change::Listed => vec!["listed".to_owned()],
        })
        .collect();
    texts.sort();
    texts
}

fn service(name: &str, port: u16) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n---\n")
}

#[test]
fn lists_what_counts_and_ignores_the_rest() {
    let mut lab = lab();
    lab.write("a.yaml", &(service("a1", 1) + &service("a2", 2)));
    lab.write("b.yml", &service("b", 1));
    lab.write("c.json", "{\"kind\": \"Service\", \"metadata\": {\"name\": \"c\"}}");
    lab.write(".hidden.yaml", &service("hidden", 1));
    lab.write("d.txt", &service("text", 1));
    fs::create_dir(lab.temp.path().join("e.yaml")).expect("the test may write");
    assert_eq!(
        lab.look(),
        ["+ Service default/a1", "+ Service default/a2", "+ Service default/b", "+ Service default/c", "listed"]
    );
    assert_eq!(lab.look(), [] as [&str; 0]);
}

#[test]
fn an_empty_folder_is_a_full_list() {
    assert_eq!(lab().look(), ["listed"]);
}

#[test]
fn a_missing_folder_is_refused_with_a_remedy() {
    let error = Folder::open(Path::new("/nonexistent/folder")).err().expect("it is not there").to_string();
    assert!(error.starts_with("--source=dir:/nonexistent/folder: No such file"), "{error}");
    assert!(error.ends_with("name a folder that exists and can be read"), "{error}");
}

#[test]
fn only_what_changed_is_told() {
    let mut lab = lab();
    lab.write("a.yaml", &(service("a", 1) + &service("b", 1)));
    lab.look();
    lab.write("a.yaml", &(service("a", 1) + &service("b", 2) + &service("c", 1)));
    assert_eq!(lab.look(), ["+ Service default/b", "+ Service default/c"]);
    lab.write("a.yaml", &(service("c", 1) + &service("b", 2)));
    assert_eq!(lab.look(), ["- Service default/a"]);
    // Same content, different time stamp.
    lab.write("a.yaml", &(service("c", 1) + &service("b", 2)));
    assert_eq!(lab.look(), [] as [&str; 0]);
    fs::remove_file(lab.temp.path().join("a.yaml")).expect("it is there");
    assert_eq!(lab.look(), ["- Service default/b", "- Service default/c"]);
}

#[test]
fn a_file_renamed_over_another_is_noticed() {
    let mut lab = lab();
    lab.write("a.yaml", &service("a", 1));
    lab.look();
    lab.write("new", &service("a", 2));
    fs::rename(lab.temp.path().join("new"), lab.temp.path().join("a.yaml")).expect("the test may rename");
    assert_eq!(lab.look(), ["+ Service default/a"]);
    // After a rename the objects stay.
    fs::rename(lab.temp.path().join("a.yaml"), lab.temp.path().join("z.yaml")).expect("the test may rename");
    let changes = lab.look();
    assert!(!changes.iter().any(|change| change.starts_with('-')), "{changes:?}");
}

#[test]
fn nothing_is_deleted_while_a_document_does_not_parse() {
    let mut lab = lab();
    lab.write("a.yaml", &(service("a", 1) + &service("b", 1) + &service("c", 1)));
    lab.write("z.yaml", &service("z", 1));
    lab.look();
    // b is broken, c is removed, a changed, d is new.
    lab.write(
        "a.yaml",
        &(service("a", 2) + "kind: Service\nmetadata: {name: b}\nspec: {ports: 3}\n---\n" + &service("d", 1)),
    );
    let changes = lab.look();
    assert_eq!(&changes[1..], ["+ Service default/a", "+ Service default/d"]);
    assert!(
        changes[0].starts_with("! Service default/b (a.yaml, document 2): spec.ports: invalid type"),
        "{changes:?}"
    );
    // The objects of another file are not protected.
    lab.write("z.yaml", "");
    assert_eq!(lab.look(), ["- Service default/z"]);
    // Corrected: an object that is missing now is removed.
    lab.write("a.yaml", &(service("a", 2) + &service("b", 1)));
    assert_eq!(lab.look(), ["- Service default/c", "- Service default/d", "a.yaml is fine"]);
}

#[test]
fn a_file_that_is_gone_is_gone_even_if_it_was_broken() {
    let mut lab = lab();
    lab.write("a.yaml", &service("a", 1));
    lab.look();
    lab.write("a.yaml", "kind: [");
    lab.look();
    fs::remove_file(lab.temp.path().join("a.yaml")).expect("it is there");
    assert_eq!(lab.look(), ["- Service default/a", "a.yaml is fine"]);
}

#[test]
fn what_is_not_text_keeps_what_was_there() {
    let mut lab = lab();
    lab.write("a.yaml", &service("a", 1));
    lab.look();
    fs::write(lab.temp.path().join("a.yaml"), b"kind: \xff\xfe").expect("the test may write");
    let changes = lab.look();
    assert_eq!(changes.len(), 1);
    assert!(changes[0].starts_with("! a.yaml, document 1: is not UTF-8 text"), "{changes:?}");
}

#[test]
fn of_two_copies_the_first_file_wins_and_the_other_takes_over() {
    let mut lab = lab();
    lab.write("a.yaml", &service("s", 1));
    lab.write("b.yaml", &(service("other", 1) + &service("s", 2)));
    let changes = lab.look();
    assert_eq!(&changes[1..], ["+ Service default/other", "+ Service default/s", "listed"]);
    assert!(changes[0].starts_with("! Service default/s (b.yaml, document 2): is already in a.yaml"), "{changes:?}");
    assert_eq!(lab.look(), [] as [&str; 0]);
    fs::remove_file(lab.temp.path().join("a.yaml")).expect("it is there");
    assert_eq!(lab.look(), ["+ Service default/s", "b.yaml is fine"]);
}

#[test]
fn a_mounted_config_map_is_followed() {
    let mut lab = lab();
    let root = lab.temp.path().to_owned();
    for (version, port) in [("..1", 1), ("..2", 2)] {
        fs::create_dir(root.join(version)).expect("the test may write");
        fs::write(root.join(version).join("a.yaml"), service("a", port)).expect("the test may write");
    }
    symlink("..1", root.join("..data")).expect("the test may link");
    symlink("..data/a.yaml", root.join("a.yaml")).expect("the test may link");
    assert_eq!(lab.look(), ["+ Service default/a", "listed"]);
    // What the kubelet does on a change.
    symlink("..2", root.join("..data_tmp")).expect("the test may link");
    fs::rename(root.join("..data_tmp"), root.join("..data")).expect("the test may rename");
    fs::remove_dir_all(root.join("..1")).expect("it is there");
    assert_eq!(lab.look(), ["+ Service default/a"]);
    assert_eq!(
        lab.folder.outside_folders(),
        BTreeSet::from([fs::canonicalize(root.join("..2")).expect("it is there")])
    );
}

#[test]
fn a_link_to_nowhere_keeps_what_it_led_to() {
    let mut lab = lab();
    let target = tempfile::tempdir().expect("a temporary folder");
    fs::write(target.path().join("t"), service("a", 1)).expect("the test may write");
    symlink(target.path().join("t"), lab.temp.path().join("a.yaml")).expect("the test may link");
    assert_eq!(lab.look(), ["+ Service default/a", "listed"]);
    fs::remove_file(target.path().join("t")).expect("it is there");
    let changes = lab.look();
    assert_eq!(changes.len(), 1);
    assert!(changes[0].starts_with("! a.yaml: cannot be read (No such file"), "{changes:?}");
    fs::write(target.path().join("t"), service("a", 1)).expect("the test may write");
    assert_eq!(lab.look(), ["a.yaml is fine"]);
}

#[test]
fn a_lost_folder_deletes_nothing() {
    let mut lab = lab();
    lab.write("a.yaml", &service("a", 1));
    lab.look();
    let (here, aside) = (lab.temp.path().to_owned(), lab.temp.path().with_extension("aside"));
    fs::rename(&here, &aside).expect("the test may rename");
    let changes = lab.look();
    assert_eq!(changes.len(), 1);
    assert!(changes[0].contains("cannot be listed (No such file"), "{changes:?}");
    fs::rename(&aside, &here).expect("the test may rename");
    assert_eq!(lab.look(), [format!("{} is fine", here.display())]);
}

#[test]
fn a_busy_file_stays_as_it_was() {
    let mut lab = lab();
    lab.write("a.yaml", &service("a", 1));
    lab.look();
    lab.write("a.yaml", "");
    let busy = HashSet::from([lab.temp.path().join("a.yaml")]);
    assert_eq!(describe(lab.folder.look(&busy)), [] as [&str; 0]);
    assert_eq!(lab.look(), ["- Service default/a"]);
}

#[test]
fn warnings_of_fields_name_their_document_also_after_it_moved() {
    let mut lab = lab();
    let bad = "kind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 0}]}\n---\n";
    lab.write("a.yaml", bad);
    assert!(lab.look()[0].starts_with("! Service default/b (a.yaml, document 1): spec.ports[0].port: 0 is not"));
    lab.write("a.yaml", &(service("a", 1) + bad));
    let changes = lab.look();
    assert!(
        changes[0].starts_with("! Service default/b (a.yaml, document 2): spec.ports[0].port: 0 is not"),
        "{changes:?}"
    );
}

#[test]
fn a_document_that_never_was_an_object_keeps_nothing() {
    let mut lab = lab();
    lab.write("a.yaml", &(service("a", 1) + &service("b", 1) + "resources: [x]\n"));
    lab.look();
    lab.write("a.yaml", &(service("b", 1) + "resources: [x]\n"));
    assert!(lab.look().contains(&"- Service default/a".to_owned()));
    // A bad document that may have been b protects b.
    lab.write("a.yaml", "kind: Servce\nmetadata: {name: b}\n---\nresources: [x]\n");
    let changes = lab.look();
    assert!(!changes.contains(&"- Service default/b".to_owned()), "{changes:?}");
    let remedy = "write apiVersion: v1 and kind: Service";
    assert!(changes.iter().any(|change| change.ends_with(remedy)), "{changes:?}");
    lab.write("a.yaml", "resources: [x]\n");
    assert!(lab.look().contains(&"- Service default/b".to_owned()));
}

#[test]
fn a_document_that_lost_its_kind_keeps_what_it_was() {
    let mut lab = lab();
    lab.write("a.yaml", &service("a", 1));
    lab.look();
    lab.write("a.yaml", "metadata: {name: a}\nspec: {ports: [{port: 1}]}\n");
    let changes = lab.look();
    assert_eq!(changes.len(), 1);
    assert!(changes[0].starts_with("! a.yaml, document 1: kind: is missing (line 1 of the file)"), "{changes:?}");
}

#[test]
fn what_is_too_large_or_no_file_is_told_and_hurts_no_other() {
    let mut lab = lab();
    let root = lab.temp.path().to_owned();
    lab.write("a.yaml", &service("a", 1));
    lab.write("z.yaml", &service("z", 1));
    lab.look();
    // Sparse: the file takes no space on the disk.
    fs::File::create(root.join("a.yaml")).and_then(|file| file.set_len(1 << 30)).expect("the test may write");
    lab.write("deep.yaml", &("a: ".to_owned() + &"[".repeat(50_000)));
    lab.write("deep.json", &"[".repeat(50_000));
    lab.write("many.yaml", &"x\n---\n".repeat(1_001));
    let made = std::process::Command::new("mkfifo").arg(root.join("pipe.yaml")).status().expect("mkfifo is there");
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket.yaml")).expect("the test may bind");
    symlink("loop2.yaml", root.join("loop1.yaml")).expect("the test may link");
    symlink("loop1.yaml", root.join("loop2.yaml")).expect("the test may link");
    symlink("/dev/zero", root.join("device.yaml")).expect("the test may link");
    fs::create_dir(root.join("folder.yaml")).expect("the test may write");
    lab.write("z.yaml", &service("z", 2));
    let changes = lab.look();
    let told = |start: &str| changes.iter().any(|change| change.starts_with(start));
    assert!(told("+ Service default/z"), "{changes:#?}");
    assert!(!changes.iter().any(|change| change.starts_with('-')), "{changes:#?}");
    for start in [
        "! a.yaml: cannot be read (it is larger than 64 MiB); the objects that it held before are kept; write several \
         files",
        "! deep.json, document 1: is nested deeper than 128 levels (line 1 of the file)",
        "! deep.yaml, document 1: is nested deeper than 128 levels (line 1 of the file)",
        "! many.yaml: cannot be read (it holds more than 1000 documents that are not objects)",
        "! pipe.yaml: cannot be read (not a regular file)",
        "! socket.yaml: cannot be read (not a regular file)",
        "! device.yaml: cannot be read (not a regular file)",
        "! loop1.yaml: cannot be read (Too many levels of symbolic links",
    ] {
        assert!(told(start), "{start}: {changes:#?}");
    }
    assert_eq!(lab.look(), [] as [&str; 0]);
    lab.write("a.yaml", &service("a", 2));
    assert!(lab.look().contains(&"+ Service default/a".to_owned()));
}

#[test]
fn of_too_many_files_those_that_were_read_before_count() {
    let mut lab = lab();
    lab.write("z.yaml", &service("z", 1));
    lab.look();
    for number in 0..FILES_MAX {
        lab.write(&format!("{number:05}.yaml"), "");
    }
    let changes = lab.look();
    assert_eq!(changes.len(), 1, "{changes:?}");
    let wanted = "! the folder: holds 10001 files; 10000 are read, first of all those that were read before;";
    assert!(changes[0].starts_with(wanted), "{changes:?}");
}

#[test]
fn a_file_that_is_missed_once_may_come_back() {
    let mut lab = lab();
    lab.folder = lab.folder.patient();
    lab.write("a.yaml", &service("a", 1));
    lab.look();
    for _ in 0..2 {
        fs::remove_file(lab.temp.path().join("a.yaml")).expect("it is there");
        assert_eq!(lab.look(), [] as [&str; 0]);
        lab.write("a.yaml", &service("a", 1));
        assert_eq!(lab.look(), [] as [&str; 0]);
    }
    fs::remove_file(lab.temp.path().join("a.yaml")).expect("it is there");
    assert_eq!(lab.look(), [] as [&str; 0]);
    assert_eq!(lab.look(), ["- Service default/a"]);
}
