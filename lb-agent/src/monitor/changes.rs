//! Frontends that come, go or change, found by comparing the tables of two moments.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use lb_common::addr::Proto;
use lb_common::table::{FrontendState, Scope};

use super::names::NameBook;
use crate::dataplane::pins::FrontendNow;
use crate::event::{Event, EventKind};
use crate::render;

/// The frontends at the last look.
pub struct Frontends(BTreeMap<(SocketAddr, Proto), FrontendNow>);

impl Frontends {
    pub fn new(now: Vec<FrontendNow>) -> Self {
        Self(by_address(now))
    }

    /// What has changed since the last look.
    pub fn changed(&mut self, now: Vec<FrontendNow>, names: &NameBook) -> Vec<Event> {
        let before = std::mem::replace(&mut self.0, by_address(now));
        changes(&before, &self.0).into_iter().map(|change| change.event(names)).collect()
    }
}

/// Frontends without those that only wait for their flows to end.
fn by_address(frontends: Vec<FrontendNow>) -> BTreeMap<(SocketAddr, Proto), FrontendNow> {
    let live = frontends.into_iter().filter(|now| now.frontend.state == FrontendState::Active);
    live.map(|now| ((now.address, now.proto), now)).collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    address: SocketAddr,
    proto: Proto,
    service_port: u32,
    reason: &'static str,
    detail: String,
}

impl Change {
    fn event(self, names: &NameBook) -> Event {
        Event {
            time: format!("{:.3}", Timestamp::now()),
            event: EventKind::Change,
            reason: self.reason.to_owned(),
            proto: self.proto.name(),
            client: None,
            address: self.address,
            backend: None,
            service: names.service(self.service_port),
            interface: None,
            bytes: 0,
            detail: Some(self.detail),
        }
    }
}

fn changes(
    before: &BTreeMap<(SocketAddr, Proto), FrontendNow>,
    after: &BTreeMap<(SocketAddr, Proto), FrontendNow>,
) -> Vec<Change> {
    let change = |now: &FrontendNow, reason, detail| Change {
        address: now.address,
        proto: now.proto,
        service_port: now.scopes.service_port,
        reason,
        detail,
    };
    let gone = before.iter().filter(|(key, _)| !after.contains_key(key));
    let mut changes: Vec<_> = gone.map(|(_, now)| change(now, "frontend_removed", mode(now))).collect();
    for (key, now) in after {
        let Some(old) = before.get(key) else {
            changes.push(change(now, "frontend_added", mode(now)));
            continue;
        };
        let modes = [old, now].map(mode);
        let [from, to] = &modes;
        if from != to {
            let rule = render::rule(&now.frontend);
            changes.push(change(now, "mode_changed", format!("{from} -> {to} ({rule})")));
        }
        let actions = |old: Scope, now: Scope, client| {
            let changed = old.action != now.action;
            changed.then(|| format!("{client}: {:?} -> {:?}", old.action, now.action))
        };
        let (was, is) = (&old.scopes, &now.scopes);
        let changed: Vec<_> = [
            actions(was.workload, is.workload, "pods"),
            actions(was.host, is.host, "host"),
            actions(was.external, is.external, "network"),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !changed.is_empty() {
            changes.push(change(now, "clients_changed", changed.join(", ")));
        }
    }
    changes
}

/// The mode; `-` if the address is not a load balancer's.
fn mode(now: &FrontendNow) -> String {
    render::mode(&now.frontend).unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests;
