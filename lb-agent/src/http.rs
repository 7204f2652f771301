//! The HTTP server: probes, metrics and warnings. It reads snapshots and never waits for the loop.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::ask::Services;
use crate::status::Status;

/// The type of the text that [`encode`] writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the handlers read.
#[derive(Clone)]
pub struct Sources {
    pub status: watch::Receiver<Arc<Status>>,
    pub registry: Arc<Registry>,
    pub services: mpsc::Sender<ServicesQuestion>,
}

/// Somebody wants the names of Services, which only the loop knows.
pub type ServicesQuestion = oneshot::Sender<Services>;

impl Sources {
    fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }
}

/// Serves until the process ends.
pub fn serve(listener: TcpListener, sources: Sources) -> impl Future<Output = std::io::Result<()>> {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/warnings", get(warnings))
        .route("/services", get(services))
        .route("/metrics", get(metrics))
        .with_state(sources);
    async move { axum::serve(listener, router).await }
}

/// Takes the address; the error names the setting.
pub async fn bind(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("--http: {address} cannot be listened at, choose another address or port"))
}

async fn livez(State(sources): State<Sources>) -> Response {
    answer(sources.status().live(Instant::now()))
}

async fn healthz(State(sources): State<Sources>) -> Response {
    answer(sources.status().healthy(Instant::now()))
}

async fn readyz(State(sources): State<Sources>) -> Response {
    let status = sources.status();
    match status.ready() {
        // Ready with what it has: the last good state forwards.
        Ok(()) => [String::from("ok")]
            .into_iter()
            .chain(status.troubles())
            .fold(String::new(), |text, line| text + &line + "\n")
            .into_response(),
        not_ready => answer(not_ready),
    }
}

async fn warnings(State(sources): State<Sources>) -> Response {
    Json(&*sources.status().warnings).into_response()
}

async fn services(State(sources): State<Sources>) -> Response {
    let (question, answer) = oneshot::channel();
    let asked = sources.services.send(question).await;
    match (asked, answer.await) {
        (Ok(()), Ok(services)) => Json(services).into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n").into_response(),
    }
}

async fn metrics(State(sources): State<Sources>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &sources.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
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
    use crate::model::{Warning, WarningKind};
    use crate::status::Readiness;

    struct Server {
        url: String,
        questions: mpsc::Receiver<ServicesQuestion>,
        status: watch::Sender<Arc<Status>>,
        _runtime: tokio::runtime::Runtime,
    }

    fn server() -> Server {
        let (status, receiver) = watch::channel(Arc::new(Status::starting(Instant::now())));
        let (services, questions) = mpsc::channel(1);
        let sources = Sources { status: receiver, registry: Arc::new(Registry::default()), services };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(bind(([127, 0, 0, 1], 0).into())).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        runtime.spawn(serve(listener, sources));
        Server { url, questions, status, _runtime: runtime }
    }

    fn get(server: &Server, path: &str) -> (u16, String) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
        let mut response = agent.get(format!("{}{path}", server.url)).call().expect("an answer");
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
        assert_eq!(get(&server, "/metrics"), (200, "# EOF\n".into()));
        assert_eq!(get(&server, "/nothing").0, 404);
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
            question.send(services.clone()).expect("somebody waits");
            asking.join().expect("the client ends")
        });
        assert_eq!(answer, services);
        // The loop has ended.
        let Server { url, questions, .. } = &mut server;
        questions.close();
        assert_eq!(crate::ask::services(address(url), "/p".as_ref()), Services::default());
    }

    fn address(url: &str) -> std::net::SocketAddr {
        url.trim_start_matches("http://").parse().expect("an address")
    }

    #[test]
    fn taken_port_is_named() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("an address");
        let error = format!("{:#}", runtime.block_on(bind(address)).expect_err("the port is taken"));
        assert!(error.contains("--http") && error.contains(&address.to_string()), "{error}");
    }
}
