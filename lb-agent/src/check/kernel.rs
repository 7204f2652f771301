//! Checks the kernel for the features that the dataplane needs. Each is tried: distributions bring features to older
//! versions, and leave features out.

use std::io;
use std::path::Path;

use super::finding::Finding;
use crate::dataplane::{netns_cookie, object};

pub fn findings() -> Vec<Finding> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let jit = std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    vec![
        kernel(release.trim(), &netns_cookie()),
        btf(Path::new("/sys/kernel/btf/vmlinux").exists()),
        self::jit(jit.trim()),
        refusal(object::sets_retval()),
    ]
}

/// Everything else that has no finding of its own is older than the cookies of network namespaces.
fn kernel(release: &str, cookie: &io::Result<u64>) -> Finding {
    match cookie {
        Ok(_) => Finding::ok("kernel", format!("Linux {release}")),
        Err(error) => Finding::fail(
            "kernel",
            format!("Linux {release} has no cookies of network namespaces, which came with Linux 5.14 ({error})"),
            "use Linux 6.1 or newer; older ones are not tested",
        ),
    }
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

/// How the node's own sockets learn that a dial is rejected.
fn refusal(sets_retval: bool) -> Finding {
    if sets_retval {
        return Finding::ok("socket-errors", "a process of the node whose dial is rejected gets ECONNREFUSED");
    }
    Finding::warn(
        "socket-errors",
        "the kernel has no bpf_set_retval (Linux 5.18): a process of the node whose dial is rejected gets EPERM in place \
         of ECONNREFUSED",
        "use Linux 5.18 or newer, or --socket-lb=off",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Verdict;

    #[test]
    fn kernel_by_what_it_has() {
        assert_eq!(kernel("5.14.0-el9", &Ok(7)).verdict, Verdict::Ok);
        let old = kernel("5.10.0-30-amd64", &Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT)));
        assert_eq!(old.verdict, Verdict::Fail);
        assert!(old.found.contains("5.10.0-30-amd64") && old.found.contains("5.14"), "{old:?}");
    }

    #[test]
    fn what_is_missing_has_a_remedy() {
        let no_cookie = Err(io::ErrorKind::Unsupported.into());
        for finding in [kernel("4.19", &no_cookie), btf(false), jit("0"), refusal(false)] {
            assert!(finding.verdict > Verdict::Ok && !finding.remedy.is_empty(), "{finding:?}");
        }
        for finding in [btf(true), jit("1"), refusal(true)] {
            assert_eq!(finding.verdict, Verdict::Ok);
        }
    }
}
