//! `cargo xtask image`: builds the agent as a static program, in an image with nothing else, and starts it there once.
//!
//! Everything stays below `target/image`: buildah gets a store of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::setup;
use crate::workspace;

/// The largest archive of the image, in mebibytes.
const SIZE_MAX_MIB: u64 = 20;

/// Builds the program and the image, starts the program there, and prints the size of the archive.
pub fn run() -> Result<()> {
    setup::ensure()?;
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    setup::toolchain::ensure_target(&target)?;
    let program = build(&target)?;
    let image = Image::build(&program)?;
    image.starts()?;
    let size = image.archive()?;
    println!("image: {} ({} KiB)", image.archive_path().display(), size >> 10);
    ensure!(size <= SIZE_MAX_MIB << 20, "the image is larger than {SIZE_MAX_MIB} MiB");
    Ok(())
}

/// Builds the agent as a static program.
fn build(target: &str) -> Result<PathBuf> {
    let arguments = ["build", "--package", "lb-agent", "--bin", "lb-agent", "--profile", "dist", "--target", target];
    if !workspace::cargo().args(arguments).status()?.success() {
        bail!("the agent does not build for {target}");
    }
    let program = workspace::target().join(target).join("dist/lb-agent");
    let headers = Command::new("readelf").args(["--program-headers", "--wide"]).arg(&program).output()?;
    let headers = String::from_utf8_lossy(&headers.stdout);
    ensure!(headers.contains("LOAD") && !headers.contains("INTERP"), "{} is not static", program.display());
    Ok(program)
}

/// An image in a store of its own.
struct Image {
    folder: PathBuf,
    name: String,
}

impl Image {
    fn build(program: &Path) -> Result<Self> {
        let image =
            Self { folder: workspace::target().join("image"), name: format!("lb-agent:{}", env!("CARGO_PKG_VERSION")) };
        let context = image.folder.join("context");
        fs::create_dir_all(&context)?;
        fs::copy(program, context.join("lb-agent")).context("copying the agent")?;
        let recipe = workspace::root().join("deploy/Containerfile");
        let build = ["build", "--isolation", "chroot", "--tag", &image.name, "--file"].map(OsStr::new);
        image.buildah(build.into_iter().chain([recipe.as_os_str(), context.as_os_str()]))?;
        Ok(image)
    }

    /// Checks that the program runs in the image: it prints its version and checks the machine.
    fn starts(&self) -> Result<()> {
        let container = self.buildah(["from", &self.name])?;
        let container = container.trim().to_owned();
        let result = self.answers(&container);
        self.buildah(["rm", &container])?;
        result
    }

    fn answers(&self, container: &str) -> Result<()> {
        let run = |argument: &str| {
            let mut command = self.command();
            command.args(["run", "--isolation", "chroot", container, "--", "/lb-agent", argument]);
            command.output().context("cannot start buildah")
        };
        let version = run("--version")?;
        let text = String::from_utf8_lossy(&version.stdout);
        let wanted = concat!("lb-agent ", env!("CARGO_PKG_VERSION"));
        ensure!(text.starts_with(wanted), "the image said {text:?}: {}", String::from_utf8_lossy(&version.stderr));
        // Exit code 1 is an answer too: a container without privileges lacks what the agent needs.
        let check = run("check")?;
        let text = String::from_utf8_lossy(&check.stdout);
        let is_answered = matches!(check.status.code(), Some(0 | 1)) && text.contains("kernel");
        ensure!(is_answered, "`check` in the image: {text:?} {}", String::from_utf8_lossy(&check.stderr));
        println!("started in the image: {wanted}, and `check` looks at the machine");
        Ok(())
    }

    fn archive_path(&self) -> PathBuf {
        self.folder.join("lb-agent.tar")
    }

    /// Writes the image as one file. Returns its size.
    fn archive(&self) -> Result<u64> {
        let path = self.archive_path();
        let _ = fs::remove_file(&path); // It may not exist. An archive is never extended.
        self.buildah(["push", &self.name, &format!("oci-archive:{}", path.display())])?;
        Ok(fs::metadata(&path)?.len())
    }

    fn command(&self) -> Command {
        let mut command = workspace::program("buildah");
        command.arg("--root").arg(self.folder.join("store")).arg("--runroot").arg(self.folder.join("run"));
        // Works in containers and on any file system.
        command.args(["--storage-driver", "vfs"]);
        command
    }

    fn buildah<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = self.command();
        command.args(arguments);
        let output = command.output().context("cannot start buildah")?;
        if !output.status.success() {
            bail!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}
