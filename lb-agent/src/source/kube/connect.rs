//! Creates clients of the API server from a kubeconfig or a pod's service account.
//!
//! The configuration is read again for each new client, so renewed credentials are used.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Time-out of the TCP and TLS handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Creates clients of the API server.
pub trait Connect {
    /// Creates a new client.
    fn client(&self) -> impl Future<Output = Result<Client, Error>> + Send;
}

/// The address of the API server, and our credentials.
#[derive(Clone, Debug)]
pub struct Connector {
    kubeconfig: Option<PathBuf>,
}

/// Why no client could be created.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--kubeconfig {path}: {problem}; name a readable kubeconfig with a current context")]
    Kubeconfig { path: String, problem: String },
    #[error(
        "no --kubeconfig is given, and this is not a pod with a service account ({problem}); give --kubeconfig PATH"
    )]
    InCluster { problem: String },
    #[error("the credentials make no client: {problem}; correct certificates, keys and tokens of the configuration")]
    Client { problem: String },
}

impl Connector {
    /// Uses this kubeconfig, or the pod's service account if there is none.
    pub const fn new(kubeconfig: Option<PathBuf>) -> Self {
        Self { kubeconfig }
    }

    async fn config(&self) -> Result<Config, Error> {
        let Some(path) = &self.kubeconfig else {
            return Config::incluster().map_err(|error| Error::InCluster { problem: with_causes(&error) });
        };
        let of = |error: &dyn std::error::Error| Error::Kubeconfig {
            path: path.display().to_string(),
            problem: with_causes(error),
        };
        let kubeconfig = Kubeconfig::read_from(path).map_err(|error| of(&error))?;
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(|error| of(&error))
    }
}

impl Connect for Connector {
    /// A client with the current configuration.
    async fn client(&self) -> Result<Client, Error> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // The library would retry for half a minute before it reports a refusal. We report and retry ourselves.
        config.default_retry = false;
        Client::try_from(config).map_err(|error| Error::Client { problem: with_causes(&error) })
    }
}

/// The error and its causes, without repetitions.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}
