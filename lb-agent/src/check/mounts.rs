//! Checks the file systems: bpffs for the pins, cgroup v2 for sockets of the node.

use std::path::Path;

use super::finding::Finding;
use crate::dataplane::mounts::points;
use crate::dataplane::sockets::find_root;

pub fn findings(pin_path: &Path) -> Vec<Finding> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    vec![bpffs(&mounts, pin_path), cgroup(find_root(&mounts))]
}

fn bpffs(mounts: &str, pin_path: &Path) -> Finding {
    let check = "bpffs";
    if let Some(point) = points(mounts, "bpf").find(|point| pin_path.starts_with(point)) {
        return Finding::ok(check, format!("mounted on {}", point.display()));
    }
    let usual = Path::new("/sys/fs/bpf");
    if pin_path.starts_with(usual) {
        return Finding::ok(check, format!("not mounted on {}; `run` mounts it", usual.display()));
    }
    let found = format!("{} is on no BPF file system", pin_path.display());
    Finding::fail(check, found, "mount one (`mount -t bpf bpf DIR`), or choose --pin-path below /sys/fs/bpf")
}

fn cgroup(root: Option<&Path>) -> Finding {
    match root {
        Some(point) => Finding::ok("cgroup2", format!("the root is mounted on {}", point.display())),
        None => Finding::warn(
            "cgroup2",
            "the root of the cgroup v2 tree is not mounted here: the node's own sockets cannot be served",
            "mount it (in a container, the node's /sys/fs/cgroup), or set --socket-lb=off beside kube-proxy",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Verdict;

    const MOUNTS: &str = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\nbpf /run/bpf bpf rw 0 0\n";

    #[test]
    fn pins_need_bpffs() {
        assert_eq!(bpffs(MOUNTS, Path::new("/run/bpf/lb")).found, "mounted on /run/bpf");
        assert_eq!(bpffs(MOUNTS, Path::new("/sys/fs/bpf/lb")).verdict, Verdict::Ok);
        assert_eq!(bpffs(MOUNTS, Path::new("/tmp/lb")).verdict, Verdict::Fail);
    }

    #[test]
    fn cgroup2_is_wanted() {
        assert_eq!(cgroup(Some(Path::new("/sys/fs/cgroup"))).verdict, Verdict::Ok);
        assert_eq!(cgroup(find_root("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n")).verdict, Verdict::Warn);
    }
}
