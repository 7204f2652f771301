//! `--source=kube` against a real API server, where `KUBEBUILDER_ASSETS` names a folder with `kube-apiserver` and `etcd`.
//!
//! One server for all: one test at a time has it for itself, and finds no objects of others. Without the programs
//! every test is skipped, and is counted so.

#[path = "../apiserver/expectations.rs"]
mod expectations;
mod likeness;
mod loss;
mod rights;
#[path = "../apiserver/stage.rs"]
mod stage;
mod status;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use lb_tests::kubernetes::{Assets, Kubernetes, announce_skips};
use libtest_mimic::{Arguments, Trial};

/// A test of the real server alone.
type Test = fn(&mut Kubernetes);

/// The server, from the first test that runs.
type Shared = Arc<Mutex<Option<Kubernetes>>>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let assets = match Assets::find() {
        Ok(assets) => assets,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let server = Shared::default();
    let mut trials = Vec::new();
    for (name, expectation) in expectations::ALL {
        trials.push(trial(&format!("expectations::{name}"), &server, assets.as_ref(), |server| expectation(server)));
    }
    for (name, test) in [likeness::ALL, loss::ALL, rights::ALL, status::ALL].concat() {
        trials.push(trial(name, &server, assets.as_ref(), test));
    }
    if assets.is_none() {
        announce_skips(trials.len());
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The processes end with it.
    drop(server.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}

fn trial(
    name: &str,
    server: &Shared,
    assets: Option<&Assets>,
    test: impl Fn(&mut Kubernetes) + Send + 'static,
) -> Trial {
    let (server, assets) = (Arc::clone(server), assets.cloned());
    let is_skipped = assets.is_none();
    let run = move || {
        let assets = assets.as_ref().ok_or("there is no server to run it on")?;
        // A test that failed while it had the server leaves nothing that cleaning does not mend.
        let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
        let server = server.get_or_insert_with(|| start(assets));
        server.clean();
        test(server);
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(is_skipped)
}

fn start(assets: &Assets) -> Kubernetes {
    let server = Kubernetes::start(assets);
    let (apiserver, etcd) = server.versions();
    println!("on kube-apiserver {apiserver}, etcd {etcd}");
    server
}
