//! ICMP echo requests, which belong to no Service.

use std::net::IpAddr;

use lb_common::addr::Proto;

use super::decision::{Facts, neighbours};
use super::trial::Trial;
use super::words::netfilter;
use super::{Decision, Destination, Explanation, Sender};
use crate::family::TableAddr;
use crate::question::Dialled;

/// What happens to an echo request.
pub fn explain(from: &Sender, to: IpAddr, facts: &Facts) -> Explanation {
    match to {
        IpAddr::V4(addr) => explain_in(from, to, addr.octets(), facts),
        IpAddr::V6(addr) => explain_in(from, to, addr.octets(), facts),
    }
}

fn explain_in<A: TableAddr>(from: &Sender, to: IpAddr, addr: A, facts: &Facts) -> Explanation {
    // The port is not looked at.
    let asked = Destination { addr: to, port: 0, proto: Proto::TCP };
    let trial = Trial::new(from, &asked, addr, (&facts.tables, facts.address_words), &facts.ways);
    let client = from.addr().and_then(A::from_ip).unwrap_or_else(A::new_zeroed);
    let (decision, sentence) = if trial.passes_echo(client) {
        let sentence = "an echo request belongs to no Service: the programs leave it alone, and this node's stack has it (of \
             ICMP they translate only errors about connections that they know)";
        (Decision::NotOurs, sentence)
    } else {
        (
            Decision::Drop,
            "the programs do not let the echo request pass unchanged: this is not expected, please report it",
        )
    };
    let served = neighbours(addr, &facts.tables);
    let note = (!served.is_empty()).then(|| {
        format!("whether it is answered tells nothing of the Services there: ask for a port ({})", served.join(", "))
    });
    Explanation {
        from: from.to_string(),
        to: Dialled::Echo(to).to_string(),
        decision,
        sentence: sentence.into(),
        netfilter: netfilter(from, decision, &super::trial::Outcomes::<A>::default()),
        notes: note.into_iter().collect(),
        ..Explanation::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::Tables;
    use std::sync::Arc;

    #[test]
    fn an_echo_request_passes_in_both_families() {
        let facts = Facts { tables: Arc::new(Tables::default().derived(1)), address_words: 1, ..Facts::default() };
        for (from, to) in [("10.0.0.1", "192.0.2.1"), ("fd00::1", "2001:db8::1")] {
            let to = to.parse().expect("an address");
            for sender in [Sender::Pod(from.parse().ok()), Sender::External(from.parse().ok()), Sender::Host] {
                let explanation = explain(&sender, to, &facts);
                assert_eq!(explanation.decision, Decision::NotOurs, "{sender}");
                assert_eq!(explanation.to, format!("{to}/icmp"));
            }
        }
    }
}
