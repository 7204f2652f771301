//! Probes whose outcome `explain` predicts first.

use std::net::{IpAddr, SocketAddr};

use lb_common::addr::Proto;
use serde_json::Value;

use super::{BALANCER, Scene};
use crate::address::family;
use crate::dial::{Dial, Outcome};

/// The usual pods, by the names with which they answer.
const PODS: [&str; 3] = ["client", "a", "b"];

impl Scene {
    /// Asks `explain` about a connection, then dials it from a pod, by TCP or UDP. Panics if the outcome differs.
    #[track_caller]
    pub fn probe(&self, pod: &str, proto: Proto, to: SocketAddr) -> Outcome {
        let client = self.lab.pod_address(pod, family(to.ip())).to_string();
        let question = format!("{to}/{}", proto.name());
        let said = self.agent.says(&["explain", "--from", &client, "--to", &question, "-o", "json"]);
        let explanation: Value = serde_json::from_str(&said).expect("an object");
        let decision = explanation["decision"].as_str().expect("a word");
        let dial = Dial::from(&self.lab.pod(pod).netns);
        let dial = if decision == "reject" { dial.patient() } else { dial };
        let outcome = if proto == Proto::UDP { dial.udp(to) } else { dial.tcp(to) };
        let holds = match decision {
            "balance" => self.is_backend(&explanation["backends"], outcome.who(), to.ip()),
            "reject" => outcome == Outcome::Refused,
            "drop" => outcome == Outcome::Silence,
            "pass" | "not-ours" => outcome.who().is_none_or(|who| who == BALANCER),
            other => panic!("{other} is no decision: {explanation}"),
        };
        assert!(holds, "{pod} dials {question}: {outcome:?}, but explain says {said}");
        outcome
    }

    /// Whether the server that answered is among the backends of an explanation.
    fn is_backend(&self, backends: &Value, who: Option<&str>, like: IpAddr) -> bool {
        let Some(pod) = PODS.into_iter().find(|pod| who == Some(pod)) else { return false };
        let addr = self.lab.pod_address(pod, family(like));
        let backends = backends.as_array().expect("a list").iter().filter_map(|backend| backend.as_str()?.parse().ok());
        backends.map(|backend: SocketAddr| backend.ip()).any(|backend| backend == addr)
    }
}
