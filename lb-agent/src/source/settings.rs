//! Reads a file of settings: one flat YAML mapping whose values are scalars or lists of scalars. Each text is kept as it
//! is written, so `off` is a word and not a truth value.

use libyaml_safer::{Event, EventData, Parser, ScalarStyle};

/// A key of the file, and its values.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    /// From 1.
    pub line: usize,
    pub value: Value,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Value {
    One(String),
    Many(Vec<String>),
}

/// Why a file, or a key of it, cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub line: usize,
    pub problem: String,
}

/// Reads the text. A file without content has no settings.
pub fn read(text: &str) -> Result<Vec<Entry>, Fault> {
    let mut parser = Parser::new();
    parser.set_input(text.as_bytes());
    let mut reader = Reader { parser };
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let event = reader.next()?;
        match event.data {
            EventData::StreamStart { .. } | EventData::DocumentStart { .. } => {}
            EventData::StreamEnd => return Ok(entries),
            EventData::MappingStart { .. } => break,
            EventData::Scalar { value, .. } if is_null(&value) => return Ok(entries),
            _ => return Err(at(&event, "write settings, one a line, as in `services: all`")),
        }
    }
    while let Some(entry) = reader.entry()? {
        if let Some(first) = entries.iter().find(|first| first.key == entry.key) {
            let problem = format!("{}: is set on line {} already: keep one of them", entry.key, first.line);
            return Err(Fault { line: entry.line, problem });
        }
        entries.push(entry);
    }
    loop {
        let event = reader.next()?;
        match event.data {
            EventData::DocumentEnd { .. } => {}
            EventData::StreamEnd => return Ok(entries),
            _ => return Err(at(&event, "another document follows: put all settings into one")),
        }
    }
}

struct Reader<'t> {
    parser: Parser<&'t [u8]>,
}

impl Reader<'_> {
    fn next(&mut self) -> Result<Event, Fault> {
        self.parser.parse().map_err(|error| {
            let line = error.problem_mark().map_or(1, |mark| mark.line as usize + 1);
            let context = error.context().map_or_else(String::new, |context| format!(", {context}"));
            Fault { line, problem: format!("is not YAML: {}{context}", error.problem()) }
        })
    }

    /// The next key with its value; `None` at the end of the mapping.
    fn entry(&mut self) -> Result<Option<Entry>, Fault> {
        let event = self.next()?;
        let (key, line) = match &event.data {
            EventData::MappingEnd => return Ok(None),
            EventData::Scalar { value, .. } => (value.clone(), line(&event)),
            _ => return Err(at(&event, "a key is no word: write the name of a flag")),
        };
        let event = self.next()?;
        let value = match event.data {
            EventData::SequenceStart { .. } => {
                let mut many = Vec::new();
                loop {
                    let event = self.next()?;
                    if event.data == EventData::SequenceEnd {
                        break;
                    }
                    many.push(scalar(&key, &event)?);
                }
                Value::Many(many)
            }
            _ => Value::One(scalar(&key, &event)?),
        };
        Ok(Some(Entry { key, line, value }))
    }
}

fn scalar(key: &str, event: &Event) -> Result<String, Fault> {
    match &event.data {
        EventData::Scalar { value, style, .. } => {
            if *style == ScalarStyle::Plain && is_null(value) {
                return Err(at(event, &format!("{key}: has no value: write one, or remove the key")));
            }
            Ok(value.clone())
        }
        EventData::Alias { .. } => Err(at(event, &format!("{key}: an alias is not read here: write the value out"))),
        _ => Err(at(event, &format!("{key}: write a word, a number, or a list of them"))),
    }
}

/// Null, as YAML 1.1 spells it.
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

const fn line(event: &Event) -> usize {
    event.start_mark.line as usize + 1
}

fn at(event: &Event, problem: &str) -> Fault {
    Fault { line: line(event), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_kept_as_they_are_written() {
        let text = "# comment\nguard: off\nudp-secs: 1_0\n\ncluster-cidrs:\n- 10.0.0.0/8\n- \"fd00::/8\"\nproxy-annotation: []\n";
        let one = |key: &str, line, value: &str| Entry { key: key.into(), line, value: Value::One(value.into()) };
        let many = |key: &str, line, values: &[&str]| {
            let value = Value::Many(values.iter().map(ToString::to_string).collect());
            Entry { key: key.into(), line, value }
        };
        let wanted = [
            one("guard", 2, "off"),
            one("udp-secs", 3, "1_0"),
            many("cluster-cidrs", 5, &["10.0.0.0/8", "fd00::/8"]),
            many("proxy-annotation", 8, &[]),
        ];
        assert_eq!(read(text).as_deref(), Ok(&wanted[..]));
        for empty in ["", "# nothing\n", "---\n", "--- \n# x\n", "null\n"] {
            assert_eq!(read(empty), Ok(Vec::new()), "{empty:?}");
        }
    }

    #[test]
    fn what_is_no_flat_mapping_is_refused_with_its_line() {
        for (text, line, word) in [
            ("a: 1\nb: 2\na: 1\n", 3, "line 1"),
            ("a: 1\nb:\n", 2, "no value"),
            ("a:\n  b: 1\n", 2, "a: write a word"),
            ("a: [1, {b: 2}]\n", 1, "a: write a word"),
            ("a: &x 1\nb: *x\n", 2, "alias"),
            ("- a\n", 1, "services: all"),
            ("text\n", 1, "services: all"),
            ("a: 1\n---\nb: 1\n", 2, "another document"),
            ("a: 1\n\tb: [\n", 2, "not YAML"),
            ("[a]: 1\n", 1, "no word"),
        ] {
            let fault = read(text).expect_err(text);
            assert!(fault.line == line && fault.problem.contains(word), "{text:?}: {fault:?}");
        }
    }
}
