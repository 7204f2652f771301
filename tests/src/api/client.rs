//! Sequential requests to a server, and its answers unchanged.
//!
//! They run on a thread of the client's own, in the network namespace in which the client was made.

use std::future::Future;
use std::time::Duration;

use axum::http::{HeaderValue, Request, header};
use kube::Config;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::runtime::Runtime;

pub use axum::http::Method;

/// The time limit of an answer: a server that has just started is slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// A user of a server.
pub struct Client {
    runtime: Option<Runtime>,
    client: kube::Client,
}

/// An answer, whether good or an error.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Client {
    /// The user of a kubeconfig.
    #[track_caller]
    pub fn of_kubeconfig(text: &str) -> Self {
        let kubeconfig = Kubeconfig::from_yaml(text).expect("it is a kubeconfig");
        Self::with(async move {
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("the kubeconfig is good")
        })
    }

    /// An anonymous user of a server with plain HTTP.
    #[track_caller]
    pub fn of_url(url: &str) -> Self {
        let url = url.parse().expect("a URL");
        Self::with(async { Config::new(url) })
    }

    #[track_caller]
    fn with(config: impl Future<Output = Config> + Send + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let client =
            on_thread_of(
                &runtime,
                async move { kube::Client::try_from(config.await).expect("the certificates are good") },
            );
        Self { runtime: Some(runtime), client }
    }

    /// Sends a request. `Err` if no answer arrives.
    pub fn ask(&self, method: &Method, path: &str, body: Option<(&str, &Value)>) -> Result<Answer, String> {
        let mut request =
            Request::new(body.map_or_else(Body::empty, |(_, value)| Body::from(value.to_string().into_bytes())));
        *request.method_mut() = method.clone();
        *request.uri_mut() = path.parse().expect("a path of the API");
        if let Some((sort, _)) = body {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_str(sort).expect("a media type"));
        }
        let client = self.client.clone();
        let answer = async move { answer(&client, request).await.map_err(|error| error.to_string()) };
        let runtime = self.runtime.as_ref().expect("it lives as long as the client");
        on_thread_of(runtime, async move {
            tokio::time::timeout(PATIENCE, answer).await.map_err(|error| error.to_string())?
        })
    }

    /// Gets the object at a path.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.ask(&Method::GET, path, None).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Sends a value as JSON.
    #[track_caller]
    pub fn send(&self, method: &Method, path: &str, value: &Value) -> Answer {
        let answer = self.ask(method, path, Some(("application/json", value)));
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Answer {
    pub const fn is_good(&self) -> bool {
        self.status / 100 == 2
    }

    /// The body of an answer, which must be good.
    #[track_caller]
    pub fn good(&self) -> Value {
        assert!(self.is_good(), "{}: {}", self.status, self.body);
        self.json()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

async fn answer(client: &kube::Client, request: Request<Body>) -> Result<Answer, kube::Error> {
    let response = client.send(request).await?;
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let status = response.status().as_u16();
    let body = response.into_body().collect_bytes().await?;
    Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

/// The result of a task that runs on the runtime's own thread.
fn on_thread_of<T: Send + 'static>(runtime: &Runtime, task: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, result) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        // The caller waits for the result below.
        let _ = sender.send(task.await);
    });
    result.recv().expect("the task does not panic")
}
