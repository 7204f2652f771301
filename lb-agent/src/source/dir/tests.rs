//! Changes arrive in time, and half-written files are never read.

use std::fs;
use std::io::Write;

use super::writers::SILENCE;
use super::*;

/// Longer than any test machine should need. The tests check order and content, not time.
const DEADLINE: Duration = Duration::from_secs(20);

struct Lab {
    temp: tempfile::TempDir,
    batches: tokio::sync::mpsc::Receiver<Vec<Change>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn lab(files: &[(&str, &str)]) -> Lab {
    let temp = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        fs::write(temp.path().join(name), text).expect("the test may write");
    }
    let source = DirSource::open(temp.path()).expect("it can be listed");
    let (sender, batches) = tokio::sync::mpsc::channel(16);
    let thread = std::thread::spawn(move || source.run(&sender));
    Lab { temp, batches, thread: Some(thread) }
}

impl Lab {
    /// The next batch, as short texts.
    fn next(&mut self) -> Vec<String> {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.batches.try_recv() {
                Ok(batch) => return batch.iter().map(describe).collect(),
                Err(error) => assert!(Instant::now() < end, "no batch in time: {error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.batches.close();
        // The thread ends within a second. If it panicked, the test fails.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the source panicked");
        }
    }
}

fn describe(change: &Change) -> String {
    match change {
        Change::Apply { object, .. } => format!("+ {}", object.reference()),
        Change::Remove(object) => format!("- {object}"),
        Change::Place { place, warnings } => format!("{} warnings at {place}", warnings.len()),
        Change::Listed => "listed".to_owned(),
    }
}

fn service(name: &str) -> String {
    format!("kind: Service\nmetadata: {{name: {name}}}\n")
}

#[test]
fn the_first_batch_is_the_whole_list() {
    let mut lab = lab(&[("a.yaml", &service("a")), ("b.yaml", &service("b"))]);
    assert_eq!(lab.next(), ["+ Service default/a", "+ Service default/b", "listed"]);
}

#[test]
fn written_renamed_and_removed_files_are_noticed() {
    let mut lab = lab(&[]);
    assert_eq!(lab.next(), ["listed"]);
    fs::write(lab.temp.path().join("a.yaml"), service("a")).expect("the test may write");
    assert_eq!(lab.next(), ["+ Service default/a"]);
    fs::write(lab.temp.path().join(".new"), service("b")).expect("the test may write");
    fs::rename(lab.temp.path().join(".new"), lab.temp.path().join("b.yaml")).expect("the test may rename");
    assert_eq!(lab.next(), ["+ Service default/b"]);
    fs::remove_file(lab.temp.path().join("a.yaml")).expect("it is there");
    assert_eq!(lab.next(), ["- Service default/a"]);
}

#[test]
fn a_file_written_in_place_is_never_seen_empty() {
    let mut lab = lab(&[("a.yaml", &service("a"))]);
    lab.next();
    let path = lab.temp.path().join("a.yaml");
    for round in 0..20 {
        let mut file = fs::File::create(&path).expect("the test may write");
        // The source has every chance to read the empty file and half of the file.
        std::thread::sleep(Duration::from_millis(3));
        file.write_all(service("a").as_bytes()).expect("the test may write");
        std::thread::sleep(Duration::from_millis(3));
        file.write_all(format!("---\n{}", service(&format!("n{round}"))).as_bytes()).expect("the test may write");
        drop(file);
        let batch = lab.next();
        assert!(batch.contains(&format!("+ Service default/n{round}")), "{batch:?}");
        assert!(!batch.contains(&"- Service default/a".to_owned()), "{batch:?}");
    }
}

#[test]
fn a_file_that_its_writer_keeps_open_is_read_after_a_while() {
    let mut lab = lab(&[]);
    lab.next();
    let mut file = fs::File::create(lab.temp.path().join("a.yaml")).expect("the test may write");
    file.write_all(service("a").as_bytes()).expect("the test may write");
    assert_eq!(lab.next(), ["+ Service default/a"]);
}

#[test]
fn a_folder_that_is_replaced_is_followed() {
    let mut lab = lab(&[("a.yaml", &service("a"))]);
    lab.next();
    let (here, aside) = (lab.temp.path().to_owned(), lab.temp.path().with_extension("aside"));
    fs::rename(&here, &aside).expect("the test may rename");
    fs::create_dir(&here).expect("the test may write");
    fs::write(here.join("b.yaml"), service("b")).expect("the test may write");
    let mut seen = Vec::new();
    while !seen.contains(&"+ Service default/b".to_owned()) {
        seen.extend(lab.next());
    }
    assert!(seen.contains(&"- Service default/a".to_owned()), "{seen:?}");
    // Changes are still reported as before.
    fs::write(here.join("c.yaml"), service("c")).expect("the test may write");
    assert_eq!(lab.next(), ["+ Service default/c"]);
    fs::remove_dir_all(&aside).expect("it is there");
}

#[test]
fn changes_behind_a_symbolic_link_are_noticed() {
    let target = tempfile::tempdir().expect("a temporary folder");
    fs::write(target.path().join("t"), service("a")).expect("the test may write");
    let mut lab = lab(&[]);
    lab.next();
    std::os::unix::fs::symlink(target.path().join("t"), lab.temp.path().join("a.yaml")).expect("the test may link");
    assert_eq!(lab.next(), ["+ Service default/a"]);
    fs::write(target.path().join("t"), service("b")).expect("the test may write");
    let batch = lab.next();
    assert!(batch.contains(&"+ Service default/b".to_owned()), "{batch:?}");
}

#[test]
fn a_file_that_is_removed_and_written_anew_never_goes() {
    let mut lab = lab(&[("a.yaml", &service("a"))]);
    lab.next();
    let path = lab.temp.path().join("a.yaml");
    let (mut round, mut prompt_rounds) = (0, 0);
    while prompt_rounds < 10 {
        round += 1;
        assert!(round < 1_000, "the machine is too slow to write a file within {SILENCE:?}");
        let removed = Instant::now();
        // As editors do: rename away or remove, then write under the old name.
        if round % 2 == 0 {
            fs::rename(&path, lab.temp.path().join("a.yaml~")).expect("the test may rename");
        } else {
            fs::remove_file(&path).expect("it is there");
        }
        // The source has every chance to look while the file is missing.
        std::thread::sleep(Duration::from_millis(8));
        fs::write(&path, format!("{}---\n{}", service("a"), service(&format!("n{round}"))))
            .expect("the test may write");
        // A busy machine may delay the write until the file counts as removed. Such a round is ignored.
        let is_prompt = removed.elapsed() < SILENCE;
        let mut seen = Vec::new();
        while !seen.contains(&format!("+ Service default/n{round}")) {
            seen.extend(lab.next());
        }
        if is_prompt {
            assert!(!seen.contains(&"- Service default/a".to_owned()), "{seen:?}");
            prompt_rounds += 1;
        }
    }
}

#[test]
fn a_renamed_file_is_one_file() {
    let mut lab = lab(&[("a.yaml", &service("a"))]);
    lab.next();
    fs::rename(lab.temp.path().join("a.yaml"), lab.temp.path().join("z.yaml")).expect("the test may rename");
    fs::write(lab.temp.path().join("b.yaml"), service("b")).expect("the test may write");
    let mut seen = Vec::new();
    while !seen.contains(&"+ Service default/b".to_owned()) {
        seen.extend(lab.next());
    }
    assert!(!seen.iter().any(|change| change.contains("warnings") || change.starts_with('-')), "{seen:?}");
}

#[test]
fn a_file_that_is_written_without_an_end_is_known_from_its_first_write() {
    use notify::event::{AccessKind, AccessMode, DataChange, EventKind, ModifyKind};
    let event = |kind| notify::Event::new(kind).add_path("/nowhere/log.yaml".into());
    let mut writers = Writers::default();
    let start = Instant::now();
    let mut now = start;
    for _ in 0..300 {
        now += SILENCE / 2;
        writers.observe(&event(EventKind::Modify(ModifyKind::Data(DataChange::Any))), now);
        assert_eq!(writers.busy(now).len(), 1);
    }
    assert_eq!(writers.oldest(), Some((start + SILENCE / 2, &PathBuf::from("/nowhere/log.yaml"))));
    writers.observe(&event(EventKind::Access(AccessKind::Close(AccessMode::Write))), now);
    assert_eq!(writers.busy(now).len(), 0);
    assert_eq!(writers.oldest(), None);
}
