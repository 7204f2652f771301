//! The rights that the agent and its subcommands need, and what to do about those that are missing.

use std::io;

use nix::errno::Errno;

/// Capabilities by their number in `include/uapi/linux/capability.h`.
pub const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// Capabilities that this process lacks. `None` if the kernel does not tell.
pub fn missing() -> Option<Vec<&'static str>> {
    missing_in(&status())
}

/// What to do if something failed because of missing rights: `None` if it failed for another reason.
pub fn remedy(error: &anyhow::Error) -> Option<String> {
    if !is_denied(error) {
        return None;
    }
    let status = status();
    lacking(&missing_in(&status)?, user(&status)?)
}

/// Whether the kernel refused something for want of rights. Of some causes only the text is left.
fn is_denied(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    [Errno::EPERM, Errno::EACCES].iter().any(|errno| text.contains(&io::Error::from(*errno).to_string()))
}

/// The remedy for a process of this user that lacks these capabilities.
fn lacking(missing: &[&str], user: u32) -> Option<String> {
    let needs = match (missing, user) {
        ([], 0) => return None,
        ([], _) => "the pins belong to root".to_owned(),
        _ => format!("this process lacks {}", missing.join(", ")),
    };
    let remedy = if user == 0 {
        "grant these capabilities (`securityContext.capabilities.add` in Kubernetes, `docker run --cap-add`)"
    } else {
        "run as root (`sudo lb-agent ...`, or `kubectl exec` into the agent's pod)"
    };
    Some(format!("{needs}: {remedy}"))
}

fn status() -> String {
    std::fs::read_to_string("/proc/self/status").unwrap_or_default()
}

fn missing_in(status: &str) -> Option<Vec<&'static str>> {
    let effective = u64::from_str_radix(field(status, "CapEff:")?, 16).ok()?;
    Some(NEEDED.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect())
}

/// The effective user.
fn user(status: &str) -> Option<u32> {
    field(status, "Uid:")?.split_whitespace().nth(1)?.parse().ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_by_bit() {
        let of = |mask: &str| missing_in(&format!("Name:\tx\nCapEff:\t{mask}\n"));
        assert_eq!(of("000001ffffffffff"), Some(Vec::new()));
        assert_eq!(of("0000000000000000"), Some(vec!["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]));
        assert_eq!(of("0000000000001000"), Some(vec!["CAP_PERFMON", "CAP_BPF"]));
        assert_eq!(missing_in(""), None);
        assert_eq!(user("Uid:\t0\t65534\t0\t0\n"), Some(65534));
    }

    #[test]
    fn the_remedy_is_for_this_user() {
        let container = lacking(&["CAP_BPF"], 0).expect("it lacks one");
        assert!(container.starts_with("this process lacks CAP_BPF: grant"), "{container}");
        let person = lacking(&["CAP_BPF"], 1000).expect("it lacks one");
        assert!(person.contains("sudo"), "{person}");
        assert_eq!(lacking(&[], 0), None, "the rights are there: it is another reason");
        assert!(lacking(&[], 1000).is_some_and(|remedy| remedy.contains("root")));
        let error = |errno: Errno| anyhow::Error::from(io::Error::from(errno)).context("opening");
        assert!(is_denied(&error(Errno::EPERM)) && is_denied(&error(Errno::EACCES)));
        let text = anyhow::anyhow!("no map: Operation not permitted (os error 1); see `check`");
        assert!(is_denied(&text) && !is_denied(&error(Errno::ENOENT)) && !is_denied(&error(Errno::ENODATA)));
    }
}
