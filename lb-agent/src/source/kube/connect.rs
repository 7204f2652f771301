//! Clients of the API server: from a kubeconfig, or from what a pod is given. Read again for each new client, so that
//! renewed credentials are found.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Patience with the TCP and TLS handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Who makes clients of the API server.
pub trait Connect {
    /// A new client.
    fn client(&self) -> impl Future<Output = Result<Client, Error>> + Send;
}

/// Where the API server is, and who we are.
#[derive(Clone, Debug)]
pub struct Connector {
    kubeconfig: Option<PathBuf>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--kubeconfig {path}: {problem}; name a readable kubeconfig with a current context")]
    Kubeconfig { path: String, problem: String },
    #[error("no --kubeconfig is given, and this is no pod with a service account ({problem}); give --kubeconfig PATH")]
    InCluster { problem: String },
    #[error("the credentials make no client: {problem}; correct certificates, keys and tokens of the configuration")]
    Client { problem: String },
}

impl Connector {
    /// From this kubeconfig; from the pod's service account where there is none.
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
    /// Of the configuration as it is now.
    async fn client(&self) -> Result<Client, Error> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // It would try again for half a minute before anybody is told that it was refused; we do both.
        config.default_retry = false;
        Client::try_from(config).map_err(|error| Error::Client { problem: with_causes(&error) })
    }
}

/// The error and what it comes from, each cause that says something new.
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
