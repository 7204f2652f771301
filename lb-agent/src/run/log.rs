//! The log: one line per event on standard error, with unprintable characters escaped.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{FormatEvent, Writer, debug_fn};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::args::LogFormat;
use crate::printable::{printable, printable_json};
use crate::tail::Tail;

/// Starts the log.
pub fn start(filter: EnvFilter, format: LogFormat, tail: &Tail) {
    let tail = tail.clone();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || tail.writer())
        // Internal errors would be written to standard error, which is the stream that failed: without a reader this
        // panics.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => builder
            .compact()
            .with_target(false)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .fmt_fields(fields())
            .init(),
        LogFormat::Json => builder.event_format(Json).init(),
    }
}

/// One JSON object for each event: `timestamp`, `level`, `target`, `message`, and the fields.
struct Json;

impl<S: Subscriber + for<'span> LookupSpan<'span>, N: for<'writer> FormatFields<'writer> + 'static> FormatEvent<S, N>
    for Json
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut object = Map::new();
        object.insert("timestamp".to_owned(), time.into());
        object.insert("level".to_owned(), event.metadata().level().as_str().to_ascii_lowercase().into());
        object.insert("target".to_owned(), event.metadata().target().into());
        event.record(&mut Fields(&mut object));
        writeln!(writer, "{}", printable_json(Value::Object(object).to_string()))
    }
}

/// Collects the fields of an event.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }
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

    #[test]
    fn an_event_is_one_object_with_its_fields() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).event_format(Json);
        let hostile = "x\u{1b}[31m\n{\"level\":\"forged\"}\u{202e}";
        tracing::subscriber::with_default(subscriber.finish(), || {
            tracing::warn!(rows = 3, is_late = true, object = hostile, reason = %hostile, "it is {hostile}");
        });
        let text = String::from_utf8(lines.0.lock().expect("no panic holds it").clone()).expect("text");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.trim_end().chars().all(|c| matches!(c, ' '..='~')), "{text:?}");
        let object: Value = serde_json::from_str(&text).expect("an object");
        assert_eq!((&object["level"], &object["rows"], &object["is_late"]), (&"warn".into(), &3.into(), &true.into()));
        assert_eq!((&object["object"], &object["reason"]), (&hostile.into(), &hostile.into()));
        assert_eq!(object["message"], format!("it is {hostile}"));
        assert_eq!(object["target"], "lb_agent::run::log::tests");
        assert!(object["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{object}");
    }
}
