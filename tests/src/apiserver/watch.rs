//! Watches: one event a line, from a position until the time-out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::stream;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::answer::{self, Parameters, Refusal};
use super::fault::WatchFault;
use super::resource::Resource;
use super::selector::Selector;
use super::store::{Write, with_kind};
use super::{Shared, State};

/// The time-out of a watch that names none; the real server's is between 30 and 60 minutes.
const TIMEOUT: Duration = Duration::from_mins(30);

/// An open watch.
struct Watch {
    shared: Arc<Shared>,
    changed: tokio::sync::watch::Receiver<u64>,
    number: u64,
    resource: Resource,
    selector: Selector,
    position: u64,
    wants_bookmarks: bool,
    repeats: bool,
    /// How many more events it may send.
    events_left: usize,
    end: Instant,
    is_over: bool,
}

/// An event, in the order of its fields on the wire.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    sort: &'static str,
    object: &'a Value,
}

/// The next step of a watch.
enum Next {
    Send(Vec<u8>),
    Last(Vec<u8>),
    Break,
    Wait,
    /// For ever.
    Stall,
}

/// Starts a watch.
pub fn answer(shared: &Arc<Shared>, resource: Resource, query: &Parameters) -> Result<Response, Refusal> {
    let selector = answer::selector(resource, query)?;
    let is_set = |name: &str| query.get(name).is_some_and(|value| value == "1" || value == "true");
    let changed = shared.changed.subscribe();
    let mut state = shared.state();
    state.watches += 1;
    let asked = query.get("resourceVersion").and_then(|version| version.parse().ok());
    let position = asked.unwrap_or(state.store.version());
    let secs = query.get("timeoutSeconds").and_then(|secs| secs.parse().ok());
    let watch = Watch {
        shared: Arc::clone(shared),
        changed,
        number: state.watches,
        resource,
        selector,
        position: if state.faults.duplicates { position.saturating_sub(1) } else { position },
        wants_bookmarks: is_set("allowWatchBookmarks"),
        repeats: state.faults.duplicates,
        events_left: state.faults.watch_events_max.unwrap_or(usize::MAX),
        end: Instant::now() + secs.map_or(TIMEOUT, Duration::from_secs),
        is_over: false,
    };
    let lines = match unsuitable(&state, is_set("sendInitialEvents"), position) {
        Some(status) => Body::from(line("ERROR", &status)),
        None => Body::from_stream(stream::unfold(watch, Watch::next)),
    };
    Ok(answer::with_headers(200, lines))
}

/// The error event of a watch that ends before it begins.
fn unsuitable(state: &State, wants_initial_events: bool, position: u64) -> Option<Value> {
    let (store, compacted) = (&state.store, state.store.compacted());
    if wants_initial_events {
        let message = "a watch stream was requested by the client but the required storage feature \
                       RequestWatchProgress is disabled";
        return Some(answer::status(500, "InternalError", message, None));
    }
    (position < compacted).then(|| expired(position, store.version()))
}

fn expired(position: u64, newest: u64) -> Value {
    answer::status(410, "Expired", &format!("too old resource version: {position} ({newest})"), None)
}

impl Watch {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        loop {
            if self.is_over {
                return None;
            }
            self.changed.mark_unchanged();
            match self.look() {
                Next::Send(bytes) => return Some((Ok(bytes.into()), self)),
                Next::Last(bytes) => {
                    self.is_over = true;
                    return Some((Ok(bytes.into()), self));
                }
                Next::Break => {
                    self.is_over = true;
                    return Some((Err(io::ErrorKind::ConnectionReset.into()), self));
                }
                Next::Stall => std::future::pending::<()>().await,
                Next::Wait => {
                    // Timed out or notified: look again.
                    let _ = tokio::time::timeout_at(self.end, self.changed.changed()).await;
                }
            }
        }
    }

    fn look(&mut self) -> Next {
        let shared = Arc::clone(&self.shared);
        let state = shared.state();
        let fault = state.faults.of_watch(self.number);
        match fault {
            Some(WatchFault::Cut) => return Next::Break,
            Some(WatchFault::Stalled) => return Next::Stall,
            Some(WatchFault::Endless) => return Next::Send(vec![b'{'; answer::ENDLESS_PIECE]),
            Some(WatchFault::Expired) => {
                return Next::Last(line("ERROR", &expired(self.position, state.store.version())));
            }
            Some(WatchFault::Ended) | None => {}
        }
        let mut text = Vec::new();
        for write in state.store.writes(self.resource, self.position) {
            if self.events_left == 0 {
                return Next::Last(text);
            }
            self.position = write.version;
            let Some(event) = self.event(write) else { continue };
            self.events_left -= 1;
            text.extend_from_slice(&event);
            if self.repeats {
                text.extend_from_slice(&event);
            }
        }
        if !text.is_empty() {
            Next::Send(text)
        } else if fault == Some(WatchFault::Ended) || Instant::now() >= self.end {
            self.last(&state)
        } else {
            Next::Wait
        }
    }

    /// The end, with a bookmark if the client wants bookmarks.
    fn last(&self, state: &State) -> Next {
        let version = state.store.version_of(self.resource).max(self.position);
        let bookmark = self.wants_bookmarks.then(|| line("BOOKMARK", &self.resource.bookmark(version)));
        Next::Last(bookmark.unwrap_or_default())
    }

    /// The event that a client sees, given that its selectors may hide the object before or after the write.
    fn event(&self, write: Write) -> Option<Vec<u8>> {
        let seen = |object: Option<Arc<Value>>| object.filter(|object| self.selector.holds_for(self.resource, object));
        let (sort, object) = match (seen(write.before), seen(write.after)) {
            (None, Some(object)) => ("ADDED", with_kind(self.resource, &object)),
            (Some(_), Some(object)) => ("MODIFIED", with_kind(self.resource, &object)),
            (Some(object), None) => {
                let mut object = with_kind(self.resource, &object);
                object["metadata"]["resourceVersion"] = write.version.to_string().into();
                ("DELETED", object)
            }
            (None, None) => return None,
        };
        Some(line(sort, &object))
    }
}

fn line(sort: &'static str, object: &Value) -> Vec<u8> {
    let mut line = serde_json::to_vec(&Event { sort, object }).expect("JSON values print");
    line.push(b'\n');
    line
}
