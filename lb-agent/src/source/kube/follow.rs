//! Follows one kind: lists it page by page, watches from there, and lists again if the server has forgotten our
//! position.
//!
//! The reported objects are kept while the server is unreachable.

use std::future::ready;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use kube::Client;
use kube::core::params::{ListParams, WatchParams};
use kube::core::{ListMeta, Request};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::answer;
use super::backoff::{Backoff, fraction};
use super::connect::Connect;
use super::failure::Failure;
use super::pace::Pace;
use super::read::{Event, Told};
use super::resource::Resource;
use super::shared::Shared;
use super::tracker::{Relist, Tracker};
use super::version::Version;
use crate::model::{Change, Kind};

/// The most events that are taken at once.
const EVENTS_MAX: usize = 512;
/// A watch that ends sooner without an event has failed.
const WATCH_MIN: Duration = Duration::from_secs(1);
/// Extra time for the server to end a watch by itself.
const WATCH_MARGIN: Duration = Duration::from_secs(5);
/// After this many consecutive failures of watches, a list follows.
const WATCH_FAILURES_MAX: u32 = 4;
/// The longest time for a list. The server forgets the version of the first page before that.
const LIST_MAX: Duration = Duration::from_mins(15);
/// The most objects of a list: three times the pods of the largest clusters.
const OBJECTS_MAX: usize = 1 << 19;
/// If a page was too long, the page size is divided by this.
const PAGE_CUT: u32 = 4;
/// How often a list older than our position is refused. After that the history did go back: etcd was restored from a
/// backup.
const OUTDATED_MAX: u32 = 6;

/// Follows one kind.
pub struct Follower<'a, C> {
    resource: Resource,
    pace: Pace,
    connector: &'a C,
    shared: &'a Shared,
    sender: &'a mpsc::Sender<Vec<Change>>,
    client: Option<Client>,
    tracker: Tracker,
    backoff: Backoff,
    /// The resource version that we have reached; `None` before the first list is complete.
    position: Option<Version>,
    /// Consecutive lists that were older than the position.
    outdated: u32,
    /// Whether the log says that the API cannot be watched.
    is_outage_told: bool,
    /// Objects per page: fewer after a page that was too long, more again after each page that was not.
    page_size: u32,
}

/// A page of a list. Objects are read one by one, so a bad object affects only itself.
#[derive(serde::Deserialize)]
struct Page<'a> {
    #[serde(default)]
    metadata: ListMeta,
    /// Some servers write an empty list as null.
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    List,
    Watch,
}

impl<'a, C: Connect> Follower<'a, C> {
    pub fn new(
        resource: Resource,
        pace: Pace,
        connector: &'a C,
        shared: &'a Shared,
        sender: &'a mpsc::Sender<Vec<Change>>,
    ) -> Self {
        Self {
            tracker: Tracker::new(resource.kind),
            backoff: Backoff::new(pace.retry_min, pace.retry_max),
            page_size: pace.page_size,
            resource,
            pace,
            connector,
            shared,
            sender,
            client: None,
            position: None,
            outdated: 0,
            is_outage_told: false,
        }
    }

    /// Runs until the receiver is closed.
    pub async fn follow(mut self) {
        let mut next = Next::List;
        let mut watch_failures = 0;
        loop {
            let result = match next {
                Next::List => match timeout(LIST_MAX, self.list()).await {
                    Ok(result) => result,
                    Err(_) => Err(Failure::Broken(format!("the list has no end after {LIST_MAX:?}"))),
                },
                Next::Watch => self.watch().await,
            };
            let failure = match result {
                Ok(()) => {
                    watch_failures = if next == Next::Watch { 0 } else { watch_failures };
                    next = Next::Watch;
                    continue;
                }
                Err(Failure::Closed) => return,
                Err(failure) if self.stop_selecting(&failure) => continue,
                Err(failure) => failure,
            };
            watch_failures += u32::from(next == Next::Watch);
            if matches!(failure, Failure::Expired(_)) || watch_failures >= WATCH_FAILURES_MAX {
                next = Next::List;
                watch_failures = 0;
            }
            self.wait_after(&failure).await;
        }
    }

    /// Lists everything and reports the differences.
    async fn list(&mut self) -> Result<(), Failure> {
        let is_first = self.position.is_none();
        let mut relist = Relist::default();
        let mut parameters = ListParams {
            label_selector: self.resource.labels.clone(),
            field_selector: self.resource.fields.clone(),
            ..ListParams::default()
        };
        let version = loop {
            parameters.limit = Some(self.page_size);
            let bytes = match self.page(&parameters).await {
                Err(Failure::TooLong(_)) if self.page_size > 1 => {
                    self.page_size = (self.page_size / PAGE_CUT).max(1);
                    continue;
                }
                bytes => bytes?,
            };
            let Page { metadata, items } = serde_json::from_slice(&bytes).map_err(|error| Failure::of_error(&error))?;
            let version = Version::new(metadata.resource_version);
            self.refuse_outdated(version.as_ref())?;
            for raw in items.unwrap_or_default() {
                if let Some(told) = self.shared.read(self.resource.kind, raw) {
                    relist.take(told, &self.tracker);
                }
            }
            drop(bytes);
            self.page_size = self.page_size.saturating_mul(2).min(self.pace.page_size);
            if is_first {
                let changes = relist.flush(&mut self.tracker);
                self.send(changes).await?;
            }
            if relist.len() > OBJECTS_MAX {
                return Err(Failure::Refused(format!("the list has more than {OBJECTS_MAX} objects")));
            }
            match metadata.continue_.filter(|token| !token.is_empty()) {
                token if token.is_some() && token == parameters.continue_token => {
                    return Err(Failure::Refused("the list does not end: a page continues with itself".into()));
                }
                Some(token) => parameters.continue_token = Some(token),
                None => break version,
            }
        };
        let Some(version) = version else {
            return Err(Failure::Refused("the list has no metadata.resourceVersion, so it cannot be watched".into()));
        };
        let changes = relist.finish(&mut self.tracker);
        self.send(changes).await?;
        tracing::info!(
            kind = self.resource.kind.name(),
            objects = self.tracker.len(),
            version = version.as_str(),
            "listed"
        );
        self.position = Some(version);
        self.is_outage_told = false;
        if self.shared.listed(self.resource.kind) {
            self.send(vec![Change::Listed]).await?;
        }
        Ok(())
    }

    async fn page(&mut self, parameters: &ListParams) -> Result<Vec<u8>, Failure> {
        let request = Request::new(self.resource.path).list(parameters).map_err(kube::Error::BuildRequest)?;
        let client = self.client().await?;
        match timeout(self.pace.patience, answer::whole(&client, request)).await {
            Ok(page) => page,
            Err(_) => Err(Failure::Broken(format!("no answer to a list within {:?}", self.pace.patience))),
        }
    }

    /// Refuses a list from a server that lags behind: it would remove objects that were added since.
    fn refuse_outdated(&mut self, version: Option<&Version>) -> Result<(), Failure> {
        let (Some(version), Some(position)) = (version, &self.position) else { return Ok(()) };
        if version < position && self.outdated < OUTDATED_MAX {
            self.outdated += 1;
            let (old, known) = (version.as_str(), position.as_str());
            return Err(Failure::Refused(format!(
                "the list has version {old}, older than version {known}, which was read before"
            )));
        }
        self.outdated = 0;
        Ok(())
    }

    /// Watches from the position until the server ends the watch.
    async fn watch(&mut self) -> Result<(), Failure> {
        let Some(position) = self.position.clone() else { return Ok(()) };
        let duration = self.pace.watch.mul_f64(1.0 + fraction() / 2.0);
        let parameters = WatchParams {
            label_selector: self.resource.labels.clone(),
            field_selector: self.resource.fields.clone(),
            timeout: Some(duration.as_secs().max(1) as u32),
            bookmarks: true,
            send_initial_events: false,
        };
        let request = Request::new(self.resource.path)
            .watch(&parameters, position.as_str())
            .map_err(kube::Error::BuildRequest)?;
        let client = self.client().await?;
        let Ok(lines) = timeout(self.pace.patience, answer::lines(&client, request)).await else {
            return Err(Failure::Broken(format!("no answer to a watch within {:?}", self.pace.patience)));
        };
        let (kind, shared) = (self.resource.kind, self.shared);
        // Lines are converted one by one: a line may be a hundred times as long as what is kept of it.
        let events = lines?.filter_map(|line| {
            ready(match line {
                Ok(line) => read_line(shared, kind, &line),
                Err(failure) => Some(Err(failure)),
            })
        });
        let mut events = pin!(events.ready_chunks(EVENTS_MAX));
        self.shared.watching(self.resource.kind);
        self.is_outage_told = false;
        let (started, mut count) = (Instant::now(), 0);
        let silence_max = duration.max(WATCH_MIN) + WATCH_MARGIN.min(self.pace.watch);
        loop {
            match timeout(silence_max, events.next()).await {
                Err(_) => return Err(Failure::Broken(format!("the watch was silent for {silence_max:?}"))),
                Ok(None) if count == 0 && started.elapsed() < WATCH_MIN => {
                    return Err(Failure::Refused("the watch ended at once".into()));
                }
                Ok(None) if started.elapsed() < WATCH_MIN => {
                    // The events are good, but a watch that always ends this early would be repeated without a pause.
                    sleep(self.backoff.delay()).await;
                    return Ok(());
                }
                Ok(None) => {
                    self.backoff.reset();
                    return Ok(());
                }
                Ok(Some(batch)) => count += self.take_events(batch).await?,
            }
        }
    }

    /// Reports the events up to the first error. Returns the number of good events.
    async fn take_events(&mut self, batch: Vec<Result<Event, Failure>>) -> Result<usize, Failure> {
        let mut changes = Vec::new();
        let mut count = 0;
        let mut failure = None;
        let mut has_news = false;
        for event in batch {
            let is_bookmark = matches!(event, Ok(Event::Position(_)));
            match event.and_then(|event| self.take_event(event, &mut changes)) {
                Ok(()) => {
                    count += 1;
                    has_news |= !is_bookmark;
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        self.send(changes).await?;
        if has_news {
            self.backoff.reset();
        }
        failure.map_or(Ok(count), Err)
    }

    fn take_event(&mut self, event: Event, changes: &mut Vec<Change>) -> Result<(), Failure> {
        match event {
            Event::There(told) => {
                let Told { version, .. } = &told;
                if self.advance(version.clone()) {
                    self.tracker.apply(told, changes);
                }
            }
            Event::Gone(name, version) => {
                if self.advance(version) {
                    self.tracker.remove(&name, changes);
                }
            }
            Event::Position(version) => drop(self.advance(version)),
            Event::Error(status) => return Err(Failure::of_status(&status)),
            Event::Nameless => return Err(Failure::Expired("an event without metadata.name".into())),
        }
        if self.tracker.len() > OBJECTS_MAX {
            return Err(Failure::Refused(format!("there are more than {OBJECTS_MAX} objects")));
        }
        Ok(())
    }

    /// Advances the position to this version. Returns `false` if the version is not newer: the event is a repetition.
    fn advance(&mut self, version: Option<Version>) -> bool {
        let Some(version) = version else { return true };
        let is_old = self.position.as_ref().is_some_and(|position| version <= *position);
        if !is_old {
            self.position = Some(version);
        }
        !is_old
    }

    /// If the API server cannot select by our field (older ones do not know `spec.clusterIP`), requests everything from
    /// now on and filters here. Returns whether the same request is worth another try.
    fn stop_selecting(&mut self, failure: &Failure) -> bool {
        let Failure::Misunderstood(reason) = failure else { return false };
        let field = |fields: &String| fields.split(['!', '=']).next().is_some_and(|field| reason.contains(field));
        if !self.resource.fields.as_ref().is_some_and(field) {
            return false;
        }
        let fields = self.resource.fields.take().unwrap_or_default();
        let kind = self.resource.kind.name();
        tracing::warn!(
            kind,
            fields,
            reason,
            "the API server cannot select by this field: the agent reads all objects and filters them"
        );
        true
    }

    async fn client(&mut self) -> Result<Client, Failure> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client = self.connector.client().await?;
        self.client = Some(client.clone());
        Ok(client)
    }

    async fn send(&self, changes: Vec<Change>) -> Result<(), Failure> {
        if changes.is_empty() {
            return Ok(());
        }
        self.sender.send(changes).await.map_err(|_| Failure::Closed)
    }

    async fn wait_after(&mut self, failure: &Failure) {
        if matches!(failure, Failure::Broken(_)) {
            self.client = None;
        }
        let delay = self.backoff.delay().max(failure.pause().min(self.pace.retry_max));
        self.shared.failed(self.resource.kind, failure);
        let (kind, reason) = (self.resource.kind.name(), &*failure.reason());
        // A lost history is no outage: the list that follows has a line of its own.
        if self.is_outage_told || matches!(failure, Failure::Expired(_)) {
            tracing::debug!(kind, ?delay, reason, "cannot watch the API, trying again");
        } else {
            self.is_outage_told = true;
            tracing::warn!(
                kind,
                ?delay,
                reason,
                "cannot watch the API, trying again; the objects known before are kept"
            );
        }
        sleep(delay).await;
    }
}

/// Returns `None` for a line that ends in the middle, because the watch was cut there.
fn read_line(shared: &Shared, kind: Kind, line: &str) -> Option<Result<Event, Failure>> {
    match shared.read_line(kind, line) {
        Ok(event) => Some(Ok(event)),
        Err(error) if error.is_eof() => None,
        Err(error) => Some(Err(Failure::of_error(&error))),
    }
}

#[cfg(test)]
mod tests;
