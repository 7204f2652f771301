//! The one renderer: rows as aligned text or as JSON.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::args::Output;

/// A line of a table; its fields are the JSON.
pub trait Row: Serialize {
    /// Names of the columns, in order. Those of numbers start with `#`, which is not printed.
    const HEADER: &'static [&'static str];

    /// One text a column.
    fn cells(&self) -> Vec<String>;
}

/// All rows in one text that ends with a line end.
pub fn render<R: Row>(rows: &[R], output: Output) -> serde_json::Result<String> {
    if !output.is_table() {
        return Ok(serde_json::to_string_pretty(rows)? + "\n");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(R::HEADER.iter().map(|name| name.trim_start_matches('#')));
    table.add_rows(rows.iter().map(Row::cells));
    for (column, name) in table.column_iter_mut().zip(R::HEADER) {
        column.set_padding((0, 2));
        if name.starts_with('#') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Line {
        name: &'static str,
        packets: u64,
    }

    impl Row for Line {
        const HEADER: &'static [&'static str] = &["NAME", "#PACKETS"];

        fn cells(&self) -> Vec<String> {
            vec![self.name.into(), self.packets.to_string()]
        }
    }

    #[test]
    fn aligned_text() {
        let rows = [Line { name: "a", packets: 5 }, Line { name: "longer", packets: 123_456_789 }];
        let text = render(&rows, Output::Table).expect("text");
        assert_eq!(text, "NAME      PACKETS\na               5\nlonger  123456789\n");
    }

    #[test]
    fn no_rows_leave_the_header() {
        assert_eq!(render::<Line>(&[], Output::Table).expect("text"), "NAME  PACKETS\n");
        assert_eq!(render::<Line>(&[], Output::Json).expect("text"), "[]\n");
    }

    #[test]
    fn json_has_fields() {
        let text = render(&[Line { name: "a", packets: 5 }], Output::Json).expect("text");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value, serde_json::json!([{"name": "a", "packets": 5}]));
    }
}
