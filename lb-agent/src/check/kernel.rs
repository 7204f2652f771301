//! Checks the kernel: its version and the features that the dataplane needs.

use std::path::Path;

use super::finding::Finding;

/// tcx, the hook for our programs, came with Linux 6.6.
const RELEASE_MIN: (u32, u32) = (6, 6);

pub fn findings() -> Vec<Finding> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let jit = std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    vec![kernel(release.trim()), btf(Path::new("/sys/kernel/btf/vmlinux").exists()), self::jit(jit.trim())]
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < RELEASE_MIN {
        let (major, minor) = RELEASE_MIN;
        return Finding::fail(
            "kernel",
            format!("Linux {release}"),
            format!("use Linux {major}.{minor} or newer (tcx)"),
        );
    }
    Finding::ok("kernel", format!("Linux {release}"))
}

fn btf(is_there: bool) -> Finding {
    if is_there {
        Finding::ok("btf", "type information of the kernel is there")
    } else {
        let remedy = "use a kernel with CONFIG_DEBUG_INFO_BTF=y";
        Finding::fail("btf", "/sys/kernel/btf/vmlinux is missing", remedy)
    }
}

/// 0: off, 1: on, 2: on with debugging. Empty if the setting does not exist or cannot be read.
fn jit(value: &str) -> Finding {
    match value {
        "0" => Finding::warn("jit", "programs are interpreted", "sysctl net.core.bpf_jit_enable=1"),
        _ => Finding::ok("jit", "programs are compiled"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Verdict;

    #[test]
    fn kernel_by_release() {
        for (release, expected) in [
            ("6.6.0", Verdict::Ok),
            ("6.18.5-fc", Verdict::Ok),
            ("10.0", Verdict::Ok),
            ("6.5.13-generic", Verdict::Fail),
            ("5.15.0-91-generic", Verdict::Fail),
            ("", Verdict::Fail),
        ] {
            assert_eq!(kernel(release).verdict, expected, "{release}");
        }
    }

    #[test]
    fn failures_have_remedies() {
        for finding in [kernel("4.19"), btf(false), jit("0")] {
            assert!(finding.verdict > Verdict::Ok && !finding.remedy.is_empty(), "{finding:?}");
        }
        assert_eq!(jit("1").verdict, Verdict::Ok);
    }
}
