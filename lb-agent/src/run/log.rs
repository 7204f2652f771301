//! The log: one line per event on standard error, with unprintable characters escaped.

use std::fmt;

use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

use crate::printable::printable;

/// Starts the log.
pub fn start(filter: EnvFilter) {
    tracing_subscriber::fmt()
        .compact()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .fmt_fields(fields())
        // Internal errors would be written to standard error, which is the stream that failed: without a reader this
        // panics.
        .log_internal_errors(false)
        .init();
}

/// Names and values on one line, with unprintable characters escaped.
fn fields() -> impl for<'writer> FormatFields<'writer> + 'static {
    debug_fn(field).delimited(" ")
}

fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = format!("{value:?}");
    match field.name() {
        "message" => write!(writer, "{}", printable(&value)),
        name => write!(writer, "{name}={}", printable(&value)),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic holds it").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_of_plain_characters() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .compact()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .fmt_fields(fields());
        let hostile = "x\u{1b}[31m\u{7}\n2026-01-01T00:00:00Z  INFO forged\u{202e}";
        tracing::subscriber::with_default(subscriber.finish(), || {
            tracing::warn!(kind = "bad-field", rows = 3, object = hostile, reason = %hostile, "{hostile}");
        });
        let text = String::from_utf8(lines.0.lock().expect("no panic holds it").clone()).expect("text");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.trim_end().chars().all(|c| matches!(c, ' '..='~')), "{text:?}");
        assert!(text.contains(r#"kind="bad-field" rows=3"#) && text.contains(r"x\u{1b}[31m\u{7}\n2026"), "{text}");
    }
}
