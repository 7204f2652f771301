//! `cargo xtask image`: builds the agent as a static program, in an image with nothing else, and starts it there once.
//!
//! Everything stays below `target/image`: buildah gets a store of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::dist::{Arch, program};
use crate::setup;
use crate::workspace;

/// The largest archive of the image, in mebibytes.
const SIZE_MAX_MIB: u64 = 20;

/// The name of the image in the archive: the manifests say `lb-agent:VERSION`, and this is what a node makes of that.
const FULL_NAME: &str = concat!("docker.io/library/lb-agent:", env!("CARGO_PKG_VERSION"));

/// For which processors.
#[derive(clap::Args)]
pub struct Args {
    /// The processor, under the name that images have for it; both: an index of two images
    #[arg(long, value_enum, default_value_t = Processors::native())]
    arch: Processors,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Processors {
    Amd64,
    Arm64,
    Both,
}

impl Processors {
    const fn native() -> Self {
        match Arch::native() {
            Arch::Amd64 => Self::Amd64,
            Arch::Arm64 => Self::Arm64,
        }
    }

    const fn each(self) -> &'static [Arch] {
        match self {
            Self::Amd64 => &[Arch::Amd64],
            Self::Arm64 => &[Arch::Arm64],
            Self::Both => &[Arch::Amd64, Arch::Arm64],
        }
    }
}

/// Builds the programs and the images, starts each in its image if this machine can, and prints the size of the archive.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure()?;
    let wanted = args.arch.each();
    let image = Image::named(args.arch)?;
    for arch in wanted {
        let program = program(*arch)?;
        image.add(*arch, &program)?;
        if *arch == Arch::native() {
            image.starts()?;
        } else {
            prints_its_version(*arch, &program)?;
        }
    }
    let size = image.archive()?;
    println!("image: {} ({} KiB)", image.archive_path().display(), size >> 10);
    ensure!(size <= wanted.len() as u64 * (SIZE_MAX_MIB << 20), "an image is larger than {SIZE_MAX_MIB} MiB");
    Ok(())
}

/// Starts a program of another processor in an emulator.
fn prints_its_version(arch: Arch, program: &Path) -> Result<()> {
    let version = workspace::program("qemu-aarch64").arg(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&version.stdout);
    let wanted = concat!("lb-agent ", env!("CARGO_PKG_VERSION"));
    ensure!(text.starts_with(wanted), "in the emulator it said {text:?}: {}", String::from_utf8_lossy(&version.stderr));
    println!("started in an emulator for {}: {wanted}", arch.name());
    Ok(())
}

/// An image in a store of its own.
struct Image {
    folder: PathBuf,
    name: String,
    /// The name of the index of several images.
    index: Option<String>,
}

impl Image {
    /// An image for one processor, or an empty index for several.
    fn named(processors: Processors) -> Result<Self> {
        let version = env!("CARGO_PKG_VERSION");
        let image =
            Self { folder: workspace::target().join("image"), name: format!("lb-agent:{version}"), index: None };
        if processors != Processors::Both {
            return Ok(image);
        }
        let index = format!("lb-agent-index:{version}");
        let _ = image.buildah(["manifest", "rm", &index]); // It may not exist. An index is never extended.
        image.buildah(["manifest", "create", &index])?;
        Ok(Self { index: Some(index), ..image })
    }

    /// Builds the image for a processor, and adds it to the index if there is one.
    fn add(&self, arch: Arch, program: &Path) -> Result<()> {
        let context = self.folder.join("context");
        fs::create_dir_all(&context)?;
        fs::copy(program, context.join("lb-agent")).context("copying the agent")?;
        let recipe = workspace::root().join("deploy/Containerfile");
        let build = ["build", "--isolation", "chroot", "--arch", arch.name(), "--tag", &self.name].map(OsStr::new);
        let index = self.index.iter().flat_map(|index| [OsStr::new("--manifest"), OsStr::new(index)]);
        let from = [OsStr::new("--file"), recipe.as_os_str(), context.as_os_str()];
        self.buildah(build.into_iter().chain(index).chain(from)).map(drop)
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
        let archive = format!("oci-archive:{}:{FULL_NAME}", path.display());
        match &self.index {
            Some(index) => self.buildah(["manifest", "push", "--all", index, &archive])?,
            None => self.buildah(["push", &self.name, &archive])?,
        };
        let index =
            Command::new("tar").args(["--extract", "--to-stdout", "--file"]).arg(&path).arg("index.json").output()?;
        let index = String::from_utf8(index.stdout)?;
        // Without it `ctr images import` names the image after the day.
        ensure!(index.contains(&format!("\"org.opencontainers.image.ref.name\":\"{FULL_NAME}\"")), "no name: {index}");
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
