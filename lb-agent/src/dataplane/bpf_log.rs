//! The debug channel (`run --bpf-log`): the lines that the programs write with aya-log, in words.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use lb_common::addr::Proto;
use lb_common::table::{Counter, Direction};

pub use reader::{Reader, follow};

/// Whether this program can switch it on.
pub const IS_BUILT: bool = cfg!(feature = "bpf-log");

/// How to build one that can.
pub const REMEDY: &str =
    "this program was built without it: build one with `cargo build --release -p lb-agent --features bpf-log`";

/// What `--log-level` names: `info,lb_agent::bpf=debug`.
pub const TARGET: &str = "lb_agent::bpf";

/// The global of the programs that switches their lines on: the least severity, as aya-log numbers it.
pub const LEVEL: &str = "AYA_LOG_LEVEL";
pub const LEVEL_DEBUG: u8 = 4;

// What the hooks return (lb-ebpf/src/hook.rs; include/uapi/linux/bpf.h, enum tcx_action_base).
const NEXT: i32 = -1;
const DROP: i32 = 2;
const REDIRECT: i32 = 7;
const FORWARD: i32 = i32::MIN + 1;

/// A line of the programs, which know numbers only, in words. A line of another form stays as it is.
pub fn in_words(line: &str, interface: impl Fn(u32) -> Option<String>) -> String {
    let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
    words(&Numbers(pairs.collect()), interface).unwrap_or_else(|| line.to_owned())
}

/// The numbers of a line, by name.
struct Numbers<'a>(BTreeMap<&'a str, &'a str>);

impl Numbers<'_> {
    fn get<T: FromStr>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.parse().ok()
    }

    fn socket(&self, addr: &str, port: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.get::<IpAddr>(addr)?, self.get(port)?))
    }
}

fn words(numbers: &Numbers<'_>, interface: impl Fn(u32) -> Option<String>) -> Option<String> {
    let link: u32 = numbers.get("link")?;
    let hook = match numbers.get::<u32>("hook")? {
        hook if hook == Direction::Request as u32 => "ingress",
        _ => "egress",
    };
    let from = [numbers.socket("src", "sport")?, numbers.socket("dst", "dport")?];
    let to = [numbers.socket("new_src", "new_sport")?, numbers.socket("new_dst", "new_dport")?];
    let frontend: u32 = numbers.get("frontend")?;
    let number: u32 = numbers.get("reason")?;
    // The programs begin with this one, which is no reason.
    let reason = Counter::ALL.iter().find(|counter| **counter as u32 == number && number != UNDECIDED);
    let is_translated = !to[1].ip().is_unspecified() && from != to;
    // The protocol is noted with a decision.
    let is_decided = is_translated || reason.is_some();
    let proto = numbers.get("proto").and_then(Proto::from_number).filter(|_| is_decided).map_or("-", Proto::name);
    let action = match numbers.get::<i32>("action")? {
        NEXT => "next",
        DROP => "drop",
        REDIRECT => "redirect",
        FORWARD => "forward",
        _ => "?",
    };
    let interface = interface(link).unwrap_or_else(|| link.to_string());
    let arrow = |[src, dst]: [SocketAddr; 2]| format!("{src} -> {dst}");
    let mut text = format!("{hook} {interface} {proto} {}", arrow(from));
    // Writing to a string cannot fail.
    let mut add = |name: &str, value: &dyn Display| _ = write!(text, " {name}={value}");
    if is_translated {
        add("as", &arrow(to));
    }
    if frontend != 0 {
        add("frontend", &frontend);
    }
    if let Some(reason) = reason {
        add("reason", &reason.name());
    }
    add("action", &action);
    Some(text)
}

/// What a decision without a reason leaves: `Work::forget_outcome`.
const UNDECIDED: u32 = Counter::RequestTranslated as u32;

#[cfg(feature = "bpf-log")]
mod reader {
    use std::sync::{Arc, Weak};
    use std::time::Duration;

    use aya::Ebpf;
    use aya_log::EbpfLogger;

    use super::super::links::interface_name;
    use super::super::{BpfLog, Error};
    use super::{TARGET, in_words};

    /// The pause between two looks into the ring.
    const LOOK_INTERVAL: Duration = Duration::from_millis(100);

    /// Logs the lines until it is dropped.
    pub struct Reader(#[expect(dead_code, reason = "its end ends the thread")] Arc<()>);

    /// Logs the lines of these programs, on a thread of its own.
    pub fn follow(ebpf: &mut Ebpf, log: BpfLog) -> Result<Option<Reader>, Error> {
        let failed = |source| Error::Kernel { op: "opening the debug channel of the programs", source };
        if log == BpfLog::Off {
            return Ok(None);
        }
        if !tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
            tracing::warn!("--bpf-log: nothing of it is logged at this --log-level: name {TARGET}=debug");
        }
        let logger = EbpfLogger::init_with_logger(ebpf, Lines).map_err(std::io::Error::other).map_err(failed)?;
        let reader = Arc::new(());
        let asked = Arc::downgrade(&reader);
        std::thread::Builder::new().name("bpf-log".into()).spawn(move || read(logger, &asked)).map_err(failed)?;
        Ok(Some(Reader(reader)))
    }

    fn read(mut logger: EbpfLogger<Lines>, reader: &Weak<()>) {
        while reader.strong_count() > 0 {
            logger.flush();
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    struct Lines;

    impl log::Log for Lines {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            tracing::debug!(target: TARGET, "{}", in_words(&record.args().to_string(), interface_name));
        }

        fn flush(&self) {}
    }
}

#[cfg(not(feature = "bpf-log"))]
mod reader {
    use aya::Ebpf;

    use super::super::{BpfLog, Error};

    /// There is none without the feature.
    pub enum Reader {}

    #[allow(clippy::unnecessary_wraps, reason = "it can fail with the feature")]
    pub const fn follow(_: &mut Ebpf, _: BpfLog) -> Result<Option<Reader>, Error> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(rest: &str) -> String {
        let from = "link=7 hook=0 proto=6 src=10.0.0.9 sport=4000 dst=192.0.2.1 dport=80";
        in_words(&format!("{from} {rest}"), |link| (link == 7).then(|| "veth1".to_owned()))
    }

    #[test]
    fn numbers_become_words() {
        let created = Counter::FlowCreated as u32;
        let flow = "new_src=10.0.0.9 new_sport=4000 new_dst=10.1.0.5 new_dport=8080 frontend=3";
        assert_eq!(
            words_of(&format!("{flow} reason={created} action=-1")),
            "ingress veth1 tcp 10.0.0.9:4000 -> 192.0.2.1:80 as=10.0.0.9:4000 -> 10.1.0.5:8080 frontend=3 \
             reason=flow_created action=next"
        );
        let nothing = "new_src=0.0.0.0 new_sport=0 new_dst=0.0.0.0 new_dport=0";
        let refused = Counter::DropSourceRange as u32;
        assert_eq!(
            words_of(&format!("{nothing} frontend=3 reason={refused} action=2")),
            "ingress veth1 tcp 10.0.0.9:4000 -> 192.0.2.1:80 frontend=3 reason=drop_source_range action=drop"
        );
        assert_eq!(
            words_of(&format!("{nothing} frontend=0 reason={UNDECIDED} action=-1")),
            "ingress veth1 - 10.0.0.9:4000 -> 192.0.2.1:80 action=next"
        );
        assert_eq!(in_words("another line", |_| None), "another line");
    }
}
