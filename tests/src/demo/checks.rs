//! The checks of several acts: curl's result, haproxy's count and nginx's log.

use std::net::IpAddr;
use std::time::Duration;

use super::Step;
use super::report::{Check, Report};
use super::stage::Shop;
use crate::deadline;
use crate::haproxy::Haproxy;
use crate::nginx::Request;
use crate::process::Finished;

/// The time limit for the effect of a status edit, which takes milliseconds.
pub const EDIT_LIMIT: Duration = Duration::from_secs(3);

/// Checks that curl got an answer.
pub fn succeeds(report: &mut Report, step: Step, at: &'static str, curl: &Finished, shop: &Shop) {
    let expected = format!("{} succeeds", shop.at());
    report.check(step, &Check { at, expected, happened: told(curl), holds: curl.code == Some(0) });
}

/// Checks haproxy's count since `before`.
pub fn counted(haproxy: &Haproxy, report: &mut Report, step: Step, shop: &Shop, before: u64, wanted: u64) {
    let count = haproxy.connections(shop.name) - before;
    let plural = |count| if count == 1 { "1 connection".to_owned() } else { format!("{count} connections") };
    report.check(
        step,
        &Check { at: "haproxy counted", expected: plural(wanted), happened: plural(count), holds: count == wanted },
    );
}

/// Checks the one request among those that nginx logged lately: its peer, and the client that a PROXY header announced.
pub fn logged(
    report: &mut Report,
    step: Step,
    lately: impl Fn() -> Vec<Request>,
    (peer, announced): (IpAddr, Option<IpAddr>),
) {
    let describe = |peer, announced: Option<_>| match announced {
        Some(client) => format!("client {client}, announced by {peer}"),
        None => format!("client {peer}"),
    };
    // nginx writes its log after it has answered.
    let requests = || lately().into_iter().filter(|request| request.path == "/");
    let found = deadline::within(EDIT_LIMIT, || requests().next());
    let is_it = |request: &Request| request.peer == peer && request.announced == announced;
    report.check(
        step,
        &Check {
            at: "nginx logged",
            expected: describe(peer, announced),
            happened: found.as_ref().map_or("nothing".into(), |request| describe(request.peer, request.announced)),
            holds: found.as_ref().is_some_and(is_it) && requests().count() == 1,
        },
    );
}

/// curl's result in one line.
pub fn told(curl: &Finished) -> String {
    let said = if curl.code == Some(0) { &curl.stdout } else { &curl.stderr };
    format!("exit code {}: {}", code(curl), said.lines().next().unwrap_or_default())
}

pub fn code(finished: &Finished) -> String {
    finished.code.map_or_else(|| "none".into(), |code| code.to_string())
}
