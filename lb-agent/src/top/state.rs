//! What `top` shows: rates between two readings, and what the keys chose.

use std::collections::BTreeMap;

use lb_common::table::Counter;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::sample::{Frontend, Sample};

/// The order of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    Flows,
    #[default]
    Packets,
    Bytes,
    Passed,
    Drops,
    Name,
}

impl Order {
    const fn next(self) -> Self {
        match self {
            Self::Flows => Self::Packets,
            Self::Packets => Self::Bytes,
            Self::Bytes => Self::Passed,
            Self::Passed => Self::Drops,
            Self::Drops => Self::Name,
            Self::Name => Self::Flows,
        }
    }
}

/// What the keys act on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Focus {
    #[default]
    Lines,
    /// The filter is being typed.
    Filter,
    Help,
}

/// A Service in one mode.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    pub name: String,
    pub mode: String,
    pub addresses: usize,
    /// Per second.
    pub flows: f64,
    pub packets: f64,
    pub bytes: f64,
    pub passed: f64,
    pub drops: f64,
    /// Since the tables were made.
    pub flows_total: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    before: Sample,
    pub now: Sample,
    pub order: Order,
    pub filter: String,
    pub focus: Focus,
    pub is_paused: bool,
    /// The first line that is shown.
    pub first: usize,
}

impl State {
    /// Takes a reading, unless paused.
    pub fn take(&mut self, sample: Sample) {
        if self.is_paused {
            return;
        }
        self.before = if self.now == Sample::default() { sample.clone() } else { std::mem::take(&mut self.now) };
        self.now = sample;
    }

    /// The time between the two readings; 0 after the first one.
    pub fn secs(&self) -> f64 {
        self.now.at_secs - self.before.at_secs
    }

    #[allow(clippy::cast_precision_loss, reason = "three digits of it are shown")]
    fn rate(&self, now: u64, before: u64) -> f64 {
        let secs = self.secs();
        if secs > 0.0 { now.saturating_sub(before) as f64 / secs } else { 0.0 }
    }

    /// A counter, per second.
    pub fn counted(&self, counter: Counter) -> f64 {
        let packets = |sample: &Sample| sample.counters.get(&counter).map_or(0, |value| value.packets);
        self.rate(packets(&self.now), packets(&self.before))
    }

    /// The reasons for which packets were dropped, the most frequent ones first, per second.
    pub fn drops(&self) -> Vec<(&'static str, f64)> {
        let drops = Counter::ALL.iter().filter(|counter| counter.name().starts_with("drop_"));
        let mut rates: Vec<_> = drops.map(|counter| (counter.name(), self.counted(*counter))).collect();
        rates.retain(|(_, rate)| *rate > 0.0);
        rates.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        rates
    }

    /// The lines that pass the filter, in order.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines: BTreeMap<(&str, &str), Line> = BTreeMap::new();
        let none = Frontend::default();
        for (id, frontend) in &self.now.frontends {
            let before = self.before.frontends.get(id).filter(|before| before.name == frontend.name).unwrap_or(&none);
            // What was counted before it was first seen is no rate.
            let before = if before == &none { frontend } else { before };
            let line = lines.entry((&frontend.name, &frontend.mode)).or_default();
            line.addresses += 1;
            line.flows += self.rate(frontend.flows, before.flows);
            line.packets += self.rate(frontend.packets, before.packets);
            line.bytes += self.rate(frontend.bytes, before.bytes);
            line.passed += self.rate(frontend.passed, before.passed);
            line.drops += self.rate(frontend.drops, before.drops);
            line.flows_total += frontend.flows;
        }
        let named = lines.into_iter().map(|((name, mode), line)| Line { name: name.into(), mode: mode.into(), ..line });
        let filter = self.filter.to_lowercase();
        let passes = |line: &Line| format!("{} {}", line.name, line.mode).to_lowercase().contains(&filter);
        let mut lines: Vec<_> = named.filter(passes).collect();
        let value = |line: &Line| match self.order {
            Order::Flows => line.flows,
            Order::Packets => line.packets,
            Order::Bytes => line.bytes,
            Order::Passed => line.passed,
            Order::Drops => line.drops,
            Order::Name => 0.0,
        };
        // Equal lines stay in the order of their names.
        lines.sort_by(|one, other| value(other).total_cmp(&value(one)));
        lines
    }

    /// Does what a key says. Returns whether to continue.
    pub fn press(&mut self, key: KeyEvent) -> bool {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return false;
        }
        match self.focus {
            Focus::Help => self.focus = Focus::Lines,
            Focus::Filter => self.type_filter(key.code),
            Focus::Lines => return self.command(key.code),
        }
        true
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.focus = Focus::Lines,
            KeyCode::Esc => {
                self.filter.clear();
                self.focus = Focus::Lines;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(typed) => self.filter.push(typed),
            _ => {}
        }
        self.first = 0;
    }

    fn command(&mut self, key: KeyCode) -> bool {
        let last = self.lines().len().saturating_sub(1);
        match key {
            KeyCode::Char('q') => return false,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('/') => self.focus = Focus::Filter,
            KeyCode::Char('h' | '?') => self.focus = Focus::Help,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Up => self.first = self.first.saturating_sub(1),
            KeyCode::Down => self.first = (self.first + 1).min(last),
            KeyCode::PageUp => self.first = self.first.saturating_sub(10),
            KeyCode::PageDown => self.first = (self.first + 10).min(last),
            KeyCode::Home => self.first = 0,
            _ => {}
        }
        true
    }
}
