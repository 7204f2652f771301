//! What this program is: its version and commit, and what it can be told apart by.

use std::sync::LazyLock;

use lb_common::table::{CONNECTIONS_VERSION, LAYOUT_VERSION};

use crate::dataplane::object::OBJECT;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit in full; empty if the build did not know it, as debug builds do not.
const COMMIT: &str = env!("LB_COMMIT");

/// The target that this program is compiled for.
pub const TARGET: &str = env!("LB_TARGET");

/// The kernels that can run it.
pub const KERNEL_FLOOR: &str = "Linux 6.1 or newer, with BTF";

/// Letters of a commit that people write.
const SHORT_COMMIT_LEN: usize = 7;

/// The version with the commit: `0.1.0 (abc1234)`.
static SHORT: LazyLock<String> = LazyLock::new(|| format!("{VERSION} ({})", short_commit(COMMIT)));

/// All that `--version` says.
static LONG: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}\n\
         commit:      {}\n\
         tables:      layout {LAYOUT_VERSION}, connections {CONNECTIONS_VERSION}\n\
         BPF object:  {} bytes, CRC {:08x}\n\
         features:    {}\n\
         target:      {TARGET}\n\
         kernel:      {KERNEL_FLOOR}",
        &*SHORT,
        commit(),
        OBJECT.len(),
        crc32fast::hash(OBJECT),
        features()
    )
});

/// The commit, or `unknown`.
pub const fn commit() -> &'static str {
    if COMMIT.is_empty() { "unknown" } else { COMMIT }
}

pub fn short() -> &'static str {
    &SHORT
}

pub fn long() -> &'static str {
    &LONG
}

/// What the programs can do beyond what all builds can.
pub fn features() -> &'static str {
    /// The map that aya-log writes to.
    const LOG: &[u8] = b"AYA_LOGS";
    if OBJECT.windows(LOG.len()).any(|bytes| bytes == LOG) { "bpf-log" } else { "none" }
}

fn short_commit(commit: &str) -> &str {
    match commit.get(..SHORT_COMMIT_LEN) {
        Some(short) => short,
        None if commit.is_empty() => "unknown commit",
        None => commit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_tell_builds_apart() {
        assert_eq!(short_commit("0123456789abcdef"), "0123456");
        assert_eq!((short_commit("v1"), short_commit("")), ("v1", "unknown commit"));
        let long = long();
        assert!(long.starts_with(&format!("{VERSION} (")), "{long}");
        for part in [
            format!("layout {LAYOUT_VERSION}, connections {CONNECTIONS_VERSION}\n"),
            format!("{} bytes", OBJECT.len()),
            "x86_64".into(),
            "6.1".into(),
        ] {
            assert!(long.contains(&part) || part == "x86_64" && !cfg!(target_arch = "x86_64"), "{part}: {long}");
        }
    }
}
