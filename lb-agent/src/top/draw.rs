//! Draws the state.

use lb_common::table::Counter;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line as Text;
use ratatui::widgets::{Cell, Paragraph, Row, Table, Wrap};

use super::state::{Focus, Line, Order, State};
use crate::printable::printable;

const KEYS: &str = "q quit   p pause   s sort   / filter   up, down scroll   h help";

const HELP: &str = "\
q, Ctrl-C    quit
p, blank     pause, and go on
s            sort by the next column
/            type a filter: lines whose Service or mode contains it; Enter keeps it, Esc drops it
up, down, page up, page down, home
             scroll

FLOWS/S      new connections that this node balances, per second
PACKETS/S    packets translated, in both directions; BYTES/S likewise
PASSED/S     packets that open a connection and are left to the external balancer: in mode Proxy they leave this
             node and may come back to it
DROPS/S      packets and dials that were rejected or dropped; `lb-agent show frontends` has the reasons
FLOWS        connections balanced since the tables were made

Press any key.";

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, state: &State) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(4), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(summary(state)), head);
    if state.focus == Focus::Help {
        frame.render_widget(Paragraph::new(HELP).wrap(Wrap { trim: false }), body);
    } else {
        draw_lines(frame, state, body);
    }
    let text = match state.focus {
        Focus::Filter => format!("filter: {}_   Enter keeps it, Esc drops it", printable(&state.filter)),
        Focus::Lines if !state.filter.is_empty() => format!("filter: {}   {KEYS}", printable(&state.filter)),
        Focus::Lines | Focus::Help => KEYS.to_owned(),
    };
    frame.render_widget(Paragraph::new(text), foot);
}

/// The node: who answers, what it forwards, what it drops, how full its tables are.
fn summary(state: &State) -> Vec<Text<'static>> {
    let agent = match state.now.warnings {
        None => "no agent answers: names are unknown, traffic is read from the pins".to_owned(),
        Some(0) => "an agent runs, no warnings".to_owned(),
        Some(1) => "an agent runs, 1 warning: lb-agent show warnings".to_owned(),
        Some(count) => format!("an agent runs, {count} warnings: lb-agent show warnings"),
    };
    let paused = if state.is_paused { "   PAUSED" } else { "" };
    let of = |counter| state.counted(counter);
    let per_sec = |name: &str, rate: f64| format!("{name} {}/s", short(rate));
    let traffic = [
        per_sec("new flows", of(Counter::FlowCreated)),
        per_sec("packets", of(Counter::RequestTranslated) + of(Counter::ReplyTranslated)),
        per_sec("sockets", of(Counter::SocketTranslated)),
        per_sec("passed", of(Counter::PassedProxy)),
        per_sec("forwarded", of(Counter::Forwarded)),
        per_sec("rejected", of(Counter::Rejected) + of(Counter::SocketRefused)),
    ];
    let drops = state.drops();
    let reasons: Vec<_> = drops.iter().map(|(name, rate)| per_sec(name, *rate)).collect();
    let dropped = match reasons.as_slice() {
        [] => "dropped 0/s".to_owned(),
        reasons => format!("dropped {}/s: {}", short(drops.iter().map(|(_, rate)| rate).sum()), reasons.join(", ")),
    };
    let fill = state.now.fill.iter().map(|fill| format!("{} {} of {}", fill.map, fill.entries, fill.capacity));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    vec![
        Text::styled(format!("top   {agent}{paused}"), bold),
        Text::from(traffic.join("   ")),
        Text::from(dropped),
        Text::from(format!("tables: {}", fill.collect::<Vec<_>>().join(", "))),
    ]
}

/// A column behind the name.
struct Column {
    title: &'static str,
    width: u16,
    cell: fn(&Line) -> String,
    /// The order that it marks.
    order: Option<Order>,
    /// Whether a narrow terminal has it as well.
    is_kept: bool,
}

const fn rate(title: &'static str, width: u16, order: Order, cell: fn(&Line) -> String) -> Column {
    Column { title, width, cell, order: Some(order), is_kept: true }
}

const COLUMNS: [Column; 8] = [
    Column { title: "MODE", width: 6, cell: |line| line.mode.clone(), order: None, is_kept: true },
    Column { title: "ADDRESSES", width: 9, cell: |line| line.addresses.to_string(), order: None, is_kept: false },
    rate("FLOWS/S", 8, Order::Flows, |line| short(line.flows)),
    rate("PACKETS/S", 10, Order::Packets, |line| short(line.packets)),
    rate("BYTES/S", 8, Order::Bytes, |line| short(line.bytes)),
    rate("PASSED/S", 9, Order::Passed, |line| short(line.passed)),
    rate("DROPS/S", 8, Order::Drops, |line| short(line.drops)),
    Column { title: "FLOWS", width: 8, cell: |line| line.flows_total.to_string(), order: None, is_kept: false },
];

fn draw_lines(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let lines = state.lines();
    let longest = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or_default().max(8);
    let longest = u16::try_from(longest).unwrap_or(u16::MAX);
    let needed = COLUMNS.iter().fold(longest, |sum, column| sum.saturating_add(1 + column.width));
    let columns: Vec<_> = COLUMNS.iter().filter(|column| column.is_kept || needed <= area.width).collect();
    let title = |name: &str, order| if order == Some(state.order) { format!("{name}*") } else { name.to_owned() };
    let titles = columns.iter().map(|column| title(column.title, column.order));
    let titles = std::iter::once(title("SERVICE", Some(Order::Name))).chain(titles);
    let header = Row::new(titles).style(Style::new().add_modifier(Modifier::REVERSED));
    let row = |line: &Line| {
        let cells = columns.iter().map(|column| (column.cell)(line));
        Row::new(std::iter::once(printable(&line.name).into_owned()).chain(cells).map(Cell::from))
    };
    // The numbers keep their places; a long name is cut.
    let widths = columns.iter().map(|column| Constraint::Length(column.width));
    let widths = std::iter::once(Constraint::Max(longest)).chain(widths);
    let shown = lines.iter().skip(state.first).take(area.height.into()).map(row);
    frame.render_widget(Table::new(shown, widths).header(header), area);
}

/// Three digits and a suffix: 0, 1.5, 12, 999, 1.2k, 34M.
fn short(number: f64) -> String {
    let (scaled, suffix) = match number {
        n if n >= 1e9 => (n / 1e9, "G"),
        n if n >= 1e6 => (n / 1e6, "M"),
        n if n >= 1e3 => (n / 1e3, "k"),
        n => (n, ""),
    };
    match scaled {
        s if s < 0.05 => "0".to_owned(),
        s if s < 9.95 && s.fract() > 0.0 => format!("{s:.1}{suffix}"),
        s => format!("{s:.0}{suffix}"),
    }
}

#[cfg(test)]
mod tests;
