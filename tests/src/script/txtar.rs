//! The txtar format of Go's test scripts: a comment, then `-- name --` lines, each followed by its text.

use std::fmt;

/// A file in txtar format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    pub comment: String,
    pub sections: Vec<Section>,
}

/// A name and the text up to the next name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    pub name: String,
    pub body: String,
}

impl Archive {
    /// Any text is an archive.
    pub fn parse(text: &str) -> Self {
        let mut archive = Self::default();
        for line in text.split_inclusive('\n') {
            match (name(line), archive.sections.last_mut()) {
                (Some(name), _) => archive.sections.push(Section { name: name.to_owned(), body: String::new() }),
                (None, Some(section)) => section.body.push_str(line),
                (None, None) => archive.comment.push_str(line),
            }
        }
        archive
    }
}

fn name(line: &str) -> Option<&str> {
    let name = line.trim_end().strip_prefix("-- ")?.strip_suffix(" --")?.trim();
    (!name.is_empty()).then_some(name)
}

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.comment)?;
        for section in &self.sections {
            writeln!(f, "-- {} --", section.name)?;
            f.write_str(&section.body)?;
            if !section.body.is_empty() && !section.body.ends_with('\n') {
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_the_same_text() {
        let text = "about\n\n-- write a.yaml --\n---\na: 1\n--- \n-- frontends --\n-- pools --\nx\n";
        let archive = Archive::parse(text);
        assert_eq!(archive.sections.len(), 3);
        assert_eq!(archive.sections[0].body, "---\na: 1\n--- \n");
        assert_eq!(archive.to_string(), text);
    }
}
