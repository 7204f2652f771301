//! Warnings: what is wrong with the source's objects. They live in the running agent, which is asked.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;

use crate::model::Warning;

/// How long a local agent may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the agent that listens there.
pub fn read(agent: SocketAddr) -> anyhow::Result<Vec<Warning>> {
    let client = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).proxy(None).build().new_agent();
    let mut response = client.get(format!("http://{agent}/warnings")).call().with_context(|| {
        format!(
            "warnings are known to a running agent only, and none answers at {agent}: start one, or name its --http"
        )
    })?;
    response.body_mut().read_json().with_context(|| format!("what answers at {agent} is not lb-agent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_agent_the_error_says_what_to_do() {
        // Bound and closed again: nobody listens there.
        let free =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let error = format!("{:#}", read(free).expect_err("nobody answers"));
        assert!(error.contains("--http") && error.contains(&free.to_string()), "{error}");
    }
}
