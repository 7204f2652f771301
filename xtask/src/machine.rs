//! The machine: system, user and kernel.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::workspace;

/// The first kernel with tcx, which the tests look at. The agent works without.
const TESTED_MIN: (u32, u32) = (6, 6);

/// The ID and version of the system: `("debian", "12")`.
pub fn system() -> (String, String) {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or("unknown").trim_matches('"').to_owned()
    };
    (field("ID"), field("VERSION_ID"))
}

pub fn is_debian_12() -> bool {
    system() == ("debian".into(), "12".into())
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The program with this name on the search path.
pub fn which(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&workspace::search_path()).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Why the tests that need root cannot run on this kernel. None if they can.
pub fn kernel_lacks_for_tests() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (major, minor) = TESTED_MIN;
    if version(&release).is_none_or(|version| version < TESTED_MIN) {
        let release = release.trim();
        return Some(format!(
            "kernel {release} has no tcx, which tests look at: boot {major}.{minor} or later (Debian 12: \
             linux-image-amd64 of bookworm-backports)"
        ));
    }
    kernel_lacks()
}

/// Why this kernel cannot load the programs. None if it can.
pub fn kernel_lacks() -> Option<String> {
    let btf = Path::new("/sys/kernel/btf/vmlinux");
    (!btf.exists()).then(|| "the kernel has no BTF: boot one built with CONFIG_DEBUG_INFO_BTF=y".into())
}

/// The first two numbers of a version.
pub fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_read_from_what_programs_print() {
        assert_eq!(version("6.18.5-cloud"), Some((6, 18)));
        assert_eq!(version("bpf-linker 0.13.0\n"), Some((0, 13)));
        assert_eq!(version("none"), None);
    }
}
