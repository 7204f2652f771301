//! Failures of requests and watches, sorted by what to do next.

use std::borrow::Cow;
use std::time::Duration;

use super::connect::{self, with_causes};
use crate::printable::bounded;

/// The most bytes of a page or event. One object must fit: etcd stores up to 1.5 MiB of an object, which is several
/// times as much in JSON. If a page is longer, smaller pages are requested.
pub const ANSWER_MAX: usize = 16 << 20;

/// The most bytes of a reason that are shown, because the text comes from others.
const REASON_MAX: usize = 1_024;

/// Why a list or watch failed.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The receiver is closed.
    Closed,
    /// The server no longer knows that resource version (410): list again.
    Expired(String),
    /// The server does not understand the request (400).
    Misunderstood(String),
    /// The server refused the request or could not serve it: retry later.
    Refused(String),
    /// The answer is longer than any valid one.
    TooLong(&'static str),
    /// As `Refused`, and the server said how long to wait.
    Busy { reason: String, pause: Duration },
    /// The connection or credentials failed: retry with a new client.
    Broken(String),
}

impl Failure {
    /// The reason, for logs and warnings.
    pub fn reason(&self) -> Cow<'_, str> {
        match self {
            Self::Closed => "the receiver is gone".into(),
            Self::Expired(reason)
            | Self::Misunderstood(reason)
            | Self::Refused(reason)
            | Self::Busy { reason, .. }
            | Self::Broken(reason) => bounded(reason, REASON_MAX),
            Self::TooLong(what) => {
                let max = ANSWER_MAX >> 20;
                format!(
                    "{what} is longer than {max} MiB and was not read; find the client that writes such objects, \
                    or the proxy that sends such answers"
                )
                .into()
            }
        }
    }

    /// How long the server asked us to wait.
    pub const fn pause(&self) -> Duration {
        match self {
            Self::Busy { pause, .. } => *pause,
            Self::Closed
            | Self::Expired(_)
            | Self::Misunderstood(_)
            | Self::Refused(_)
            | Self::TooLong(_)
            | Self::Broken(_) => Duration::ZERO,
        }
    }

    /// A failure of the connection, or an answer that makes no sense.
    pub fn of_error(error: &dyn std::error::Error) -> Self {
        Self::Broken(with_causes(error))
    }

    /// The failure that a status object from the API server describes.
    pub fn of_status(status: &kube::core::Status) -> Self {
        let reason = match status.code {
            401 => format!("{}; give valid credentials (kubeconfig or service account)", described(status)),
            403 => format!("{}; grant get, list and watch", described(status)),
            _ => described(status),
        };
        let pause = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        match status.code {
            400 => Self::Misunderstood(reason),
            410 => Self::Expired(reason),
            401 => Self::Broken(reason),
            _ if pause > 0 => Self::Busy { reason, pause: Duration::from_secs(pause.into()) },
            _ => Self::Refused(reason),
        }
    }
}

fn described(status: &kube::core::Status) -> String {
    let kube::core::Status { code, reason, message, .. } = status;
    format!("the API server answered {code} {reason}: {}", message.trim_end())
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) => Self::of_status(status),
            _ => Self::of_error(&error),
        }
    }
}

impl From<connect::Error> for Failure {
    fn from(error: connect::Error) -> Self {
        Self::Broken(error.to_string())
    }
}
