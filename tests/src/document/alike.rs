//! Compares what a page shows with what a command printed.
//!
//! `...` in a line is any text of that line; a line of `...` alone is any number of lines, also none. Runs of spaces
//! are alike, since the width of a column follows its widest cell. All else must be equal.

/// The part of a line, or the line, that may be anything.
const ANY: &str = "...";

/// `None` if the output is as shown; otherwise both, for a message.
pub fn difference(shown: &[String], printed: &str) -> Option<String> {
    let (wanted, got) = (trimmed(shown.iter().map(String::as_str)), trimmed(printed.lines()));
    // Without a line below it, a command may print nothing.
    if lines_match(&wanted, &got) {
        return None;
    }
    Some(format!("the page shows\n{}\nbut it printed\n{}", indented(&wanted), indented(&got)))
}

/// Lines with single spaces, without empty ones at the end.
fn trimmed<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut lines: Vec<_> = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// Whether the lines match, with each `...` line for any number of lines.
fn lines_match(wanted: &[String], got: &[String]) -> bool {
    // For each number of printed lines: whether the shown lines so far can end there.
    let mut ends: Vec<bool> = (0..=got.len()).map(|count| count == 0).collect();
    for want in wanted {
        let mut next = vec![false; got.len() + 1];
        if want == ANY {
            let mut reached = false;
            for (to, from) in next.iter_mut().zip(&ends) {
                reached |= *from;
                *to = reached;
            }
        } else {
            for (index, line) in got.iter().enumerate() {
                next[index + 1] = ends[index] && line_matches(want, line);
            }
        }
        ends = next;
    }
    ends[got.len()]
}

/// Whether one line matches, with each `...` in it for any text. As a word of its own it may also be no word.
fn line_matches(want: &str, line: &str) -> bool {
    if let Some((before, after)) = want.split_once(" ... ")
        && line_matches(&format!("{before} {after}"), line)
    {
        return true;
    }
    let mut parts = want.split(ANY);
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_alike(shown: &str, printed: &str) -> bool {
        let shown: Vec<_> = shown.lines().map(ToOwned::to_owned).collect();
        difference(&shown, printed).is_none()
    }

    #[test]
    fn dots_stand_for_parts_and_for_lines() {
        for (shown, printed) in [
            ("", ""),
            ("a b", "a b\n"),
            ("a   b", "a b"),
            ("a ... c", "a b b c"),
            ("a ... c", "a c"),
            ("...c", "c"),
            ("a ...", "a b"),
            ("a...b...c", "a1b2c"),
            ("...", ""),
            ("...", "a\nb"),
            ("a\n...\nc", "a\nc"),
            ("a\n...\nc", "a\nb\nb\nc"),
            ("...\nb\n...", "a\nb\nb\nc"),
        ] {
            assert!(is_alike(shown, printed), "{shown:?} and {printed:?}");
        }
        for (shown, printed) in [
            ("", "a"),
            ("a", ""),
            ("a b", "ab"),
            ("a ... c", "a b"),
            ("a...a", "a"),
            ("a\n...\nc", "a\nb"),
            ("a\nb", "b\na"),
            ("a\n...", "b\na"),
        ] {
            assert!(!is_alike(shown, printed), "{shown:?} and {printed:?}");
        }
    }
}
