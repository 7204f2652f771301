//! Mount points, and the path that pins have on the node, for messages of an agent in a container that sees only a part
//! of the BPF file system.

use std::path::{Path, PathBuf};

/// Where systems mount the BPF file system, and where we mount one if it is missing.
pub const USUAL_BPFFS: &str = "/sys/fs/bpf";

/// The path of the pins as seen on the node. For example, a container may have `/sys/fs/bpf/lb-agent` mounted on
/// `/pins`.
pub fn host_path(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    seen_from_host(&path.components().collect::<PathBuf>(), &mounts)
}

/// The mount points of a file system type, in mount order; `mounts` is the text of /proc/self/mounts.
pub fn points<'a>(mounts: &'a str, kind: &'a str) -> impl Iterator<Item = &'a Path> {
    mounts.lines().filter_map(move |line| {
        let mut fields = line.split(' ');
        let point = fields.nth(1)?;
        (fields.next()? == kind).then(|| Path::new(point))
    })
}

/// `mounts` is the text of /proc/self/mountinfo.
fn seen_from_host(path: &Path, mounts: &str) -> PathBuf {
    let mounts = mounts.lines().filter_map(Mount::parse).filter(|mount| path.starts_with(&mount.point));
    // Of two mounts on one point, the later one is visible.
    let Some(mount) = mounts.max_by_key(|mount| mount.point.components().count()) else { return path.to_owned() };
    match path.strip_prefix(&mount.point) {
        Ok(rest) if mount.is_bpf && mount.root != Path::new("/") => {
            let below = mount.root.strip_prefix("/").unwrap_or(&mount.root).join(rest);
            Path::new(USUAL_BPFFS).join(below).components().collect()
        }
        _ => path.to_owned(),
    }
}

struct Mount {
    /// The part of the file system that is mounted.
    root: PathBuf,
    point: PathBuf,
    is_bpf: bool,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3).map(|field| PathBuf::from(field.replace("\\040", " ")));
        Some(Self { root: fields.next()?, point: fields.next()?, is_bpf: kind.starts_with("bpf ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_what_it_is_on_the_node() {
        let node = "59 23 0:39 / /sys/fs/bpf rw,relatime - bpf bpf rw,mode=700\n25 1 0:5 / / rw - ext4 x rw\n";
        let container = "30 1 0:9 / / rw - overlay x rw\n31 30 0:39 /lb-agent /pins rw shared:7 - bpf bpf rw,mode=700\n\
                         32 30 0:39 /a /my\\040pins rw - bpf bpf rw\n33 30 0:9 /etc /etc rw - ext4 x rw\n";
        for (mounts, path, wanted) in [
            (node, "/sys/fs/bpf/lb-agent", "/sys/fs/bpf/lb-agent"),
            (container, "/pins", "/sys/fs/bpf/lb-agent"),
            (container, "/pins/deeper", "/sys/fs/bpf/lb-agent/deeper"),
            (container, "/pins-not", "/pins-not"),
            (container, "/my pins", "/sys/fs/bpf/a"),
            (container, "/etc/x", "/etc/x"),
            ("", "/x", "/x"),
        ] {
            assert_eq!(seen_from_host(Path::new(path), mounts), Path::new(wanted), "{path}");
        }
    }
}
