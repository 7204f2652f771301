//! Checks whether drivers can run a program, and those of which uplinks.

use std::collections::BTreeMap;
use std::io;

use super::finding::Finding;
use crate::dataplane::links::{Class, Link};
use crate::dataplane::probe::AttachedProgram;
use crate::dataplane::{Card, Xdp};
use crate::interfaces::Interfaces;

const NAME: &str = "xdp";

/// `links`: the interfaces that get programs. `kernel`: whether the kernel loads such programs. `card` asks the driver of
/// an interface, and `foreign` for an XDP program of others on it.
pub fn finding(
    interfaces: &Interfaces,
    links: &BTreeMap<u32, Link>,
    wanted: Option<Xdp>,
    kernel: &io::Result<()>,
    card: impl Fn(&str) -> io::Result<Card>,
    foreign: impl Fn(u32) -> Option<AttachedProgram>,
) -> Finding {
    let wanted = wanted.unwrap_or_default();
    // Generic programs are for frames of one buffer.
    if let Err(error) = kernel
        && wanted != Xdp::Generic
    {
        let found = format!(
            "the kernel loads no program for drivers and frames of any size, which came with Linux 5.18 ({error})"
        );
        return if wanted == Xdp::Off {
            Finding::ok(NAME, format!("off; {found}"))
        } else {
            Finding::warn(NAME, format!("{found}: tc serves"), "use Linux 5.18 or newer, or set --xdp=off")
        };
    }
    // What it would be.
    let tried = if wanted == Xdp::Off { Xdp::Auto } else { wanted };
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let uplinks = links.values().filter(|link| link.class == Class::Uplink);
    for facts in uplinks.filter_map(|link| interfaces.links().get(&link.ifindex)) {
        match interfaces.driver_mode(facts, tried, &card) {
            Some(Ok(mode)) => match foreign(facts.ifindex) {
                None => with.push(format!("{} ({})", facts.name, mode.name())),
                Some(program) => without.push(format!("{}: it has the XDP program {program} of others", facts.name)),
            },
            Some(Err(objection)) => without.push(format!("{}: {objection}", facts.name)),
            None => {}
        }
    }
    let is_served = !with.is_empty() || without.is_empty();
    let with = match (with.is_empty(), without.is_empty()) {
        (false, _) => with.join(" "),
        (true, false) => "no driver".to_owned(),
        (true, true) => "no driver, as no interface leads to the network".to_owned(),
    };
    let found = [with].into_iter().chain(without).collect::<Vec<_>>().join("; not ");
    match wanted {
        Xdp::Off => Finding::ok(NAME, format!("off; --xdp=auto would attach to {found}")),
        _ if is_served => Finding::ok(NAME, format!("`lb-agent run` attaches to {found}")),
        _ => Finding::warn(
            NAME,
            format!("`lb-agent run` attaches to {found}"),
            "tc serves without them: set --xdp=off, or remove the reason",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Verdict;
    use crate::dataplane::links::LinkHeader;
    use crate::interfaces::{Event, LinkFacts};

    fn told(wanted: Option<Xdp>, kernel: &io::Result<()>, driver: &str) -> (Verdict, String) {
        let mut interfaces = Interfaces::default();
        let (name, header) = ("eth0", LinkHeader::Ethernet);
        interfaces.apply(Event::Link(LinkFacts::pod_veth(2, name)));
        let links = [(2, Link { ifindex: 2, name: name.into(), class: Class::Uplink, header })].into();
        let card = |_: &str| Ok(Card { driver: driver.into(), takes_tags: false });
        let foreign = |_| (driver == "i40e").then(|| AttachedProgram { id: 7, name: Some("filter".into()) });
        let finding = finding(&interfaces, &links, wanted, kernel, card, foreign);
        assert!(finding.verdict == Verdict::Ok || !finding.remedy.is_empty(), "{finding:?}");
        (finding.verdict, finding.found)
    }

    #[test]
    fn drivers_are_judged_as_run_does() {
        let why = "not eth0: its driver veth is not known to complete checksums and to redirect frames";
        for (wanted, driver, verdict, expected) in [
            (None, "ice", Verdict::Ok, "off; --xdp=auto would attach to eth0 (native)".to_owned()),
            (None, "veth", Verdict::Ok, format!("off; --xdp=auto would attach to no driver; {why}")),
            (Some(Xdp::Auto), "ice", Verdict::Ok, "`lb-agent run` attaches to eth0 (native)".to_owned()),
            (
                Some(Xdp::Auto),
                "i40e",
                Verdict::Warn,
                "`lb-agent run` attaches to no driver; not eth0: it has the XDP program filter (id 7) of others".into(),
            ),
            (Some(Xdp::Auto), "veth", Verdict::Warn, format!("`lb-agent run` attaches to no driver; {why}")),
            (Some(Xdp::Generic), "veth", Verdict::Ok, "`lb-agent run` attaches to eth0 (generic)".to_owned()),
        ] {
            assert_eq!(told(wanted, &Ok(()), driver), (verdict, expected));
        }
    }

    #[test]
    fn an_older_kernel_is_a_warning_for_those_who_ask() {
        let old = Err(io::Error::from_raw_os_error(libc::EINVAL));
        for (wanted, verdict) in [(None, Verdict::Ok), (Some(Xdp::Off), Verdict::Ok), (Some(Xdp::Auto), Verdict::Warn)]
        {
            let (found, text) = told(wanted, &old, "ice");
            assert!(found == verdict && text.contains("5.18"), "{text}");
        }
    }
}
