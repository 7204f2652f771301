//! The HTTP server for probes, metrics and warnings. It reads snapshots; only `/services` and `/known` wait for the
//! loop.
//!
//! Any client that reaches the address may ask, so connections, memory and time are bounded.

mod connections;
mod known;
mod listen;
mod page;
mod scrape;
mod turn;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::ask::Services;
use crate::known::{Asked, Known};
use crate::metrics::{Place, ServiceSeries};
use crate::printable::{printable, printable_json};
use crate::status::Status;
use crate::tail::Tail;
pub use connections::{ConnectionLimits, serve as serve_connections};
pub use listen::{Reach, listen};
use page::Room;
use turn::Turn;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The data that the handlers read.
#[derive(Clone)]
pub struct Sources {
    pub status: watch::Receiver<Arc<Status>>,
    pub registry: Arc<Registry>,
    /// Which Service ports have metrics of their own.
    pub series: Option<Arc<ServiceSeries>>,
    pub questions: mpsc::Sender<Question>,
    pub kept: Kept,
}

/// What the process keeps for reports of faults.
#[derive(Clone, Default)]
pub struct Kept {
    /// The settings, as `run --print-config` prints them.
    pub config: Arc<str>,
    pub tail: Tail,
}

/// A question that only the loop can answer, with the way back.
#[derive(Debug)]
pub enum Question {
    /// The names of Services.
    Services(oneshot::Sender<Services>),
    Known(Asked, oneshot::Sender<Known>),
}

impl Sources {
    fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }

    /// The names of Services; `None` if the loop has ended.
    async fn services(&self) -> Option<Services> {
        let (way_back, answer) = oneshot::channel();
        self.questions.send(Question::Services(way_back)).await.ok()?;
        answer.await.ok()
    }
}

/// The bound addresses.
pub struct Listeners {
    /// `--http`.
    pub all: TcpListener,
    /// Serves `/metrics` and nothing else.
    pub metrics: Option<TcpListener>,
    /// Whether `all` serves `/metrics` as well.
    has_metrics: bool,
}

impl Listeners {
    /// Binds the addresses. An error names the setting. Needs a runtime, but the listeners may be used with any other.
    pub fn bind(http: SocketAddr, metrics: Place) -> anyhow::Result<Self> {
        let all = bind("--http", http)?;
        let (metrics, has_metrics) = match metrics {
            Place::BesideProbes => (None, true),
            Place::At(address) => (Some(bind("--metrics", address)?), true),
            Place::Nowhere => (None, false),
        };
        Ok(Self { all, metrics, has_metrics })
    }
}

/// Serves requests for as long as the future is polled.
pub async fn serve(listeners: Listeners, sources: Sources, limits: ConnectionLimits) -> std::io::Result<()> {
    let Listeners { all, metrics: scraped, has_metrics } = listeners;
    let pages = Pages { sources, room: Room::default(), turn: Turn::default() };
    let only_metrics = || Router::new().route("/metrics", get(metrics));
    let mut router = Router::new()
        .route("/livez", get(livez))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/warnings", get(warnings))
        .route("/services", get(services))
        .route("/known", get(known_page))
        .route("/interfaces", get(interfaces))
        .route("/config", get(config))
        .route("/logs", get(logs))
        .route("/proxyMode", get(proxy_mode));
    if has_metrics {
        router = router.merge(only_metrics());
    }
    let router = router.with_state(pages.clone());
    let probes = connections::serve(tokio::net::TcpListener::from_std(all)?, &router, limits);
    let Some(scraped) = scraped else { return probes.await };
    let router = only_metrics().with_state(pages);
    let scrapes = connections::serve(tokio::net::TcpListener::from_std(scraped)?, &router, limits);
    tokio::try_join!(probes, scrapes).map(drop)
}

fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = listen(address, if address.is_ipv6() { Reach::BothFamilies } else { Reach::OneFamily });
    listener.with_context(|| format!("{setting}: cannot listen at {address}, choose another address or port"))
}

/// The state of the handlers.
#[derive(Clone)]
struct Pages {
    sources: Sources,
    room: Room,
    turn: Turn,
}

async fn livez(State(pages): State<Pages>) -> Response {
    answer(pages.sources.status().live(Instant::now()))
}

async fn healthz(State(pages): State<Pages>) -> Response {
    answer(pages.sources.status().healthy(Instant::now()))
}

async fn readyz(State(pages): State<Pages>) -> Response {
    let status = pages.sources.status();
    match status.ready() {
        // Ready in spite of problems: the last good state keeps forwarding.
        Ok(()) => [String::from("ok")]
            .into_iter()
            .chain(status.troubles())
            .fold(String::new(), |text, line| text + &printable(&line) + "\n")
            .into_response(),
        not_ready => answer(not_ready),
    }
}

async fn warnings(State(pages): State<Pages>) -> Response {
    let _work = pages.turn.work().await;
    json(&pages.room, &*pages.sources.status().warnings)
}

async fn interfaces(State(pages): State<Pages>) -> Response {
    let _work = pages.turn.work().await;
    json(&pages.room, &*pages.sources.status().judgements)
}

async fn services(State(pages): State<Pages>) -> Response {
    let _work = pages.turn.work().await;
    match pages.sources.services().await {
        Some(services) => json(&pages.room, &services),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n").into_response(),
    }
}

async fn config(State(pages): State<Pages>) -> Response {
    pages.room.page(TEXT, pages.sources.kept.config.as_bytes().to_vec())
}

async fn logs(State(pages): State<Pages>) -> Response {
    let _work = pages.turn.work().await;
    pages.room.page(TEXT, pages.sources.kept.tail.text().into_bytes())
}

/// Whose an address is, and what Services name: one bounded answer for one question.
async fn known_page(State(pages): State<Pages>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let Some(asked) = known::parse(&query) else { return (StatusCode::BAD_REQUEST, known::USAGE).into_response() };
    let _work = pages.turn.work().await;
    let (way_back, answer) = oneshot::channel();
    answered(&pages, Question::Known(asked, way_back), answer).await
}

/// The loop's answer to a question.
async fn answered<T: Serialize>(pages: &Pages, question: Question, answer: oneshot::Receiver<T>) -> Response {
    let sent = pages.sources.questions.send(question).await;
    match (sent, answer.await) {
        (Ok(()), Ok(answer)) => json(&pages.room, &answer),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n").into_response(),
    }
}

async fn metrics(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let _work = pages.turn.work().await;
    // Only the series of Services wait for the loop, which knows their names.
    let names = match &pages.sources.series {
        Some(_) => pages.sources.services().await.map(|services| services.names),
        None => None,
    };
    let series = pages.sources.series.as_ref().zip(names).map(|(series, names)| series.registry(names));
    let registries: Vec<&Registry> = [&*pages.sources.registry].into_iter().chain(&series).collect();
    scrape::page(&registries, &headers, &pages.room)
}

/// What kube-proxy answers on its port for metrics, with the name of its back end.
async fn proxy_mode() -> Response {
    ([(header::X_CONTENT_TYPE_OPTIONS, "nosniff")], "lb-agent").into_response()
}

fn json<T: Serialize + ?Sized>(room: &Room, value: &T) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => room.page(JSON, printable_json(text).into_bytes()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// `ok`, or 503 with the reason.
fn answer(outcome: Result<(), String>) -> Response {
    match outcome {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::Judgements;
    use crate::known::Target;
    use crate::model::{Warning, WarningKind};
    use crate::status::Readiness;

    struct Server {
        url: String,
        metrics: Option<String>,
        questions: mpsc::Receiver<Question>,
        status: watch::Sender<Arc<Status>>,
        _runtime: tokio::runtime::Runtime,
    }

    fn server() -> Server {
        server_with(|_| Place::BesideProbes)
    }

    fn server_with(place: fn(SocketAddr) -> Place) -> Server {
        let (status, receiver) = watch::channel(Arc::new(Status::starting(Instant::now())));
        let (sender, questions) = mpsc::channel(1);
        let kept = Kept { config: "udp-secs: 7\n".into(), tail: Tail::default() };
        kept.tail.keep(b"INFO ready\n");
        let sources = Sources {
            status: receiver,
            registry: Arc::new(Registry::default()),
            series: None,
            questions: sender,
            kept,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let any = ([127, 0, 0, 1], 0).into();
        let listeners = runtime.block_on(async { Listeners::bind(any, place(any)) }).expect("free ports");
        let url_of = |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("an address"));
        let (url, metrics) = (url_of(&listeners.all), listeners.metrics.as_ref().map(url_of));
        runtime.spawn(serve(listeners, sources, ConnectionLimits::within(1024)));
        Server { url, metrics, questions, status, _runtime: runtime }
    }

    fn get(server: &Server, path: &str) -> (u16, String) {
        get_at(&server.url, path)
    }

    fn get_at(url: &str, path: &str) -> (u16, String) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
        let mut response = agent.get(format!("{url}{path}")).call().expect("an answer");
        (response.status().as_u16(), response.body_mut().read_to_string().expect("text"))
    }

    #[test]
    fn not_ready_until_ready() {
        let server = server();
        let (code, reason) = get(&server, "/readyz");
        assert_eq!((code, reason.as_str()), (503, "waiting for the first list of the source\n"));
        assert_eq!(get(&server, "/livez"), (200, "ok\n".into()));
        server.status.send_modify(|status| Arc::make_mut(status).readiness = Readiness::Ready);
        assert_eq!(get(&server, "/readyz"), (200, "ok\n".into()));
        assert_eq!(get(&server, "/healthz"), (200, "ok\n".into()));
    }

    #[test]
    fn ready_says_what_is_full_and_what_waits() {
        let server = server();
        let warning = Warning::new(WarningKind::Capacity, "does not fit", "raise the limit").of("Service a/b");
        let other = Warning::new(WarningKind::BadField, "is wrong", "write it right").of("Service a/c");
        server.status.send_modify(|status| {
            let status = Arc::make_mut(status);
            status.readiness = Readiness::Ready;
            status.warnings = Arc::new(vec![warning, other]);
            let reason = "table pools4 is full".to_owned();
            status.behind = Some(crate::status::Behind { since: Instant::now(), rows: 3, reason });
        });
        let (code, text) = get(&server, "/readyz");
        let lines: Vec<&str> = text.lines().collect();
        let wanted =
            ["ok", "3 rows are not written: table pools4 is full", "Service a/b: does not fit; raise the limit"];
        assert_eq!((code, lines.as_slice()), (200, wanted.as_slice()));
    }

    #[test]
    fn warnings_and_metrics() {
        let server = server();
        let warning = Warning::new(WarningKind::BadField, "is wrong", "write it right").of("Service a/b");
        server.status.send_modify(|status| Arc::make_mut(status).warnings = Arc::new(vec![warning.clone()]));
        let (code, body) = get(&server, "/warnings");
        assert_eq!((code, serde_json::from_str::<Vec<Warning>>(&body).expect("JSON")), (200, vec![warning]));
        assert_eq!(get(&server, "/metrics"), (200, String::new()));
        assert_eq!(get(&server, "/proxyMode"), (200, "lb-agent".into()));
        assert_eq!(get(&server, "/config"), (200, "udp-secs: 7\n".into()));
        assert_eq!(get(&server, "/logs"), (200, "INFO ready\n".into()));
        assert_eq!(get(&server, "/nothing").0, 404);
    }

    #[test]
    fn the_address_of_metrics_serves_nothing_else() {
        let server = server_with(Place::At);
        let metrics = server.metrics.as_deref().expect("it has an address");
        assert_eq!((get_at(metrics, "/metrics").0, get(&server, "/metrics").0), (200, 200));
        for path in ["/", "/livez", "/readyz", "/warnings", "/services", "/interfaces"] {
            assert_eq!(get_at(metrics, path).0, 404, "{path}");
        }
        let silent = server_with(|_| Place::Nowhere);
        assert_eq!((get(&silent, "/metrics").0, get(&silent, "/livez").0, silent.metrics.is_some()), (404, 200, false));
    }

    #[test]
    fn metrics_come_in_the_format_that_is_asked_for() {
        let server = server();
        let ask = |accept: &str| {
            let response = ureq::get(format!("{}/metrics", server.url)).header("accept", accept).call();
            let mut response = response.expect("an answer");
            let kind = response.headers()["content-type"].to_str().expect("text").to_owned();
            (kind, response.body_mut().read_to_string().expect("text"))
        };
        assert_eq!(ask("application/openmetrics-text"), (crate::metrics::OPENMETRICS.into(), "# EOF\n".into()));
        assert_eq!(ask("*/*"), (crate::metrics::CLASSIC.into(), String::new()));
    }

    #[test]
    fn services_are_asked_for() {
        let mut server = server();
        let services = Services {
            pin_path: "/p".into(),
            names: [(7, "shop/web:http".to_owned())].into(),
            deciding_keys: [(7, "example.com/proxy".to_owned())].into(),
        };
        let answer = std::thread::scope(|scope| {
            let url = server.url.clone();
            let asking = scope.spawn(move || crate::ask::services(address(&url), "/p".as_ref()));
            let question = server.questions.blocking_recv().expect("a question");
            let Question::Services(way_back) = question else { panic!("another question: {question:?}") };
            way_back.send(services.clone()).expect("somebody waits");
            asking.join().expect("the client ends")
        });
        assert_eq!(answer, services);
        // The loop has ended.
        let Server { url, questions, .. } = &mut server;
        questions.close();
        assert_eq!(crate::ask::services(address(url), "/p".as_ref()), Services::default());
    }

    #[test]
    fn what_is_known_is_asked_for_and_nonsense_is_not() {
        let mut server = server();
        let known = Known { pin_path: "/p".into(), node: "n1".into(), ..Known::default() };
        let (client, at) = ("10.0.0.1".parse().expect("an address"), "192.0.2.1".parse().expect("an address"));
        let wanted = Asked { client: Some(client), target: Some(Target::Address(at, Some(80))) };
        let answer = std::thread::scope(|scope| {
            let (url, wanted) = (server.url.clone(), &wanted);
            let asking = scope.spawn(move || crate::ask::known(address(&url), "/p".as_ref(), wanted));
            let question = server.questions.blocking_recv().expect("a question");
            let Question::Known(asked, way_back) = question else { panic!("another question: {question:?}") };
            assert_eq!(asked, *wanted);
            way_back.send(known.clone()).expect("somebody waits");
            asking.join().expect("the client ends")
        });
        assert_eq!(answer, Some(known));
        for query in
            ["?client=x", "?address=1", "?service=web", "?service=/web", "?address=10.0.0.1&port=65536", "?x=1"]
        {
            let (code, text) = get(&server, &format!("/known{query}"));
            assert_eq!(code, 400, "{query}: {text}");
            assert!(text.contains("service=NAMESPACE/NAME"), "{query}: {text}");
        }
    }

    #[test]
    fn judgements_are_told_to_whoever_asks_for_these_pins() {
        let server = server();
        let judgements = Judgements {
            pin_path: "/p".into(),
            why: [(3, "the loopback".to_owned())].into(),
            refused: vec!["wg0: it has none".into()],
            left_to_tc: [(4, "a port of br0".to_owned())].into(),
        };
        server.status.send_modify(|status| Arc::make_mut(status).judgements = Arc::new(judgements.clone()));
        let ask = |path: &str| crate::ask::judgements(address(&server.url), path.as_ref());
        assert_eq!((ask("/p"), ask("/q")), (Some(judgements), None));
    }

    fn address(url: &str) -> std::net::SocketAddr {
        url.trim_start_matches("http://").parse().expect("an address")
    }

    #[test]
    fn taken_port_is_named() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("an address");
        let error =
            format!("{:#}", runtime.block_on(async { bind("--http", address) }).expect_err("the port is taken"));
        assert!(error.contains("--http") && error.contains(&address.to_string()), "{error}");
    }
}
