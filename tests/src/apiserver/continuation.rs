//! Continue tokens: a version and the first key of the next page, in the real server's own encoding.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// The start of the next page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuation {
    v: String,
    /// The version of the whole list.
    pub rv: u64,
    /// The first key that may be on the page: the last key of the page before, and a zero byte.
    pub start: String,
}

impl Continuation {
    pub fn after(key: &str, version: u64) -> Self {
        Self { v: "meta.k8s.io/v1".to_owned(), rv: version, start: format!("{key}\0") }
    }

    pub fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("text and numbers"))
    }

    /// Fails with the server's message.
    pub fn parse(token: &str) -> Result<Self, String> {
        let refused = |why: String| format!("invalid continue token: continue key is not valid: {why}");
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|error| refused(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_encoded_as_recorded() {
        let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MjM2LCJzdGFydCI6ImRlZmF1bHQva3ViZXJuZXRlc1x1MDAwMCJ9";
        let continuation = Continuation::after("default/kubernetes", 236);
        assert_eq!(continuation.token(), token);
        assert_eq!(Continuation::parse(token), Ok(continuation));
        Continuation::parse("garbage").expect_err("no token");
    }
}
