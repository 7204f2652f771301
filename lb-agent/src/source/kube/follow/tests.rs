//! A follower and an in-memory server, with a clock that advances only if all tasks wait: tests when failures are
//! retried, and how events that a server should not send are handled.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use kube::Client;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::model::Kind;
use crate::source::claim::Claim;
use crate::source::connection::Connections;
use crate::source::kube::connect::Error;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(3);
/// The resolution of tokio's timers.
const TICK: Duration = Duration::from_millis(1);

/// The answer of a server to the attempt with this number. The flag says whether it is a watch.
type Answer = fn(usize, bool) -> Response;

/// An attempt: its time, and whether it was a watch.
type Attempt = (Instant, bool);

/// An in-memory server.
struct Memory {
    attempts: UnboundedSender<Attempt>,
    answer: Answer,
    count: Arc<AtomicUsize>,
}

impl Connect for Memory {
    async fn client(&self) -> Result<Client, Error> {
        let (attempts, answer, count) = (self.attempts.clone(), self.answer, Arc::clone(&self.count));
        let routes = Router::new().fallback(move |request: Request| {
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            // The test may have stopped listening.
            let _ = attempts.send((Instant::now(), is_watch));
            let number = count.fetch_add(1, Ordering::SeqCst);
            std::future::ready(answer(number, is_watch))
        });
        Ok(Client::new(routes, "default"))
    }
}

/// Follows a server with these answers until `end` has seen enough attempts and batches.
async fn follow<T>(
    answer: Answer,
    end: impl AsyncFnOnce(UnboundedReceiver<Attempt>, mpsc::Receiver<Vec<Change>>) -> T,
) -> T {
    let (attempts, seen) = unbounded_channel();
    let memory = Memory { attempts, answer, count: Arc::default() };
    let pace = Pace { retry_min: RETRY_MIN, retry_max: RETRY_MAX, ..Pace::default() };
    let resource = Resource { kind: Kind::Node, path: "/api/v1/nodes", labels: None, fields: None };
    let shared = Shared::new(Claim::default(), Connections::starting(&[Kind::Node]));
    let (sender, batches) = mpsc::channel(16);
    tokio::select! {
        () = Follower::new(resource, pace, &memory, &shared, &sender).follow() => panic!("somebody receives"),
        result = end(seen, batches) => result,
    }
}

/// The first attempts of a follower at a server with these answers.
async fn attempts(wanted: usize, answer: Answer) -> Vec<Attempt> {
    follow(answer, async |mut seen, _batches| {
        let mut found = Vec::new();
        while found.len() < wanted {
            found.push(seen.recv().await.expect("the server lives"));
        }
        found
    })
    .await
}

fn refusal(code: u16, details: &str) -> Response {
    let text = format!(
        r#"{{"kind":"Status","status":"Failure","code":{code},"reason":"No","message":"no","details":{{{details}}}}}"#
    );
    (axum::http::StatusCode::from_u16(code).expect("a code"), text).into_response()
}

fn broken() -> Response {
    Response::new(Body::from_stream(stream::iter([Err::<String, _>(io::Error::from(io::ErrorKind::ConnectionReset))])))
}

fn list() -> Response {
    r#"{"metadata":{"resourceVersion":"5"},"items":[]}"#.into_response()
}

const BOOKMARK: &str = "{\"type\":\"BOOKMARK\",\"object\":{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"resourceVersion\":\"6\"}}}\n";

/// A watch that sends this text after a while and ends.
fn watch_of(secs: u64, text: &'static str) -> Response {
    Response::new(Body::from_stream(stream::once(async move {
        tokio::time::sleep(Duration::from_secs(secs)).await;
        Ok::<_, io::Error>(text)
    })))
}

/// An answer with this start and no end.
fn endless(start: &'static str) -> Response {
    let pieces = stream::once(std::future::ready(start.to_owned())).chain(stream::repeat("x".repeat(1 << 16)));
    Response::new(Body::from_stream(pieces.map(Ok::<_, io::Error>)))
}

/// Follows until this many failures. Returns the last reason and the sizes of the requested pages.
async fn reason_after(failures: u64, answer: Answer) -> String {
    let connections = Connections::starting(&[Kind::Node]);
    let (attempts, _seen) = unbounded_channel();
    let memory = Memory { attempts, answer, count: Arc::default() };
    let resource = Resource { kind: Kind::Node, path: "/api/v1/nodes", labels: None, fields: None };
    let shared = Shared::new(Claim::default(), connections.clone());
    let (sender, _batches) = mpsc::channel(16);
    let mut news = connections.subscribe();
    let enough = news.wait_for(|all| all[0].failures >= failures);
    tokio::select! {
        () = Follower::new(resource, Pace::default(), &memory, &shared, &sender).follow() => panic!("the receiver lives"),
        enough = enough => enough.expect("the source lives")[0].last_error.clone().expect("a reason"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_without_end_is_given_up() {
    let reason =
        reason_after(2, |_, _| endless(r#"{"metadata":{"resourceVersion":"5"},"items":[{"metadata":{"name":""#)).await;
    assert!(reason.starts_with("the answer to a list is longer than 16 MiB"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn an_event_without_end_is_given_up() {
    let answer: Answer =
        |_, is_watch| if is_watch { endless(r#"{"type":"ADDED","object":{"metadata":{""#) } else { list() };
    let reason = reason_after(2, answer).await;
    assert!(reason.starts_with("an event of a watch is longer than 16 MiB"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_end_is_told_in_short() {
    let answer: Answer = |_, _| {
        let mut answer = endless("no, ");
        *answer.status_mut() = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
        answer
    };
    let reason = reason_after(2, answer).await;
    assert!(reason.starts_with("the API server answered 500") && reason.len() < 2_000, "{reason}");
}

/// An answer that arrives byte by byte times out.
#[tokio::test(start_paused = true)]
async fn a_list_that_drips_is_given_up() {
    let answer: Answer = |_, _| {
        let drops = stream::repeat(" ").then(async |drop| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, io::Error>(drop)
        });
        Response::new(Body::from_stream(drops))
    };
    assert!(reason_after(1, answer).await.starts_with("no answer to a list within 30s"));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_drips_is_given_up() {
    let answer: Answer = |_, is_watch| {
        let drops = stream::repeat(" ").then(async |drop| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, io::Error>(drop)
        });
        if is_watch { Response::new(Body::from_stream(drops)) } else { list() }
    };
    assert!(reason_after(1, answer).await.starts_with("the watch was silent for"));
}

#[tokio::test(start_paused = true)]
async fn pages_that_lead_to_themselves_are_given_up() {
    let answer: Answer = |_, _| r#"{"metadata":{"resourceVersion":"5","continue":"again"},"items":[]}"#.into_response();
    assert!(reason_after(2, answer).await.contains("a page continues with itself"));
}

/// A server that respects the requested page size and has large valid objects.
#[tokio::test(start_paused = true)]
async fn what_is_too_long_for_a_page_is_read_in_smaller_ones() {
    let resource = Resource { kind: Kind::Node, path: "/api/v1/nodes", labels: None, fields: None };
    let shared = Shared::new(Claim::default(), Connections::starting(&[Kind::Node]));
    let (sender, mut batches) = mpsc::channel::<Vec<Change>>(16);
    let told = async {
        let mut names = 0;
        while names < Large::OBJECTS {
            names += batches.recv().await.expect("the source lives").len();
        }
    };
    tokio::select! {
        () = Follower::new(resource, Pace::default(), &Large, &shared, &sender).follow() => panic!("somebody receives"),
        () = told => {}
    }
}

/// A server with a few objects of 3 MiB.
struct Large;

impl Large {
    const OBJECTS: usize = 10;
}

impl Connect for Large {
    async fn client(&self) -> Result<Client, Error> {
        let routes = Router::new().fallback(|request: Request| {
            let query: std::collections::HashMap<String, String> =
                axum::extract::Query::try_from_uri(request.uri()).expect("a query").0;
            let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
            let from = number("continue").unwrap_or(0);
            let until = Self::OBJECTS.min(from + number("limit").unwrap_or(0));
            let notes = "x".repeat(3 << 20);
            let items: Vec<_> = (from..until)
                .map(|number| serde_json::json!({"metadata": {"name": format!("n{number}"), "annotations": {"a": notes}}}))
                .collect();
            let next = if until < Self::OBJECTS { until.to_string() } else { String::new() };
            let page = serde_json::json!({"metadata": {"resourceVersion": "5", "continue": next}, "items": items});
            std::future::ready(page.to_string().into_response())
        });
        Ok(Client::new(routes, "default"))
    }
}

/// The pauses between attempts, without immediate ones.
fn pauses(attempts: &[Attempt]) -> Vec<Duration> {
    let gaps = attempts.windows(2).map(|pair| pair[1].0 - pair[0].0);
    gaps.filter(|gap| !gap.is_zero()).collect()
}

/// Each pause is about twice the previous one, up to the maximum.
#[track_caller]
fn assert_grow(pauses: &[Duration]) {
    let mut nominal = RETRY_MIN;
    for (number, pause) in pauses.iter().enumerate() {
        let range = nominal / 2..=nominal * 3 / 2 + TICK;
        assert!(range.contains(pause), "pause {number} is {pause:?}, not in {range:?}: {pauses:?}");
        nominal = (nominal * 2).min(RETRY_MAX);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_is_asked_ever_more_rarely() {
    let refusals: [Answer; 6] = [
        |_, _| refusal(403, ""),
        |_, _| refusal(429, ""),
        |_, _| refusal(500, ""),
        |_, _| refusal(503, ""),
        |_, _| refusal(504, ""),
        |_, _| broken(),
    ];
    for answer in refusals {
        let attempts = attempts(12, answer).await;
        let pauses = pauses(&attempts);
        assert_eq!(pauses.len(), 11, "each attempt is waited for: {attempts:?}");
        assert_grow(&pauses);
    }
}

/// Successful lists do not reset the back-off if no watch succeeds.
#[tokio::test(start_paused = true)]
async fn a_server_whose_watches_fail_is_asked_ever_more_rarely() {
    let failures: [Answer; 4] = [
        |_, is_watch| if is_watch { refusal(503, "") } else { list() },
        |_, is_watch| if is_watch { refusal(410, "") } else { list() },
        |_, is_watch| if is_watch { broken() } else { list() },
        |_, is_watch| if is_watch { Response::default() } else { list() },
    ];
    for answer in failures {
        let attempts = attempts(16, answer).await;
        assert_grow(&pauses(&attempts));
        // Only a watch follows its list at once. Everything else comes after a pause.
        let hurried = attempts.windows(2).filter(|pair| pair[1].0 == pair[0].0);
        assert!(hurried.clone().all(|pair| !pair[0].1 && pair[1].1), "{attempts:?}");
    }
}

/// As behind a proxy that allows no long answers: not a failure, but no reason for haste either.
#[tokio::test(start_paused = true)]
async fn watches_that_end_at_once_are_renewed_ever_more_rarely() {
    let attempts = attempts(12, |_, is_watch| if is_watch { watch_of(0, BOOKMARK) } else { list() }).await;
    assert!(attempts[1..].iter().all(|(_, is_watch)| *is_watch), "no list is needed: {attempts:?}");
    let pauses = pauses(&attempts);
    assert_eq!(pauses.len(), 10);
    assert_grow(&pauses);
}

/// A watch that lasted is a success, so the next failure is retried soon.
#[tokio::test(start_paused = true)]
async fn a_success_that_lasted_ends_the_patience() {
    const REFUSED: usize = 8;
    let attempts = attempts(14, |number, is_watch| match number {
        _ if number < REFUSED => refusal(503, ""),
        _ if !is_watch => list(),
        9 => watch_of(2, ""),
        _ => refusal(503, ""),
    })
    .await;
    let (before, after) = attempts.split_at(REFUSED);
    assert_eq!(pauses(before).len(), REFUSED - 1);
    assert_grow(&pauses(before));
    // The list, its watch, the next watch when that ended. From then on watches fail.
    assert_eq!(after.iter().map(|(_, is_watch)| *is_watch).collect::<Vec<_>>(), [false, true, true, true, true, true]);
    assert_eq!(after[2].0 - after[1].0, Duration::from_secs(2), "a watch that ended in time is renewed at once");
    assert_eq!(pauses(&after[2..]).len(), 3);
    assert_grow(&pauses(&after[2..]));
}

/// If a server says when to retry, the follower waits that long, within limits.
#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_patience_gets_it() {
    let soon = attempts(4, |_, _| refusal(429, r#""retryAfterSeconds":2"#)).await;
    let wanted = Duration::from_secs(2);
    assert!(pauses(&soon).iter().all(|pause| (wanted..wanted * 2).contains(pause)), "{soon:?}");
    let never = attempts(4, |_, _| refusal(503, r#""retryAfterSeconds":86400"#)).await;
    assert!(pauses(&never).iter().all(|pause| *pause <= RETRY_MAX + TICK), "{never:?}");
}

/// An event of a Node.
fn event(sort: &str, name: &str, version: u32) -> String {
    format!(
        "{{\"type\":\"{sort}\",\"object\":{{\"kind\":\"Node\",\"apiVersion\":\"v1\",\
         \"metadata\":{{\"name\":\"{name}\",\"resourceVersion\":\"{version}\"}}}}}}\n"
    )
}

/// Old events, as a restored server may send them, remove nothing. Events before an error are reported.
#[tokio::test(start_paused = true)]
async fn only_events_after_the_position_count() {
    let answer: Answer = |number, is_watch| match (number, is_watch) {
        (_, false) => r#"{"metadata":{"resourceVersion":"5"},"items":[{"metadata":{"name":"a"}}]}"#.into_response(),
        (1, true) => {
            let old = [event("DELETED", "a", 3), event("ADDED", "old", 4), event("DELETED", "a", 5)].concat();
            let error = r#"{"type":"ERROR","object":{"status":"Failure","code":500,"reason":"No","message":"no"}}"#;
            [old, event("ADDED", "b", 6), format!("{error}\n")].concat().into_response()
        }
        _ => refusal(503, ""),
    };
    let told = follow(answer, async |mut seen, mut batches| {
        // The list, the watch, and the one after its error: by then everything was reported.
        for _ in 0..3 {
            seen.recv().await.expect("the server lives");
        }
        let mut told = Vec::new();
        while let Ok(batch) = batches.try_recv() {
            told.extend(batch.into_iter().map(|change| match change {
                Change::Apply { object, .. } => object.reference().name.to_string(),
                other => format!("{other:?}"),
            }));
        }
        told
    })
    .await;
    assert_eq!(told, ["a", "Listed", "b"]);
}
