//! Checks the addresses that the agent listens on: free, or the agent's own.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};

use super::finding::Finding;
use crate::args::{CheckArgs, Healthz};

/// What is at an address.
#[derive(Debug)]
enum Found {
    Free,
    /// The agent listens, which has these settings.
    Ours,
    Taken,
    Impossible(io::Error),
}

/// `running`: the settings of the agent that listens at --http.
pub fn findings(args: &CheckArgs, running: Option<&BTreeMap<String, String>>) -> Vec<Finding> {
    let at = args.http.http;
    let http = if running.is_some() { Found::Ours } else { look(at) };
    let mut findings = vec![finding("http", "--http", at, &http)];
    if let Some(Healthz::At(at)) = args.healthz {
        let is_ours = running.and_then(|running| running.get("healthz")).is_some_and(|ours| *ours == at.to_string());
        let found = if is_ours { Found::Ours } else { look(at) };
        findings.push(finding("healthz", "--healthz", at, &found));
    }
    findings
}

/// Binds the address for a moment.
fn look(at: SocketAddr) -> Found {
    match TcpListener::bind(at) {
        Ok(_) => Found::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Found::Taken,
        Err(error) => Found::Impossible(error),
    }
}

fn finding(check: &'static str, flag: &str, at: SocketAddr, found: &Found) -> Finding {
    match found {
        Found::Free => Finding::ok(check, format!("{at} is free")),
        Found::Ours => Finding::ok(check, format!("the agent listens at {at}")),
        Found::Taken => Finding::fail(
            check,
            format!("another program listens at {at}"),
            format!("stop it (`ss -ltnp` names it), or choose another {flag}"),
        ),
        Found::Impossible(error) => {
            Finding::fail(check, format!("{at} cannot be listened on: {error}"), format!("choose another {flag}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Verdict;

    #[test]
    fn a_port_is_free_or_taken_or_not_ours_to_have() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = taken.local_addr().expect("it is bound");
        let verdict = |at: SocketAddr| finding("http", "--http", at, &look(at));
        let found = verdict(at);
        assert!(found.verdict == Verdict::Fail && found.found.contains(&at.to_string()), "{found:?}");
        drop(taken);
        assert_eq!(verdict(at).verdict, Verdict::Ok);
        assert_eq!(verdict("192.0.2.1:1".parse().expect("an address")).verdict, Verdict::Fail);
        assert_eq!(finding("http", "--http", at, &Found::Ours).verdict, Verdict::Ok);
    }
}
