//! Traffic control of a namespace, as tc and the kernel show it.

use aya::programs::SchedClassifier;
use aya::programs::tc::TcAttachType;

use crate::netns::Netns;

/// Runs `tc` with these words.
#[track_caller]
pub fn tc(netns: &Netns, words: &str) -> String {
    netns.run("tc", &words.split(' ').collect::<Vec<_>>())
}

/// The lines of classifiers at both hooks of an interface, as tc prints them; each has one line.
#[track_caller]
pub fn classifiers(netns: &Netns, interface: &str) -> Vec<String> {
    let text = ["ingress", "egress"].map(|hook| tc(netns, &format!("filter show dev {interface} {hook}"))).concat();
    text.lines().filter(|line| line.contains(" handle ") || line.contains(" fh ")).map(ToOwned::to_owned).collect()
}

#[track_caller]
pub fn has_qdisc(netns: &Netns, interface: &str) -> bool {
    tc(netns, &format!("qdisc show dev {interface}")).contains("qdisc clsact")
}

/// How many programs of tcx are at both hooks of an interface.
#[track_caller]
pub fn tcx_programs(netns: &Netns, interface: &str) -> usize {
    let count = |hook| SchedClassifier::query_tcx(interface, hook).expect("the kernel lists programs").1.len();
    netns.inside(|| [TcAttachType::Ingress, TcAttachType::Egress].into_iter().map(count).sum())
}
