//! Passes the path of the floors, which `lb-agent/build.rs` built, to the measurements.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(path) = std::env::var_os("DEP_LB_BPF_FLOORS") {
        println!("cargo::rustc-env=LB_BPF_FLOORS={}", path.display());
    }
}
