//! `cargo xtask deb`: the stand-alone balancer as a Debian package: the static program, its systemd unit, its settings, and
//! its manual pages.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::dist::{self, Arch};
use crate::setup;
use crate::workspace;

#[derive(clap::Args)]
pub struct Args {
    /// The processor
    #[arg(long, value_enum, default_value_t = Arch::native())]
    arch: Arch,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

const CONTROL: &str = "\
Package: lb-agent
Version: VERSION
Architecture: ARCH
Maintainer: the lb-agent developers <lb-agent@localhost>
Section: net
Priority: optional
Installed-Size: SIZE
Recommends: systemd
Description: Service load balancing in eBPF
 Balances the addresses of Services, which it reads from a folder of Kubernetes
 manifests, to their endpoints, and obeys ipMode (KEP-1860). The Kubernetes API
 can be the source as well.
";

/// The unit is neither enabled nor started: first come the settings. An upgrade restarts a running agent, which loses no
/// connection.
const POSTINST: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = configure ] && [ -z \"$DPKG_ROOT\" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl try-restart lb-agent.service
fi
";

/// Without its program nothing could remove the dataplane.
const PRERM: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = remove ] && [ -z \"$DPKG_ROOT\" ]; then
    if [ -d /run/systemd/system ]; then systemctl disable --now lb-agent.service || true; fi
    /usr/sbin/lb-agent unload || echo 'lb-agent: programs may be left; see lb-agent show interfaces' >&2
fi
";

/// Builds the program and the package.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure()?;
    let program = dist::program(args.arch)?;
    let manuals = workspace::target().join("deb/manuals");
    if args.arch == Arch::native() {
        write_manuals(&program, &manuals)?;
    }
    let package = build(&program, &manuals, args.arch, &workspace::target().join("deb"))?;
    println!("package: {} ({} KiB)", package.display(), fs::metadata(&package)?.len() >> 10);
    Ok(())
}

/// Manual pages, by the program itself; those of a program for another processor stay those of this one.
fn write_manuals(program: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let status = Command::new(program).arg("man").arg(folder).status().context("starting the program")?;
    ensure!(status.success(), "the program could not write its manual pages");
    Ok(())
}

/// Writes the package into the folder. Returns its path.
fn build(program: &Path, manuals: &Path, arch: Arch, folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("tree");
    let _ = fs::remove_dir_all(&tree); // It may not exist.
    let source = |name: &str| workspace::root().join(name);
    let text = |name: &str| fs::read(source(name)).with_context(|| name.to_owned());
    put(&tree, "usr/sbin/lb-agent", 0o755, &fs::read(program)?)?;
    put(&tree, "usr/lib/systemd/system/lb-agent.service", 0o644, &text("deploy/systemd/lb-agent.service")?)?;
    put(&tree, "etc/lb-agent/config.yaml", 0o644, &text("deploy/systemd/config.yaml")?)?;
    folder_of(&tree, "etc/lb-agent/manifests")?;
    put(
        &tree,
        "usr/share/doc/lb-agent/copyright",
        0o644,
        &[text("docs/LICENSE-MIT")?, text("docs/LICENSE-APACHE")?].concat(),
    )?;
    put(&tree, "usr/share/doc/lb-agent/changelog.gz", 0o644, &gzipped(&text("docs/CHANGELOG.md")?)?)?;
    put(&tree, "usr/share/doc/lb-agent/README", 0o644, &text("docs/standalone.md")?)?;
    for manual in fs::read_dir(manuals).into_iter().flatten() {
        let manual = manual?;
        let name = format!("usr/share/man/man1/{}.gz", manual.file_name().to_string_lossy());
        put(&tree, &name, 0o644, &gzipped(&fs::read(manual.path())?)?)?;
    }
    let kib = fs::metadata(program)?.len().div_ceil(1024).to_string();
    let control = CONTROL.replace("VERSION", VERSION).replace("ARCH", arch.name()).replace("SIZE", &kib);
    put(&tree, "DEBIAN/control", 0o644, control.as_bytes())?;
    put(&tree, "DEBIAN/conffiles", 0o644, b"/etc/lb-agent/config.yaml\n")?;
    put(&tree, "DEBIAN/postinst", 0o755, POSTINST.as_bytes())?;
    put(&tree, "DEBIAN/prerm", 0o755, PRERM.as_bytes())?;
    let package = folder.join(format!("lb-agent_{VERSION}_{}.deb", arch.name()));
    let mut dpkg = Command::new("dpkg-deb");
    let done = dpkg.args(["--root-owner-group", "--build"]).args([&tree, &package]).output()?;
    if !done.status.success() {
        bail!("dpkg-deb: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(package)
}

fn put(tree: &Path, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    let path = tree.join(name);
    if let Some(folder) = Path::new(name).parent() {
        folder_of(tree, &folder.to_string_lossy())?;
    }
    fs::write(&path, content).with_context(|| name.to_owned())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Makes a folder that all may read, whatever the mask of who builds.
fn folder_of(tree: &Path, name: &str) -> Result<()> {
    fs::create_dir_all(tree.join(name))?;
    for folder in Path::new(name).ancestors() {
        fs::set_permissions(tree.join(folder), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// The text as Debian wants it: without a name and a time, so that equal texts make equal packages.
fn gzipped(text: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = Command::new("gzip").args(["-9", "-n"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = gzip.stdin.take().context("piped above")?;
    let text = text.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&text));
    let output = gzip.wait_with_output()?;
    ensure!(writer.join().is_ok_and(|written| written.is_ok()) && output.status.success(), "gzip failed");
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program. Returns what it printed.
    fn printed(program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).output().expect("it starts");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program} {arguments:?}: {stdout}{stderr}");
        stdout.into_owned()
    }

    /// The package with another program, installed below a folder, upgraded, and removed.
    #[test]
    fn the_package_installs_keeps_settings_and_is_removed() {
        if !crate::machine::is_root() || crate::machine::which("dpkg").is_none() {
            return; // Only root may install, and only Debian has dpkg.
        }
        let folder = workspace::target().join(format!("deb-test-{}", std::process::id()));
        let manuals = folder.join("manuals");
        fs::create_dir_all(&manuals).expect("the target is writable");
        fs::write(manuals.join("lb-agent.1"), ".TH lb-agent 1\n").expect("the target is writable");
        let package = build(Path::new("/bin/true"), &manuals, Arch::native(), &folder).expect("it is built");
        let package = package.display().to_string();
        let listed = printed("dpkg-deb", &["--contents", &package]);
        for wanted in [
            "-rwxr-xr-x root/root",
            "./usr/sbin/lb-agent",
            "./usr/lib/systemd/system/lb-agent.service",
            "drwxr-xr-x root/root",
            "./etc/lb-agent/manifests/",
            "./usr/share/man/man1/lb-agent.1.gz",
        ] {
            assert!(listed.contains(wanted), "{wanted} is not in\n{listed}");
        }
        assert!(printed("dpkg-deb", &["--field", &package, "Version"]).trim() == VERSION);

        let root = folder.join("root");
        for name in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log", "usr/bin"] {
            fs::create_dir_all(root.join(name)).expect("the target is writable");
        }
        for name in ["status", "available"] {
            fs::write(root.join("var/lib/dpkg").join(name), "").expect("the target is writable");
        }
        let at = format!("--root={}", root.display());
        // The scripts of a package of this test must not touch the machine.
        let dpkg = |words: &[&str]| printed("dpkg", &[&[&*at, "--force-script-chrootless,confold"], words].concat());
        dpkg(&["--install", &package]);
        let settings = root.join("etc/lb-agent/config.yaml");
        fs::write(&settings, "source: kube\n").expect("it was installed");
        dpkg(&["--install", &package]);
        assert_eq!(fs::read_to_string(&settings).expect("it stays"), "source: kube\n");
        dpkg(&["--remove", "lb-agent"]);
        assert!(settings.exists() && !root.join("usr/sbin/lb-agent").exists());
        dpkg(&["--purge", "lb-agent"]);
        assert!(!settings.exists());
        fs::remove_dir_all(folder).expect("it is ours");
    }

    #[test]
    fn scripts_are_shell() {
        for script in [POSTINST, PRERM] {
            printed("sh", &["-n", "-c", script]);
        }
    }
}
