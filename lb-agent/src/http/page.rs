//! Bounds the memory of large pages that wait for slow readers.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of all waiting pages together.
const ROOM_BYTES: usize = 16 << 20;

/// Bytes per permit.
const PERMIT_BYTES: usize = 1 << 10;

/// The memory for waiting pages. Clones share it.
#[derive(Clone)]
pub struct Room(Arc<Semaphore>);

/// A page, and the room that it takes until its last byte is handed to the kernel.
struct Page {
    text: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_BYTES / PERMIT_BYTES)))
    }
}

impl Room {
    /// An answer with this text, or 503 if slow readers hold the room. A page larger than the room takes all of it.
    pub fn page(&self, content_type: &'static str, text: Vec<u8>) -> Response {
        let permits = text.len().min(ROOM_BYTES).div_ceil(PERMIT_BYTES);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.0).try_acquire_many_owned(permits) else {
            return (StatusCode::SERVICE_UNAVAILABLE, "too many pages wait for their readers, ask again\n")
                .into_response();
        };
        let body = Bytes::from_owner(Page { text, _room: room });
        ([(header::CONTENT_TYPE, content_type)], body).into_response()
    }
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_until_a_page_is_read() {
        let room = Room::default();
        let half = || room.page("text/plain", vec![b'x'; ROOM_BYTES / 2]);
        let pages = [half(), half()];
        assert_eq!(pages[0].status(), StatusCode::OK);
        assert_eq!(half().status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(pages);
        assert_eq!(room.page("text/plain", vec![b'x'; 2 * ROOM_BYTES]).status(), StatusCode::OK, "it has all of it");
        assert_eq!(half().status(), StatusCode::OK);
    }
}
