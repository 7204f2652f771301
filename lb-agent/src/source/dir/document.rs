//! Documents: a file cut into pieces that are read independently, so that a bad one spoils only itself.

mod read;

pub use read::read;

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// From 1; pieces without content are not counted.
    pub number: u32,
    /// Line of the file, from 1, on which `text` starts.
    pub line: usize,
    pub text: &'a str,
}

/// Cuts a YAML file at its `---` and `...` lines, as kubectl does: before it is parsed, so that what follows a document
/// with an error is still read.
pub fn split(file: &str) -> Vec<Document<'_>> {
    // A byte order mark.
    let file = file.strip_prefix('\u{feff}').unwrap_or(file);
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (line_number, line) in (1..).zip(file.split_inclusive('\n')) {
        if is_separator(line) && offset > start {
            push(&mut documents, &file[start..offset], start_line);
            (start, start_line) = (offset, line_number);
        }
        offset += line.len();
    }
    push(&mut documents, &file[start..], start_line);
    documents
}

/// Cuts a JSON file into its values; what follows an error is one piece.
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

/// Cut off from the next line on: the separator belongs to the piece that it starts, as it may carry content.
fn is_separator(line: &str) -> bool {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn push<'a>(documents: &mut Vec<Document<'a>>, text: &'a str, line: usize) {
    let has_content = text.lines().any(|line| {
        let line = if is_separator(line) { &line[3..] } else { line };
        // A directive (`%YAML 1.2`) alone is no document.
        !matches!(line.trim_start().chars().next(), None | Some('#' | '%'))
    });
    if has_content {
        documents.push(Document { number: documents.len() as u32 + 1, line, text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(documents: &[Document<'_>]) -> Vec<(u32, usize, String)> {
        documents.iter().map(|document| (document.number, document.line, document.text.trim().to_owned())).collect()
    }

    #[test]
    fn cuts_at_separators_only() {
        let file = "# about\n---\na: 1\nb: |\n  ---\n---text: no\n--- # second\nc: 2\n...\n\n---\n---\n--- {d: 3}\n";
        assert_eq!(
            texts(&split(file)),
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
