//! The page of metrics, in the format that the client asks for.

use std::fmt;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

use super::page::Room;
use crate::metrics::{CLASSIC, OPENMETRICS, classic, wants_open_metrics};

/// What these registries hold now.
pub fn page(registries: &[&Registry], headers: &HeaderMap, room: &Room) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_open = wants_open_metrics(&accept.collect::<Vec<_>>().join(","));
    match text(registries) {
        Ok(text) if is_open => room.page(OPENMETRICS, text.into_bytes()),
        Ok(text) => room.page(CLASSIC, classic(&text).into_bytes()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn text(registries: &[&Registry]) -> Result<String, fmt::Error> {
    let mut text = String::new();
    registries.iter().try_for_each(|registry| encode_registry(&mut text, registry))?;
    encode_eof(&mut text)?;
    Ok(text)
}
