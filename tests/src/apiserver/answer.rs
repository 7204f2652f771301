//! Answers to requests: authentication, lists with their pages, and refusals in the server's words.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use futures::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::{Value, json};

use super::continuation::Continuation;
use super::resource::Resource;
use super::selector::Selector;
use super::{Asked, Shared, State, watch};

/// Names and values of a query.
pub type Parameters = BTreeMap<String, String>;

/// An answer that is not a list: its code and its Status object.
pub struct Refusal {
    code: u16,
    status: Value,
}

impl Refusal {
    pub fn response(&self) -> Response {
        response(self.code, &self.status)
    }
}

pub fn routes(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    for resource in Resource::SERVED {
        let answer =
            move |Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap, Query(query): Query<Parameters>| {
                answer(shared, resource, headers, query)
            };
        router = router.route(resource.path(), get(answer));
    }
    router.with_state(shared)
}

async fn answer(shared: Arc<Shared>, resource: Resource, headers: HeaderMap, query: Parameters) -> Response {
    let is_watch = query.get("watch").is_some_and(|value| value == "1" || value == "true");
    if let Err(refusal) = admit(&shared, resource, &headers, &query, is_watch) {
        return refusal.response();
    }
    if is_watch {
        return watch::answer(&shared, resource, &query).unwrap_or_else(|refusal| refusal.response());
    }
    let is_later_page = query.contains_key("continue");
    let mut changed = shared.changed.subscribe();
    let is_held = |shared: &Shared| {
        let state = shared.state();
        let faults = &state.faults;
        faults.held_lists.contains(&resource) || is_later_page && faults.held_pages.contains(&resource)
    };
    while is_held(&shared) {
        if changed.changed().await.is_err() {
            break;
        }
    }
    if shared.state().faults.endless_lists.contains(&resource) {
        return endless();
    }
    list(&shared.state(), resource, &query).unwrap_or_else(|refusal| refusal.response())
}

/// Bytes of an endless answer that are sent at once.
pub const ENDLESS_PIECE: usize = 1 << 16;

/// A list that starts correctly, with an object whose name never ends.
fn endless() -> Response {
    let start = Bytes::from_static(br#"{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":""#);
    let rest = Bytes::from(vec![b'x'; ENDLESS_PIECE]);
    let pieces = stream::once(std::future::ready(start)).chain(stream::repeat(rest));
    with_headers(200, Body::from_stream(pieces.map(Ok::<_, std::io::Error>)))
}

/// Records the request, and refuses it without the right token.
fn admit(
    shared: &Shared,
    resource: Resource,
    headers: &HeaderMap,
    query: &Parameters,
    is_watch: bool,
) -> Result<(), Refusal> {
    let mut state = shared.state();
    let query: Vec<_> = query.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    state.asked.push(Asked { resource, is_watch, query: query.clone() });
    let Some(authorization) = headers.get(header::AUTHORIZATION) else {
        return Err(forbidden(resource));
    };
    if authorization.as_bytes() != format!("Bearer {}", state.token).as_bytes() {
        return Err(refusal(401, "Unauthorized", "Unauthorized", None));
    }
    let fields = query.iter().find(|(name, _)| name == "fieldSelector").map_or("", |(_, value)| value);
    if let Some(field) = state.faults.unknown_fields.iter().find(|field| fields.contains(**field)) {
        // In the words of a server that can only select by metadata.
        let known = "only \"metadata.name\", \"metadata.namespace\"";
        let message = format!("\"{field}\" is not a known field selector: {known}");
        return Err(refusal(400, "BadRequest", &message, None));
    }
    let refused = if is_watch { &state.faults.refused_watches } else { &state.faults.refused_lists };
    match refused.get(&resource) {
        Some(410) => Err(refusal(410, "Expired", "too old resource version", None)),
        Some(403) => Err(forbidden(resource)),
        Some(code) => Err(refusal(*code, "InternalError", "refused by the test", None)),
        None => Ok(()),
    }
}

/// The selectors of a request.
pub fn selector(resource: Resource, query: &Parameters) -> Result<Selector, Refusal> {
    let text = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    Selector::parse(resource, text("labelSelector"), text("fieldSelector"))
        .map_err(|message| refusal(400, "BadRequest", &message, None))
}

/// A list, in the order of its fields on the wire.
#[derive(Serialize)]
struct List<'a> {
    kind: String,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: Value,
    items: Vec<&'a Value>,
}

fn list(state: &State, resource: Resource, query: &Parameters) -> Result<Response, Refusal> {
    let selector = selector(resource, query)?;
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
    let limit = state.faults.page_max.into_iter().chain(limit).min();
    let token = query.get("continue").filter(|token| !token.is_empty());
    let from = token.map(|token| Continuation::parse(token)).transpose();
    let from = from.map_err(|message| refusal(400, "BadRequest", &message, None))?;
    let newest = state.faults.outdated.unwrap_or(state.store.version());
    let version = from.as_ref().map_or(newest, |from| from.rv);
    if version < state.store.compacted() && from.is_some() {
        return Err(expired_page());
    }
    let start = from.map(|from| from.start).unwrap_or_default();
    let limit = limit.unwrap_or(usize::MAX);
    let mut rest = state.store.list(resource, version, &start);
    let mut items: Vec<&Value> = Vec::new();
    let mut last = "";
    while items.len() < limit {
        let Some((key, object)) = rest.next() else { break };
        last = key;
        if selector.holds_for(resource, object) {
            items.push(object);
        }
    }
    let mut metadata = json!({"resourceVersion": version.to_string()});
    // It is not known yet whether the selectors admit any of them: the last page may be empty.
    if rest.next().is_some() {
        metadata["continue"] = json!(Continuation::after(last, version).token());
        // The real server does not count if it would have to read the objects.
        if selector.is_empty() {
            metadata["remainingItemCount"] = json!(1 + rest.count());
        }
    }
    let kind = format!("{}List", resource.kind());
    let list = List { kind, api_version: resource.api_version(), metadata, items };
    Ok(response(200, &list))
}

/// A refusal in the server's words.
pub fn refusal(code: u16, reason: &str, message: &str, details: Option<Value>) -> Refusal {
    Refusal { code, status: status(code, reason, message, details) }
}

/// The Status object of a refusal.
pub fn status(code: u16, reason: &str, message: &str, details: Option<Value>) -> Value {
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    if let Some(details) = details {
        status["details"] = details;
    }
    status
}

fn forbidden(resource: Resource) -> Refusal {
    let plural = resource.path().rsplit('/').next().unwrap_or_default();
    let group = resource.api_version().split_once('/').map_or("", |(group, _)| group);
    let qualified = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    let message = format!(
        "{qualified} is forbidden: User \"system:anonymous\" cannot list resource \"{plural}\" in API group \"{group}\" at \
         the cluster scope"
    );
    let mut details = json!({"kind": plural});
    if !group.is_empty() {
        details["group"] = json!(group);
    }
    refusal(403, "Forbidden", &message, Some(details))
}

fn expired_page() -> Refusal {
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
         deleted between the time the first chunk was returned and now may show up in the list.";
    refusal(410, "Expired", message, None)
}

fn response(code: u16, body: &impl Serialize) -> Response {
    let mut text = serde_json::to_string(body).expect("JSON values print");
    text.push('\n');
    with_headers(code, Body::from(text))
}

/// The headers of every answer.
pub fn with_headers(code: u16, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).expect("a code of HTTP");
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
