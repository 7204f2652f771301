//! `--source=kube` against a real API server, where `KUBEBUILDER_ASSETS` names a folder with `kube-apiserver` and `etcd`.
//!
//! One server for all: one test at a time has it for itself, and finds no objects of others. Without the programs
//! every test is skipped, and is counted so.

#[macro_use]
#[path = "../apiserver/expectations.rs"]
mod expectations;
#[path = "../apiserver/extremes.rs"]
mod extremes;
mod likeness;
mod loss;
mod rights;
#[path = "../apiserver/stage.rs"]
mod stage;
mod status;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use lb_tests::kubernetes::{Assets, Kubernetes, trials};

/// A test of the real server alone.
type Test = fn(&mut Kubernetes);

/// The server, from the first test that runs.
type Shared = Arc<Mutex<Option<Kubernetes>>>;

fn main() -> ExitCode {
    let server = Shared::default();
    let mut tests: Vec<(String, trials::Test)> = Vec::new();
    for (module, all) in [("expectations", expectations::ALL), ("extremes", extremes::ALL)] {
        for (name, expectation) in all {
            tests.push((format!("{module}::{name}"), alone(&server, |server| expectation(server))));
        }
    }
    for (name, test) in [likeness::ALL, loss::ALL, rights::ALL, status::ALL].concat() {
        tests.push((name.to_owned(), alone(&server, test)));
    }
    let code = trials::run(tests);
    // The processes end with it.
    drop(server.lock().unwrap_or_else(PoisonError::into_inner).take());
    code
}

/// The test, with the server for itself.
fn alone(server: &Shared, test: impl Fn(&mut Kubernetes) + Send + 'static) -> trials::Test {
    let server = Arc::clone(server);
    Box::new(move |assets| {
        // A test that failed while it had the server leaves nothing that cleaning does not mend.
        let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
        let server = server.get_or_insert_with(|| start(assets));
        server.clean();
        test(server);
    })
}

fn start(assets: &Assets) -> Kubernetes {
    let server = Kubernetes::start(assets);
    let (apiserver, etcd) = server.versions();
    println!("on kube-apiserver {apiserver}, etcd {etcd}");
    server
}
