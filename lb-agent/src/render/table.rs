//! Rows as text: aligned columns under their titles.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use crate::printable::printable;

/// Blanks between columns.
const GAP: usize = 2;

/// A row of a table.
pub trait Row {
    /// Column titles in capitals.
    const TITLES: &'static [&'static str];

    /// The cells of the row, one for each title.
    fn cells(&self) -> Vec<String>;

    /// The titles of what a person usually needs.
    const USUAL: &'static [&'static str] = Self::TITLES;

    /// The cells under them.
    fn usual(&self) -> Vec<String> {
        self.cells()
    }

    /// Usual columns that are left out where a terminal is too narrow, the first ones first.
    const EXPENDABLE: &'static [&'static str] = &[];
}

/// All columns, one row per line, without trailing blanks.
pub fn text<R: Row>(rows: &[R]) -> String {
    Columns::of(R::TITLES, rows.iter().map(R::cells)).text(None)
}

/// The usual columns. On a terminal of this width, columns are left out or wrapped so that they fit; elsewhere all of
/// them are there, uncut.
pub fn usual<R: Row>(rows: &[R], width: Option<u16>) -> String {
    let mut columns = Columns::of(R::USUAL, rows.iter().map(R::usual));
    if let Some(width) = width {
        columns.fit(width.into(), R::EXPENDABLE);
    }
    columns.text(width)
}

struct Columns {
    titles: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Columns {
    fn of(titles: &[&'static str], rows: impl Iterator<Item = Vec<String>>) -> Self {
        let plain = |cells: Vec<String>| cells.into_iter().map(|cell| printable(&cell).into_owned()).collect();
        Self { titles: titles.to_vec(), rows: rows.map(plain).collect() }
    }

    /// Leaves out columns while the others do not fit: those that say nothing, then expendable ones.
    fn fit(&mut self, width: usize, expendable: &[&'static str]) {
        let says_nothing = |title: &&'static str| {
            let column = self.titles.iter().position(|own| own == title);
            column.is_some_and(|column| self.rows.iter().all(|row| row[column] == "-" || row[column] == "?"))
        };
        let mut goes: Vec<_> =
            if self.rows.is_empty() { Vec::new() } else { self.titles.iter().copied().filter(says_nothing).collect() };
        goes.extend(expendable);
        for title in goes {
            if self.width() <= width {
                return;
            }
            if let Some(column) = self.titles.iter().position(|own| *own == title) {
                self.titles.remove(column);
                for row in &mut self.rows {
                    row.remove(column);
                }
            }
        }
    }

    /// The width of a line.
    fn width(&self) -> usize {
        let column = |(index, title): (usize, &&str)| {
            let cells = self.rows.iter().map(|row| row[index].chars().count());
            cells.max().unwrap_or_default().max(title.len())
        };
        self.titles.iter().enumerate().map(column).map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
    }

    fn text(self, width: Option<u16>) -> String {
        let is_too_wide = width.filter(|width| self.width() > usize::from(*width));
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(self.titles);
        if let Some(width) = is_too_wide {
            // The gap after the last column is cut off.
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width.saturating_add(GAP as u16));
        }
        table.add_rows(self.rows);
        for column in table.column_iter_mut() {
            column.set_padding((0, GAP as u16));
        }
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Line;

    impl Row for Line {
        const TITLES: &'static [&'static str] = &["NAME", "ID"];
        const USUAL: &'static [&'static str] = &["NAME", "HOST", "KIND", "WHY"];
        const EXPENDABLE: &'static [&'static str] = &["KIND"];

        fn cells(&self) -> Vec<String> {
            ["shop", "17"].map(str::to_owned).to_vec()
        }

        fn usual(&self) -> Vec<String> {
            ["shop/web:http", "-", "veth", "it is the only one of them"].map(str::to_owned).to_vec()
        }
    }

    #[test]
    fn all_columns_are_printed_where_there_is_no_terminal() {
        assert_eq!(text(&[Line]), "NAME  ID\nshop  17\n");
        let line = "shop/web:http  -     veth  it is the only one of them\n";
        assert_eq!(usual(&[Line], None), format!("NAME           HOST  KIND  WHY\n{line}"));
    }

    #[test]
    fn a_terminal_gets_what_fits() {
        let at = |width| usual(&[Line], Some(width));
        assert_eq!(at(53), usual(&[Line], None));
        assert_eq!(at(52), "NAME           KIND  WHY\nshop/web:http  veth  it is the only one of them\n");
        assert_eq!(at(46), "NAME           WHY\nshop/web:http  it is the only one of them\n");
        for width in [30, 36, 40] {
            let lines = at(width);
            assert!(lines.lines().all(|line| line.len() <= usize::from(width)), "{width}:\n{lines}");
            assert!(lines.lines().count() > 2 && !lines.contains("KIND"), "{width}:\n{lines}");
        }
    }
}
