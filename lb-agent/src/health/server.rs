//! Listens and speaks HTTP. Each listener has its own bound of connections, so that a flood of one port leaves the
//! others alone.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::future::{AbortHandle, abortable};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, watch};

use super::answer::{self, NodeState, Page};
use super::door::{Asked, Checks, Door};
use crate::http::{self, ConnectionLimits, Reach};
use crate::metrics::HealthAnswers;
use crate::status::{Readiness, Status};

/// The keeper's end.
pub struct Listeners {
    checks: watch::Sender<Checks>,
    commands: mpsc::UnboundedSender<Command>,
}

/// The end that answers.
pub struct Server {
    facts: Facts,
    commands: mpsc::UnboundedReceiver<Command>,
    limits: ConnectionLimits,
}

enum Command {
    Serve { listener: TcpListener, at: SocketAddr, asked: Asked },
    Close { at: SocketAddr, asked: Asked },
}

/// What the answers depend on.
#[derive(Clone)]
struct Facts {
    status: watch::Receiver<Arc<Status>>,
    checks: watch::Receiver<Checks>,
    answers: HealthAnswers,
}

/// Both ends. `limits` are those of each listener.
pub fn listeners(
    status: watch::Receiver<Arc<Status>>,
    answers: HealthAnswers,
    limits: ConnectionLimits,
) -> (Listeners, Server) {
    let (checks, receiver) = watch::channel(Checks::default());
    // Commands are few: the keeper sends one for each listener that it opens or closes.
    let (sender, commands) = mpsc::unbounded_channel();
    let facts = Facts { status, checks: receiver, answers };
    (Listeners { checks, commands: sender }, Server { facts, commands, limits })
}

impl Listeners {
    fn send(&self, command: Command) -> io::Result<()> {
        self.commands.send(command).map_err(|_| io::Error::other("the server of health checks has ended"))
    }
}

impl Door for Listeners {
    fn tell(&mut self, checks: Checks) {
        self.checks.send_replace(checks);
    }

    fn open(&mut self, at: SocketAddr, asked: Asked) -> io::Result<()> {
        let reach = match asked {
            Asked::Node => Reach::BothFamilies,
            Asked::Service => Reach::OneFamily,
        };
        let listener = http::listen(at, reach)?;
        self.send(Command::Serve { listener, at, asked })
    }

    fn close(&mut self, at: SocketAddr, asked: Asked) {
        // A server that has ended has closed everything.
        let _ = self.send(Command::Close { at, asked });
    }
}

impl Server {
    /// Serves until the keeper is gone. One task serves all listeners.
    pub async fn serve(mut self) {
        let mut servers = FuturesUnordered::new();
        let mut open = BTreeMap::<(SocketAddr, Asked), AbortHandle>::new();
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    None => return,
                    Some(Command::Serve { listener, at, asked }) => {
                        let (server, abort) = abortable(serve_one(listener, self.facts.router(at, asked), self.limits));
                        servers.push(server);
                        open.insert((at, asked), abort);
                    }
                    Some(Command::Close { at, asked }) => {
                        if let Some(abort) = open.remove(&(at, asked)) {
                            abort.abort();
                        }
                    }
                },
                Some(_closed) = servers.next(), if !servers.is_empty() => {}
            }
        }
    }
}

async fn serve_one(listener: TcpListener, router: Router, limits: ConnectionLimits) {
    let result = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => http::serve_connections(listener, &router, limits).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::error!(%error, "health checks of a listener are not answered");
    }
}

impl Facts {
    fn router(&self, at: SocketAddr, asked: Asked) -> Router {
        match asked {
            Asked::Node => Router::new()
                .route("/healthz", any(|State(facts): State<Self>| async move { facts.of_node(Page::Healthz) }))
                .route("/livez", any(|State(facts): State<Self>| async move { facts.of_node(Page::Livez) }))
                .with_state(self.clone()),
            // Any path and any method, as kube-proxy.
            Asked::Service => Router::new()
                .fallback(move |State(facts): State<Self>| async move { facts.of_service(at) })
                .with_state(self.clone()),
        }
    }

    fn of_node(&self, page: Page) -> Response {
        let status = Arc::clone(&self.status.borrow());
        let state = NodeState {
            is_healthy: status.healthy(Instant::now()).is_ok(),
            // kube-proxy does not ask whether it has written anything yet. A balancer must not send connections to a
            // node that does not serve any.
            is_eligible: status.is_eligible && status.readiness == Readiness::Ready,
            updated: status.in_step,
        };
        let name = match page {
            Page::Healthz => "healthz",
            Page::Livez => "livez",
        };
        self.counted(name, answer::of_node(page, &state, SystemTime::now()).into_response())
    }

    fn counted(&self, page: &'static str, response: Response) -> Response {
        self.answers.count(page, response.status().as_u16());
        response
    }

    fn of_service(&self, at: SocketAddr) -> Response {
        let is_healthy = self.status.borrow().healthy(Instant::now()).is_ok();
        match self.checks.borrow().get(&at) {
            Some(check) => self.counted("service", answer::of_service(check, is_healthy).into_response()),
            // The listener is being closed.
            None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        }
    }
}

#[cfg(test)]
mod tests;
