//! Replays every kept input of the fuzz targets: former crashes, and inputs with much coverage. No privilege.

use std::path::Path;

use lb_tests::fuzz::TARGETS;

#[test]
fn kept_inputs_do_no_harm() {
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let inputs = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for input in inputs {
            let path = input.expect("an entry").path();
            println!("{}", path.display());
            target(&std::fs::read(&path).expect("reading an input"));
            count += 1;
        }
        assert!(count > 0, "{} holds no input", folder.display());
    }
}
