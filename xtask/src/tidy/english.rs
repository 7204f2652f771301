//! Words that comments, documents and texts for users avoid: each hides its subject or says nothing a network engineer
//! would say.

use super::source::{Build, Source};
use super::violation::Violation;

/// Programs whose texts users read.
const SPEAKERS: &[&str] = &["lb-agent/src/", "xtask/src/", "tests/src/demo", "tests/src/bin/"];
/// The list of refused words itself.
const LIST: &str = "xtask/src/tidy/english.rs";

/// The word or phrase, and what to write instead.
const REFUSED: &[(&str, &str)] = &[
    ("stands", "is, or the verb that says what it does"),
    ("nobody", "no, and the thing's name"),
    ("somebody", "the thing's name"),
    ("anybody", "any, and the thing's name"),
    ("whoever", "the thing's name"),
    ("goes on", "continues"),
    ("is told", "the verb: is warned, is logged, is passed"),
    ("are told", "the verb: are warned, are logged, are passed"),
    ("led astray", "what goes wrong"),
];

/// Looks at comments of Rust sources, at every line of Markdown, and at titles and comments of case files.
pub fn check(path: &str, text: &str) -> Vec<Violation> {
    let title_lines = text.lines().position(|line| line.starts_with("-- ")).unwrap_or(0);
    let is_read = |(index, line): &(usize, &str)| match path.rsplit_once('.') {
        Some((_, "rs")) => line.trim_start().starts_with("//"),
        Some((_, "md")) => true,
        Some((_, "txtar")) => *index < title_lines || line.starts_with('#'),
        _ => false,
    };
    let lines = text.lines().enumerate().filter(is_read);
    lines.flat_map(|(index, line)| of_line(index + 1, &line.to_lowercase())).collect()
}

/// Looks at the string literals of programs that users run.
pub fn check_texts(source: &Source) -> Vec<Violation> {
    let is_read = SPEAKERS.iter().any(|place| source.path.starts_with(place)) && source.path != LIST;
    let texts = source.texts.iter().filter(|text| is_read && text.build == Build::Product);
    let texts = texts.filter(|_| !source.path.ends_with("/tests.rs") && !source.path.contains("/tests/"));
    texts.flat_map(|text| of_line(text.line, &text.text.to_lowercase())).collect()
}

fn of_line(number: usize, line: &str) -> Vec<Violation> {
    let refused = REFUSED.iter().filter(|(phrase, _)| has_phrase(line, phrase));
    let violation =
        |(phrase, instead): &(&str, &str)| Violation { line: number, what: format!("\"{phrase}\": write {instead}") };
    refused.map(violation).collect()
}

/// Whether whole words of the line are the phrase.
fn has_phrase(line: &str, phrase: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || matches!(character, '_' | '-');
    line.match_indices(phrase).any(|(start, _)| {
        let (before, after) = (&line[..start], &line[start + phrase.len()..]);
        !before.ends_with(is_word) && !after.starts_with(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_words_are_noticed_in_comments_and_documents() {
        for (path, text) in [
            ("a.rs", "/// Nobody reads it.\n"),
            ("a.rs", "fn f() {}\n    // The packet goes on.\n"),
            ("README.md", "It stands in the table.\n"),
            ("a.txtar", "Whoever asks.\n-- a.yaml --\n"),
            ("a.txtar", "A title.\n-- a.yaml --\n# Nobody asks.\n"),
        ] {
            assert_eq!(check(path, text).len(), 1, "{text}");
        }
    }

    #[test]
    fn refused_words_are_noticed_in_texts_for_users() {
        let found = |path: &str, text: &str| check_texts(&Source::parse(path, text).expect("valid Rust")).len();
        let text = "fn f() { warn!(\"changed by \\\n somebody else\") }\n";
        assert_eq!(found("lb-agent/src/run.rs", text), 1);
        assert_eq!(found("tests/src/netns.rs", text), 0);
        assert_eq!(found("lb-agent/src/run/tests.rs", text), 0);
        assert_eq!(found("lb-agent/src/run.rs", &format!("#[cfg(test)] mod tests {{ {text} }}")), 0);
    }

    #[test]
    fn code_strings_and_longer_words_are_left_alone() {
        for (path, text) in [
            ("a.rs", "let text = \"nobody\";\n"),
            ("a.rs", "// understands, `goes_on`, nobody-else\n"),
            ("a.yaml", "# nobody\n"),
            ("a.txtar", "A title.\n-- warnings --\nnobody\n"),
        ] {
            assert_eq!(check(path, text), [], "{text}");
        }
    }
}
