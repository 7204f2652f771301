//! Runs every case of `script/`: one test each, named like its file.

use std::path::PathBuf;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("script");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("tests/script is part of the sources")
        .map(|entry| entry.expect("tests/script can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txtar"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "no cases in {}", folder.display());
    let trials = cases.into_iter().map(|path| {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        Trial::test(name, move || lb_tests::script::run_file(&path).map_err(|error| Failed::from(format!("{error:#}"))))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}
