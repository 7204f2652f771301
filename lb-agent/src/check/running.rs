//! What a running agent was started with: `check` tries the same where no flag says otherwise.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::finding::Finding;
use crate::args::CheckArgs;
use crate::ask;
use crate::source::settings::{self, Value};

const CHECK: &str = "settings";

/// The settings of the agent that listens there, by name. `None`: no agent answers.
pub fn settings(at: SocketAddr) -> Option<BTreeMap<String, String>> {
    // Any agent serves its settings.
    let text = ask::page(at, "config").ok().filter(|text| text.contains("`lb-agent run`"))?;
    Some(read(&text))
}

fn read(text: &str) -> BTreeMap<String, String> {
    let entries = settings::read(text).unwrap_or_default().into_iter();
    let one = |entry: settings::Entry| match entry.value {
        Value::One(value) => Some((entry.key, value)),
        Value::Many(_) => None,
    };
    entries.filter_map(one).collect()
}

/// Fills in what no flag says, if the agent uses these pins. Returns what is to be told.
pub fn fill_in(args: &mut CheckArgs, settings: Option<&BTreeMap<String, String>>) -> Option<Finding> {
    let settings = settings?;
    if settings.get("pin-path").map(Path::new) != Some(&*args.pins.pin_path) {
        return None;
    }
    let taken = args.fill_in(settings);
    // Any program may listen where no agent does, and a kubeconfig names programs to start.
    if taken.contains(&"kubeconfig")
        && let Some(path) = args.kubeconfig.take_if(|path| !is_of_root(path))
    {
        args.source = None;
        let found = format!("the kubeconfig {} of the running agent is not root's alone: not tried", path.display());
        return Some(Finding::warn(CHECK, found, "take it from others, or name it: --source=kube --kubeconfig"));
    }
    let found = format!("as the running agent at {} has them: {}", args.http.http, taken.join(", "));
    (!taken.is_empty()).then(|| Finding::ok(CHECK, found))
}

/// Whether the file is root's, and no other user can write it.
fn is_of_root(path: &Path) -> bool {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    path.metadata().is_ok_and(|about| about.uid() == 0 && about.mode() & WRITABLE_BY_OTHERS == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser as _;

    use super::*;
    use crate::args::{Command, CommandLine};
    use crate::check::finding::Verdict;

    fn args(flags: &str) -> CheckArgs {
        let words = ["lb-agent", "check", "--pin-path=/pins"].into_iter().chain(flags.split_whitespace());
        match CommandLine::parse_from(words).command {
            Command::Check(args) => *args,
            other => panic!("{other:?} is not check"),
        }
    }

    #[test]
    fn what_no_flag_says_is_as_the_agent_has_it() {
        let settings = read(
            "# The settings of `lb-agent run`.\nsource: kube  # flag\n# kubeconfig: not set\nnode-name: n1  # flag\n\
             workload-interfaces: \"cali*\"  # flag\nuplink-interfaces: none  # default\nhealthz: \"off\"  # default\n\
             pin-path: /pins  # flag\ncluster-cidrs: [\"10.0.0.0/8\"]  # flag\n",
        );
        let mut filled = args("--workload-interfaces=veth*");
        let told = fill_in(&mut filled, Some(&settings)).expect("something is taken");
        assert!(told.found.ends_with(": source, node-name, uplink-interfaces, healthz"), "{told:?}");
        assert_eq!((filled.source.as_deref(), filled.node_name.as_deref()), (Some("kube"), Some("n1")));
        assert_eq!(filled.workload_interfaces.map(|globs| globs.to_string()).as_deref(), Some("veth*"));
        assert_eq!(filled.uplink_interfaces.map(|globs| globs.to_string()).as_deref(), Some("none"));
        // Another agent, and none.
        for (flags, settings) in [("--pin-path=/others", Some(&settings)), ("", None)] {
            let mut filled = args(flags);
            assert_eq!(fill_in(&mut filled, settings), None);
            assert_eq!((filled.source, filled.node_name), (None, None));
        }
    }

    #[test]
    fn a_kubeconfig_that_others_can_write_is_not_read() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let text = format!("source: kube\nkubeconfig: {}\npin-path: /pins\n", file.path().display());
        for (mode, is_read) in [(0o666, false), (0o600, true)] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("it is ours");
            let is_read = is_read && nix::unistd::geteuid().is_root();
            let mut filled = args("");
            let told = fill_in(&mut filled, Some(&read(&text))).expect("it is told");
            assert_eq!(told.verdict == Verdict::Ok, is_read, "{told:?}");
            assert_eq!((filled.source.is_some(), filled.kubeconfig.is_some()), (is_read, is_read));
        }
        // Who names another source has said which credentials count.
        let mut filled = args("--source=kube");
        fill_in(&mut filled, Some(&read(&text)));
        assert_eq!(filled.kubeconfig, None);
    }
}
