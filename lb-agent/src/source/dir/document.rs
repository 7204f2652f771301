//! Cuts a file into documents that are read independently, so that a bad document affects only itself.

mod fault;
mod head;
mod read;
mod tree;
mod unknown;

use std::io::{self, BufRead};
use std::str::Utf8Error;

pub use read::read_guarded;

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// From 1. Documents without content are not counted.
    pub number: u32,
    /// The line of the file, from 1, on which `text` starts.
    pub line: usize,
    pub text: &'a str,
}

/// Cuts a YAML file at its `---` and `...` lines, as kubectl does. Cuts before parsing, so that a document after a bad
/// one is still read. Holds one document at a time, because a file may be large.
pub struct Pieces<R> {
    reader: R,
    /// The current piece. `separator` is the line that starts the next one.
    text: Vec<u8>,
    separator: Vec<u8>,
    /// Line number in the file of `separator`, or of the first line.
    line: usize,
    number: u32,
}

impl<R: BufRead> Pieces<R> {
    pub const fn of(reader: R) -> Self {
        Self { reader, text: Vec::new(), separator: Vec::new(), line: 1, number: 0 }
    }

    /// The next piece that has content.
    pub fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        loop {
            let line = self.line;
            let is_last = self.fill()?;
            if has_content(&self.text) {
                self.number += 1;
                return Ok(Some(Piece { number: self.number, line, text: &self.text }));
            }
            if is_last {
                return Ok(None);
            }
        }
    }

    /// Reads up to the next separator. Returns whether the file ended.
    fn fill(&mut self) -> io::Result<bool> {
        self.text.clear();
        self.text.append(&mut self.separator);
        let mut lines = usize::from(!self.text.is_empty());
        loop {
            let start = self.text.len();
            if self.reader.read_until(b'\n', &mut self.text)? == 0 {
                return Ok(true);
            }
            if self.line == 1 && start == 0 && self.text.starts_with(BYTE_ORDER_MARK) {
                self.text.drain(..BYTE_ORDER_MARK.len());
            }
            if start > 0 && is_separator(&self.text[start..]) {
                self.separator.extend_from_slice(&self.text[start..]);
                self.text.truncate(start);
                self.line += lines;
                return Ok(false);
            }
            lines += 1;
        }
    }
}

impl<'a> Document<'a> {
    pub const fn piece(&self) -> Piece<'a> {
        Piece { number: self.number, line: self.line, text: self.text.as_bytes() }
    }
}

/// A document that may not be valid text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    pub number: u32,
    pub line: usize,
    pub text: &'a [u8],
}

impl<'a> Piece<'a> {
    /// The document, if it is UTF-8.
    pub fn document(&self) -> Result<Document<'a>, Utf8Error> {
        Ok(Document { number: self.number, line: self.line, text: std::str::from_utf8(self.text)? })
    }
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Cuts a JSON file into its values. Everything after an error is one piece.
pub fn split_json(file: &str) -> Vec<Document<'_>> {
    let file = file.strip_prefix('\u{feff}').unwrap_or(file);
    let mut values = serde_json::Deserializer::from_str(file).into_iter::<serde::de::IgnoredAny>();
    let (mut documents, mut start, mut line) = (Vec::new(), 0, 1);
    loop {
        let is_value = matches!(values.next(), Some(Ok(_)));
        let end = if is_value { values.byte_offset() } else { file.len() };
        push(&mut documents, &file[start..end], line);
        line += file[start..end].matches('\n').count();
        start = end;
        if !is_value {
            return documents;
        }
    }
}

fn push<'a>(documents: &mut Vec<Document<'a>>, text: &'a str, line: usize) {
    if !text.trim().is_empty() {
        documents.push(Document { number: documents.len() as u32 + 1, line, text });
    }
}

/// A separator belongs to the piece that it starts, because it may carry content.
fn is_separator(line: &[u8]) -> bool {
    let rest = line.strip_prefix(b"---").or_else(|| line.strip_prefix(b"..."));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b' ' | b'\t' | b'\r' | b'\n')))
}

/// A document needs more than comments and directives (`%YAML 1.2`).
fn has_content(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| {
        let line = if is_separator(line) { &line[3..] } else { line };
        !matches!(line.trim_ascii_start().first(), None | Some(b'#' | b'%'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number, line and text of each piece.
    fn split(file: &str) -> Vec<(u32, usize, String)> {
        let (mut pieces, mut texts) = (Pieces::of(file.as_bytes()), Vec::new());
        while let Some(piece) = pieces.next().expect("memory can be read") {
            let document = piece.document().expect("it is text");
            texts.push((document.number, document.line, document.text.trim().to_owned()));
        }
        texts
    }

    fn texts(documents: &[Document<'_>]) -> Vec<(u32, usize, String)> {
        documents.iter().map(|document| (document.number, document.line, document.text.trim().to_owned())).collect()
    }

    #[test]
    fn cuts_at_separators_only() {
        let file = "# about\n---\na: 1\nb: |\n  ---\n---text: no\n--- # second\nc: 2\n...\n\n---\n---\n--- {d: 3}\n";
        assert_eq!(
            split(file),
            [
                (1, 2, "---\na: 1\nb: |\n  ---\n---text: no".to_owned()),
                (2, 7, "--- # second\nc: 2".to_owned()),
                (3, 13, "--- {d: 3}".to_owned()),
            ]
        );
    }

    #[test]
    fn a_file_without_content_has_no_documents() {
        for file in ["", "\n\n", "# nothing\n", "---\n---\n", "\u{feff}", "%YAML 1.2\n---\n"] {
            assert_eq!(split(file), [], "{file:?}");
        }
    }

    #[test]
    fn windows_line_ends_separate_too() {
        assert_eq!(split("a: 1\r\n---\r\nb: 2\r\n").len(), 2);
    }

    #[test]
    fn cuts_json_values() {
        let documents = split_json("{\"a\": 1}\n\n{\"b\":\n2} {\"c\": 3}\n");
        assert_eq!(
            texts(&documents),
            [(1, 1, "{\"a\": 1}".to_owned()), (2, 1, "{\"b\":\n2}".to_owned()), (3, 4, "{\"c\": 3}".to_owned())]
        );
        let broken = split_json("{\"a\": 1} {\"b\": } {\"c\": 3}");
        assert_eq!(texts(&broken)[1].2, "{\"b\": } {\"c\": 3}");
    }
}
