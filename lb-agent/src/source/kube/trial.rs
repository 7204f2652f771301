//! Tries once what the source does all the time: to list and to watch each kind. Reads one object of each at most.

use std::time::Duration;

use kube::Client;
use kube::core::Request;
use kube::core::params::{ListParams, WatchParams};
use tokio::time::timeout;

use super::answer;
use super::connect::{Connect as _, Connector};
use super::failure::Failure;
use super::resource::Resource;
use super::{Error, Settings, resources};
use crate::model::Kind;

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request that failed, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    pub kind: Kind,
    pub verb: &'static str,
    pub reason: String,
}

impl Denied {
    /// Whether a right is missing.
    pub fn is_forbidden(&self) -> bool {
        self.reason.contains("forbidden")
    }
}

/// What the API server does not grant. Fails if there is no usable configuration.
pub async fn denied(settings: &Settings) -> Result<Vec<Denied>, Error> {
    let client = Connector::new(settings.kubeconfig.clone()).client().await?;
    let mut denied = Vec::new();
    for resource in resources(settings) {
        let kind = resource.kind;
        let failed = |verb, failure: Failure| Denied { kind, verb, reason: failure.reason().into_owned() };
        let listed = list(&client, &resource).await.map_err(|failure| failed("list", failure));
        // A right to list says nothing of the right to watch; any other failure would only come again.
        let is_tried = listed.as_ref().err().is_none_or(Denied::is_forbidden);
        denied.extend(listed.err());
        if is_tried {
            denied.extend(watch(&client, &resource).await.map_err(|failure| failed("watch", failure)).err());
        }
    }
    Ok(denied)
}

async fn list(client: &Client, resource: &Resource) -> Result<(), Failure> {
    let parameters = ListParams {
        label_selector: resource.labels.clone(),
        field_selector: resource.fields.clone(),
        limit: Some(1),
        ..ListParams::default()
    };
    let request = Request::new(resource.path).list(&parameters).map_err(kube::Error::BuildRequest)?;
    match timeout(PATIENCE, answer::whole(client, request)).await {
        Ok(page) => page.map(drop),
        Err(_) => Err(Failure::Broken(format!("no answer within {PATIENCE:?}"))),
    }
}

/// The watch is closed as soon as it is granted.
async fn watch(client: &Client, resource: &Resource) -> Result<(), Failure> {
    let parameters = WatchParams {
        label_selector: resource.labels.clone(),
        field_selector: resource.fields.clone(),
        timeout: Some(1),
        ..WatchParams::default()
    };
    let request = Request::new(resource.path).watch(&parameters, "0").map_err(kube::Error::BuildRequest)?;
    match timeout(PATIENCE, answer::lines(client, request)).await {
        Ok(lines) => lines.map(drop),
        Err(_) => Err(Failure::Broken(format!("no answer within {PATIENCE:?}"))),
    }
}
