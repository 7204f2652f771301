//! Tests that need the programs of a real control plane; without the programs they are counted as skipped.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use super::assets::{Assets, VARIABLE};

/// A test that uses the programs.
pub type Test = Box<dyn FnOnce(&Assets) + Send>;

/// The `main` of a test program with such tests.
pub fn run(tests: Vec<(String, Test)>) -> ExitCode {
    let arguments = Arguments::from_args();
    let assets = match Assets::find() {
        Ok(assets) => assets,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    if assets.is_none() {
        println!(
            "SKIPPED: {} tests on a real API server, as {VARIABLE} is not set: it names a folder with kube-apiserver and \
             etcd",
            tests.len()
        );
    }
    let trials = tests.into_iter().map(|(name, test)| {
        let assets = assets.clone();
        let is_skipped = assets.is_none();
        let run = move || {
            test(assets.as_ref().ok_or("there is no server to run it on")?);
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(is_skipped)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
