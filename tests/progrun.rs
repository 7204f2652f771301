//! The packet cases on the programs in the kernel, one test for each case and family, named `kernel::MODULE::CASE::v4`,
//! and once more with the program of a driver in front (`driver::MODULE::CASE::v4`). Needs root.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use lb_tests::cases::{self, Scene};
use lb_tests::machine::KernelMachine;
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let mut trials = trials("kernel", || KernelMachine::load("cases"));
    trials.extend(self::trials("driver", || KernelMachine::load("driver").behind_driver()));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The cases on one machine, which the first case makes: loading the programs takes seconds.
fn trials(world: &str, load: fn() -> KernelMachine) -> Vec<Trial> {
    let machine: Arc<Mutex<Option<KernelMachine>>> = Arc::default();
    cases::trials(world, move |case, net| {
        // If a case failed, emptying the tables restores the machine.
        let mut machine = machine.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = machine.get_or_insert_with(load);
        machine.reset();
        case(&mut Scene::new(net, machine));
    })
}
