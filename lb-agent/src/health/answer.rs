//! What is answered: status, headers and text as kube-proxy writes them (`pkg/proxy/healthcheck`).

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;

use crate::desired::HealthCheck;

/// Some balancers give a node with more endpoints more connections.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");
/// The time that Go prints for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200, else 503.
    pub is_well: bool,
    pub weight: Option<usize>,
    pub text: String,
}

/// The state of the node.
#[derive(Clone, Copy, Debug)]
pub struct NodeState {
    /// No writes have been missing for long, and the loop turns.
    pub is_healthy: bool,
    /// The node serves, and its Node is not about to be deleted.
    pub is_eligible: bool,
    /// When the tables were last complete and correct.
    pub updated: Option<SystemTime>,
}

/// Which page of `--healthz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// For balancers: 503 also if the node is not eligible.
    Healthz,
    /// For kubelet: 503 only if a restart may help.
    Livez,
}

/// The answer about a Service. Its names need no quotation: the API server accepts letters, digits, `-` and `.` only.
pub fn of_service(check: &HealthCheck, is_healthy: bool) -> Answer {
    let HealthCheck { service, at: _, local_endpoints } = check;
    let text = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\t\"localEndpoints\": \
         {local_endpoints},\n\t\"serviceProxyHealthy\": {is_healthy}\n}}",
        service.namespace, service.name
    );
    Answer { is_well: *local_endpoints > 0 && is_healthy, weight: Some(*local_endpoints), text }
}

/// The answer about the node.
pub fn of_node(page: Page, state: &NodeState, now: SystemTime) -> Answer {
    let is_well = state.is_healthy && (page == Page::Livez || state.is_eligible);
    let updated = state.updated.map_or_else(|| NEVER.to_owned(), time);
    let family = FamilyHealth { last_updated: updated.clone(), healthy: state.is_healthy };
    // kube-proxy leaves out families that it has never written. We write both together.
    let families = state.updated.into_iter().flat_map(|_| [("IPv4", family.clone()), ("IPv6", family.clone())]);
    let health = NodeHealth {
        // Old clients of kube-proxy expect a recent time from a proxy that is well.
        last_updated: if is_well { time(now) } else { updated },
        current_time: time(now),
        node_eligible: (page == Page::Healthz).then_some(state.is_eligible),
        healthy: state.is_healthy,
        status: families.collect(),
    };
    let text = serde_json::to_string(&health).unwrap_or_else(|error| error.to_string());
    Answer { is_well, weight: None, text }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeHealth {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    status: BTreeMap<&'static str, FamilyHealth>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyHealth {
    last_updated: String,
    healthy: bool,
}

/// RFC 3339, as Go prints it.
fn time(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| NEVER.to_owned(), |time| time.to_string())
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = if self.is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let headers = [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
        let mut response = (status, headers, self.text).into_response();
        if let Some(weight) = self.weight {
            response.headers_mut().insert(WEIGHT, HeaderValue::from(weight));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::model::ObjectName;

    fn check(local_endpoints: usize) -> HealthCheck {
        let service = Arc::new(ObjectName::new("ns1", "svc1"));
        HealthCheck { service, at: ([192, 0, 2, 2], 31000).into(), local_endpoints }
    }

    const EVENING: &str = "2026-11-30T20:15:00.5Z";

    fn evening() -> SystemTime {
        EVENING.parse::<Timestamp>().expect("a time").into()
    }

    const WELL: NodeState = NodeState { is_healthy: true, is_eligible: true, updated: None };

    /// Whether the status is 200, and the text.
    fn asked(page: Page, state: NodeState) -> (bool, Value) {
        let answer = of_node(page, &state, evening());
        assert_eq!(answer.weight, None);
        (answer.is_well, serde_json::from_str(&answer.text).expect("JSON"))
    }

    #[test]
    fn hc_01_hc_02_hc_04_texts_and_weights_are_those_of_kube_proxy() {
        let text = |count, healthy| {
            let text = include_str!("answer/service.json").trim_end();
            text.replace(": 2", &format!(": {count}")).replace("true", healthy)
        };
        let answer = |is_well, count, healthy| Answer { is_well, weight: Some(count), text: text(count, healthy) };
        assert_eq!(of_service(&check(2), true), answer(true, 2, "true"));
        assert_eq!(of_service(&check(0), true), answer(false, 0, "true"));
        // HC-04: the weight stays.
        assert_eq!(of_service(&check(2), false), answer(false, 2, "false"));
    }

    #[test]
    fn headers_are_those_of_kube_proxy() {
        let headers = |answer: Answer| {
            let response = answer.into_response();
            let value = |name| response.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
            let values = ["content-type", "x-content-type-options", "x-load-balancing-endpoint-weight"]
                .map(value)
                .map(Option::unwrap_or_default);
            (response.status().as_u16(), values)
        };
        assert_eq!(headers(of_service(&check(3), true)), (200, ["application/json", "nosniff", "3"].map(String::from)));
        assert_eq!(headers(of_service(&check(0), true)), (503, ["application/json", "nosniff", "0"].map(String::from)));
        let node = of_node(Page::Livez, &WELL, evening());
        assert_eq!(headers(node), (200, ["application/json", "nosniff", ""].map(String::from)));
    }

    #[test]
    fn hz_01_hz_05_a_node_that_is_well_was_updated_just_now() {
        let hours_ago = evening() - Duration::from_hours(5);
        let family = json!({"lastUpdated": "2026-11-30T15:15:00.5Z", "healthy": true});
        let mut wanted = json!({
            "lastUpdated": EVENING, "currentTime": EVENING, "nodeEligible": true, "healthy": true,
            "status": {"IPv4": family, "IPv6": family},
        });
        let state = NodeState { updated: Some(hours_ago), ..WELL };
        assert_eq!(asked(Page::Healthz, state), (true, wanted.clone()));
        wanted.as_object_mut().expect("an object").remove("nodeEligible");
        assert_eq!(asked(Page::Livez, state), (true, wanted));
    }

    #[test]
    fn hz_02_hz_06_a_leaving_node_is_alive_and_not_eligible() {
        let state = NodeState { is_eligible: false, ..WELL };
        let wanted = json!({
            "lastUpdated": NEVER, "currentTime": EVENING, "nodeEligible": false, "healthy": true, "status": {},
        });
        assert_eq!(asked(Page::Healthz, state), (false, wanted));
        let (is_well, text) = asked(Page::Livez, state);
        assert!(is_well && text["lastUpdated"] == EVENING, "{text}");
    }

    #[test]
    fn hz_04_a_late_node_is_neither() {
        let state = NodeState { is_healthy: false, is_eligible: true, updated: Some(SystemTime::UNIX_EPOCH) };
        for page in [Page::Healthz, Page::Livez] {
            let (is_well, text) = asked(page, state);
            assert!(!is_well);
            assert_eq!((&text["healthy"], &text["lastUpdated"]), (&json!(false), &json!("1970-01-01T00:00:00Z")));
            assert_eq!([&text["status"]["IPv4"]["healthy"], &text["status"]["IPv6"]["healthy"]], [&json!(false); 2]);
        }
    }
}
