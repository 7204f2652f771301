//! The last lines of the log, kept in memory: a report of a fault may have no other place to take them from.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that are kept.
const BYTES_MAX: usize = 256 << 10;

/// The lines. Clones share them.
#[derive(Clone, Default)]
pub struct Tail(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    list: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    /// The lines, oldest first.
    pub fn text(&self) -> String {
        self.lines().list.iter().map(String::as_str).collect()
    }

    /// Keeps a line, without colours.
    pub fn keep(&self, line: &[u8]) {
        let line = plain(&String::from_utf8_lossy(line));
        let mut lines = self.lines();
        lines.bytes += line.len();
        lines.list.push_back(line);
        while lines.bytes > BYTES_MAX
            && let Some(oldest) = lines.list.pop_front()
        {
            lines.bytes -= oldest.len();
        }
    }

    /// A writer that writes to standard error and keeps the line. One call of `write` is one line.
    pub fn writer(&self) -> Writer {
        Writer(self.clone())
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes lines of the log.
pub struct Writer(Tail);

impl io::Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.keep(line);
        io::stderr().write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The line without the colours of a terminal. Escapes of other origin are spelled out before.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_without_colours() {
        let tail = Tail::default();
        tail.keep(b"\x1b[2m2026\x1b[0m \x1b[32m INFO\x1b[0m first\n");
        tail.keep(b"second\n");
        assert_eq!(tail.text(), "2026  INFO first\nsecond\n");
        let long = format!("{}\n", "x".repeat(1023));
        for _ in 0..1000 {
            tail.keep(long.as_bytes());
        }
        assert!(tail.text().len() <= BYTES_MAX && tail.text().len() > BYTES_MAX / 2);
        assert!(!tail.text().contains("first"));
    }
}
