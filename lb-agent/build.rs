//! Builds the BPF object of `lb-ebpf` with whatever toolchain on this machine can, so that `cargo build` just works.
//!
//! The same build makes the object of the floors, whose path it passes to the packages that depend on this one. It is
//! no part of the agent.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::build::elf::{Builder, SectionData};
use object::{Endian as _, Endianness, elf};

/// CPU level of the BPF target: fetching atomics and 32-bit jumps, Linux 5.12 and newer.
const BPF_CPU: &str = "v3";
/// Variables by which the outer cargo would steer the inner one.
const INHERITED: [&str; 10] = [
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTUP_TOOLCHAIN",
    "CARGO",
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "RUSTC_BOOTSTRAP",
];
const REMEDY: &str = "run `cargo xtask setup` (Debian 12), or install by hand: \
    `rustup component add rust-src`, and bpf-linker 0.13 built against LLVM 22; \
    a ready BPF object can be given in LB_BPF_OBJECT";

fn main() {
    for variable in ["LB_BPF_TOOLCHAIN", "LB_BPF_OBJECT", "LB_COMMIT", "PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let manifest_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let workspace = manifest_dir.parent().expect("the package lies in the workspace").to_path_buf();
    for input in ["lb-ebpf/src", "lb-ebpf/Cargo.toml", "lb-common/src", "lb-common/Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", workspace.join(input).display());
    }
    println!("cargo:rustc-env=LB_COMMIT={}", commit(&workspace).unwrap_or_default());
    println!("cargo:rustc-env=LB_TARGET={}", env::var("TARGET").expect("cargo sets TARGET"));
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let given = env::var_os("LB_BPF_OBJECT").map(PathBuf::from);
    let object = given.unwrap_or_else(|| {
        let built = build(&workspace, &out_dir);
        println!("cargo::metadata=floors={}", built.join("floors").display());
        built.join("lb")
    });
    let slim = fs::read(&object).map_err(Into::into).and_then(|bytes| slim(&bytes));
    if let Err(error) = slim.and_then(|bytes| Ok(fs::write(out_dir.join("lb.bpf.o"), bytes)?)) {
        fail(&format!("cannot copy the BPF object {}: {error}", object.display()));
    }
}

/// The commit that is built: `$LB_COMMIT`, or that of the work tree. A debug build knows it only from the variable: it
/// would be built anew with each commit, and every test program with it.
fn commit(workspace: &Path) -> Option<String> {
    if let Ok(given) = env::var("LB_COMMIT") {
        return Some(given.trim().to_owned()).filter(|given| !given.is_empty());
    }
    if env::var("PROFILE").as_deref() != Ok("release") {
        return None;
    }
    let git = |words: &[&str]| {
        let output = Command::new("git").args(words).current_dir(workspace).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // A commit appends to the log, a change of branch replaces HEAD.
    for file in ["HEAD", "logs/HEAD"] {
        let path = workspace.join(git(&["rev-parse", "--git-path", file])?);
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    git(&["rev-parse", "HEAD"])
}

/// The object without what no kernel needs: DWARF, and the source line of each instruction.
///
/// While aya reads an object, each function takes the room of all lines of its section. With 97 functions and 27,000
/// lines, these were 42 MB, and the most memory that the agent ever had.
fn slim(object: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut object = Builder::read(object)?;
    let endian = object.endian;
    for section in &mut object.sections {
        let name = section.name.to_string();
        section.delete = [".debug_", ".rel.debug_", ".rel.BTF"].iter().any(|prefix| name.starts_with(prefix));
        if let (".BTF.ext", SectionData::Data(data)) = (&*name, &mut section.data) {
            remove_lines(data.to_mut(), endian)?;
        }
    }
    object.delete_orphans();
    // LLVM keeps the names of sections among those of symbols.
    let names = object.sections.add();
    (names.name, names.sh_type, names.data) = (".shstrtab".into(), elf::SHT_STRTAB, SectionData::SectionString);
    names.sh_addralign = 1;
    let mut slim = Vec::new();
    object.write(&mut slim)?;
    Ok(slim)
}

/// Removes the source lines from `.BTF.ext` (`struct btf_ext_header` of linux/tools/lib/bpf). The functions stay.
fn remove_lines(data: &mut Vec<u8>, endian: Endianness) -> Result<(), Box<dyn Error>> {
    const HEADER_LEN: usize = 4;
    const LINES_AT: usize = 16;
    const LINES_LEN: usize = 20;
    const RELOCATIONS_AT: usize = 24;
    let field = |data: &[u8], at: usize| -> Result<u32, Box<dyn Error>> {
        Ok(endian.read_u32(data.get(at..at + 4).ok_or("short .BTF.ext")?.try_into()?))
    };
    let (header, first, len) = (field(data, HEADER_LEN)?, field(data, LINES_AT)?, field(data, LINES_LEN)?);
    let relocations = field(data, RELOCATIONS_AT)?;
    data.drain((header + first) as usize..(header + first + len) as usize);
    data[LINES_LEN..][..4].copy_from_slice(&endian.write_u32(0));
    if relocations > first {
        data[RELOCATIONS_AT..][..4].copy_from_slice(&endian.write_u32(relocations - len));
    }
    Ok(())
}

/// Builds the objects and returns their folder.
fn build(workspace: &Path, out_dir: &Path) -> PathBuf {
    let wanted = env::var("LB_BPF_TOOLCHAIN").ok();
    // The active toolchain first (its own proxies or a plain rustc), then Debian's linked pair.
    let candidates: Vec<&str> = wanted.as_deref().map_or_else(|| vec!["", "deb", "nightly"], |name| vec![name]);
    let Some(toolchain) = candidates.iter().copied().find(|name| has_library_source(name)) else {
        fail(&format!("no toolchain of {candidates:?} has the source of the Rust library (rust-src)"));
    };
    if Command::new("bpf-linker").arg("--version").output().is_err() {
        fail("bpf-linker is not on the PATH");
    }
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let target_dir = out_dir.join("bpf");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    // BTF needs both debuginfo and --btf; without either the object does not load.
    let flags = [
        format!("-Ctarget-cpu={BPF_CPU}"),
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
    ];
    let features: &[&str] =
        if env::var_os("CARGO_FEATURE_BPF_LOG").is_some() { &["--features", "bpf-log"] } else { &[] };
    let status = tool(toolchain, "cargo")
        .args(["build", "--package", "lb-ebpf", "--bins", "--release", "--locked"])
        .args(features)
        .args(["-Z", "build-std=core", "--target", target, "--target-dir"])
        .arg(&target_dir)
        .current_dir(workspace)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .status();
    match status {
        Ok(status) if status.success() => target_dir.join(target).join("release"),
        Ok(status) => fail(&format!("building lb-ebpf failed ({status}); see its messages above")),
        Err(error) => fail(&format!("cargo did not start: {error}")),
    }
}

/// A program of a toolchain, in a clean environment; "" is the toolchain that is active.
fn tool(toolchain: &str, program: &str) -> Command {
    let mut command = if toolchain.is_empty() {
        Command::new(active(program))
    } else {
        let mut command = Command::new("rustup");
        command.args(["run", toolchain, program]);
        command
    };
    for variable in INHERITED {
        command.env_remove(variable);
    }
    command
}

/// The very cargo or rustc that runs this build, so that both sides agree on the version.
fn active(program: &str) -> OsString {
    env::var_os(program.to_uppercase()).unwrap_or_else(|| program.into())
}

fn has_library_source(toolchain: &str) -> bool {
    let Ok(output) = tool(toolchain, "rustc").args(["--print", "sysroot"]).output() else { return false };
    let sysroot = String::from_utf8_lossy(&output.stdout);
    output.status.success() && Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
}

fn fail(what: &str) -> ! {
    for line in [what, REMEDY] {
        println!("cargo:warning={line}");
    }
    eprintln!("error: {what}\nhelp: {REMEDY}");
    std::process::exit(1);
}
