//! Asks the running agent for data that the pins do not hold: warnings, names of Services, judgements of interfaces.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ureq::http::Response;
use ureq::{Body, BodyWithConfig};

use crate::dataplane::mounts::host_path;
use crate::known::{Asked, Known, Target};
use crate::model::Warning;

/// The longest wait for an answer. The agent may be in the middle of a large apply.
const PATIENCE: Duration = Duration::from_secs(5);
/// Larger than any answer of an agent. Another program may listen at the address.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Names of Service ports (`shop/web:http`), by their ID in the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// The pins that the IDs belong to, as a path on the node.
    pub pin_path: PathBuf,
    pub names: BTreeMap<u32, String>,
    /// The annotation or label that decided the mode, for Service ports with such a decision.
    #[serde(default)]
    pub deciding_keys: BTreeMap<u32, String>,
}

/// The reasons for the classes of interfaces, by interface index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgements {
    /// The pins of the agent that made the judgements.
    pub pin_path: PathBuf,
    pub why: BTreeMap<u32, String>,
    /// Interfaces that are wanted but cannot be attached: `wg0: why`.
    #[serde(default)]
    pub refused: Vec<String>,
    /// Why drivers of uplinks run no program of ours, unless with `--xdp=off`.
    #[serde(default)]
    pub left_to_tc: BTreeMap<u32, String>,
}

/// The warnings of the running agent. Fails if no agent answers.
pub fn warnings(agent: SocketAddr) -> anyhow::Result<Vec<Warning>> {
    get(agent, "warnings").with_context(|| {
        format!(
            "only a running agent knows the warnings, and no agent answers at {agent}: start one, or name its --http"
        )
    })
}

/// The names of Services by ID. Empty if no agent runs on these pins.
pub fn services(agent: SocketAddr, pin_path: &Path) -> Services {
    match get::<Services>(agent, "services") {
        Ok(services) if services.pin_path == host_path(pin_path) => services,
        Ok(_) | Err(_) => Services::default(),
    }
}

/// The agent's judgements of interfaces. `None` if no agent runs on these pins.
pub fn judgements(agent: SocketAddr, pin_path: &Path) -> Option<Judgements> {
    get::<Judgements>(agent, "interfaces").ok().filter(|judgements| judgements.pin_path == pin_path)
}

/// A page as it is, whatever its status.
pub fn page(agent: SocketAddr, page: &str) -> anyhow::Result<String> {
    let answer = request(agent, page, false).with_context(|| format!("no agent answers at {agent}"))?;
    Ok(body(answer).read_to_string()?)
}

/// What the agent knows about addresses and Services. `None` if no agent runs on these pins.
pub fn known(agent: SocketAddr, pin_path: &Path, asked: &Asked) -> Option<Known> {
    let client = asked.client.map(|client| format!("client={client}"));
    let target = asked.target.as_ref().map(|target| match target {
        Target::Address(addr, None) => format!("address={addr}"),
        Target::Address(addr, Some(port)) => format!("address={addr}&port={port}"),
        // Names of objects need no escapes: they are those of the command line, where others are refused.
        Target::Service(name) => format!("service={name}"),
    });
    let query: Vec<String> = client.into_iter().chain(target).collect();
    let known = get::<Known>(agent, &format!("known?{}", query.join("&"))).ok();
    known.filter(|known| known.pin_path == host_path(pin_path))
}

fn get<T: DeserializeOwned>(agent: SocketAddr, page: &str) -> anyhow::Result<T> {
    body(request(agent, page, true)?).read_json().context("the server that answers is not lb-agent")
}

/// `is_strict`: only a page of status 200 is an answer.
fn request(agent: SocketAddr, page: &str, is_strict: bool) -> Result<Response<Body>, ureq::Error> {
    let client =
        ureq::Agent::config_builder().http_status_as_error(is_strict).timeout_global(Some(PATIENCE)).proxy(None);
    client.build().new_agent().get(format!("http://{agent}/{page}")).call()
}

fn body(answer: Response<Body>) -> BodyWithConfig<'static> {
    answer.into_body().into_with_config().limit(ANSWER_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_agent_there_are_no_names_and_an_error_that_says_what_to_do() {
        // Bound and closed again, so no process listens there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let free = listener.local_addr().expect("an address");
        drop(listener);
        let error = format!("{:#}", warnings(free).expect_err("nobody answers"));
        assert!(error.contains("--http") && error.contains(&free.to_string()), "{error}");
        assert_eq!(services(free, Path::new("/x")), Services::default());
        assert_eq!(judgements(free, Path::new("/x")), None);
    }
}
