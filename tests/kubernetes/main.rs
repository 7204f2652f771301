//! `--source=kube` against a real API server, if `KUBEBUILDER_ASSETS` names a folder with `kube-apiserver` and `etcd`.
//!
//! All tests share one server, one at a time, and each finds it without objects of others. Without the programs every
//! test is counted as skipped.

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

/// A test that needs the real server.
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
    // Dropping the server ends its processes.
    drop(server.lock().unwrap_or_else(PoisonError::into_inner).take());
    code
}

/// The test, with exclusive use of the server.
fn alone(server: &Shared, test: impl Fn(&mut Kubernetes) + Send + 'static) -> trials::Test {
    let server = Arc::clone(server);
    Box::new(move |assets| {
        // If a test failed while it used the server, cleaning restores the server.
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
