//! Checks the capabilities of this process, and whether its pin path can be used.

use std::path::Path;

use super::finding::Finding;
use crate::dataplane::Error;
use crate::dataplane::pins::PinPath;

/// Capabilities by their number in `include/uapi/linux/capability.h`.
const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

pub fn findings(pin_path: &Path) -> Vec<Finding> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    vec![capabilities(&status), pins(pin_path)]
}

fn capabilities(status: &str) -> Finding {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else {
        return Finding::warn("capabilities", "/proc/self/status does not tell", "mount /proc");
    };
    let missing: Vec<_> = NEEDED.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        Finding::ok("capabilities", NEEDED.map(|(name, _)| name).join(", "))
    } else {
        let names = missing.join(", ");
        Finding::fail("capabilities", format!("{names} missing"), format!("run as root, or grant {names}"))
    }
}

fn pins(path: &Path) -> Finding {
    let check = "pins";
    let shown = path.display();
    let pins = PinPath::new(path);
    let owner = match pins.inspect() {
        Ok(owner) => owner,
        Err(Error::Untrusted(distrust)) => {
            return Finding::fail(check, distrust.to_string(), "look at its contents before `run` uses it");
        }
        Err(error) => return Finding::fail(check, error.to_string(), "run as the user that runs the agent"),
    };
    let Some(owner) = owner else {
        let found = if path.exists() { "holds no dataplane" } else { "is not there yet; `run` makes it" };
        return Finding::ok(check, format!("{shown} {found}"));
    };
    if let Err(error) = pins.check_owner() {
        return Finding::fail(check, error.to_string(), "choose another --pin-path");
    }
    let layout = lb_common::table::LAYOUT_VERSION;
    if owner.layout_version != layout {
        let found = format!("{shown} holds tables of layout {}, this version has {layout}", owner.layout_version);
        return Finding::warn(check, found, "the first start of this version replaces the tables");
    }
    // The lock is released at once.
    match pins.lock() {
        Ok(_) => Finding::ok(check, format!("{shown} holds a dataplane of this namespace; no agent runs on it")),
        Err(_) => Finding::ok(check, format!("{shown} holds a dataplane of this namespace; an agent runs on it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Verdict;

    #[test]
    fn capabilities_by_bit() {
        let all = capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n");
        assert_eq!(all.verdict, Verdict::Ok);
        let none = capabilities("CapEff:\t0000000000000000\n");
        assert_eq!((none.verdict, &*none.found), (Verdict::Fail, "CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF missing"));
        let only_net = capabilities("CapEff:\t0000000000001000\n");
        assert_eq!(&*only_net.found, "CAP_PERFMON, CAP_BPF missing");
        assert_eq!(capabilities("").verdict, Verdict::Warn);
    }

    #[test]
    fn absent_pins_are_fine() {
        assert_eq!(pins(Path::new("/nonexistent/lb-agent")).verdict, Verdict::Ok);
    }
}
