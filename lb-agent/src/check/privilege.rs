//! Checks the capabilities of this process, and whether its pin path can be used.

use std::path::Path;

use lb_common::table::{CONNECTIONS_VERSION, LAYOUT_VERSION};

use super::finding::Finding;
use crate::dataplane::Error;
use crate::dataplane::pins::PinPath;
use crate::privilege;

pub fn findings(pin_path: &Path) -> Vec<Finding> {
    vec![capabilities(privilege::missing()), pins(pin_path)]
}

fn capabilities(missing: Option<Vec<&str>>) -> Finding {
    let Some(missing) = missing else {
        return Finding::warn("capabilities", "/proc/self/status does not tell", "mount /proc");
    };
    if missing.is_empty() {
        Finding::ok("capabilities", privilege::NEEDED.map(|(name, _)| name).join(", "))
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
    if owner.layout_version != LAYOUT_VERSION {
        let found =
            format!("{shown} holds tables of layout {}, this version has {LAYOUT_VERSION}", owner.layout_version);
        let are_kept = owner.connections_version == CONNECTIONS_VERSION;
        let open = if are_kept { "keeps all connections" } else { "ends connections in VIP mode" };
        return Finding::warn(check, found, format!("the first start of this version replaces the tables, and {open}"));
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
    fn missing_capabilities_are_a_failure() {
        assert_eq!(capabilities(Some(Vec::new())).verdict, Verdict::Ok);
        let some = capabilities(Some(vec!["CAP_PERFMON", "CAP_BPF"]));
        assert_eq!((some.verdict, &*some.found), (Verdict::Fail, "CAP_PERFMON, CAP_BPF missing"));
        assert_eq!(capabilities(None).verdict, Verdict::Warn);
    }

    #[test]
    fn absent_pins_are_fine() {
        assert_eq!(pins(Path::new("/nonexistent/lb-agent")).verdict, Verdict::Ok);
    }
}
