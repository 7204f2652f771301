//! The measured figures and their targets: the rows of the table and of the plot.

use std::fmt;

/// The target of a figure (docs/testing.md#measurements).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Measured for comparison.
    None,
}

/// The unit of a figure, and how it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    NsPerPacket,
    NsPerConnection,
    ConnectionsPerSec,
    FlowsPerSec,
    GigabitsPerSec,
    /// The ratio of two figures of one round.
    Ratio,
    Micros,
    Bytes,
    Millis,
    Mebibytes,
    Count,
}

/// Several measurements of one quantity, from interleaved rounds.
#[derive(Clone, Debug)]
pub struct Figure {
    pub what: String,
    pub unit: Unit,
    pub target: Target,
    rounds: Vec<f64>,
}

impl Figure {
    /// A figure of at least one round.
    pub fn new(what: impl Into<String>, unit: Unit, target: Target, rounds: Vec<f64>) -> Self {
        assert!(!rounds.is_empty(), "a figure has at least one round");
        Self { what: what.into(), unit, target, rounds }
    }

    /// The same figure with further rounds.
    #[must_use]
    pub fn with(mut self, more: Self) -> Self {
        assert_eq!(self.what, more.what, "rounds of one figure");
        self.rounds.extend(more.rounds);
        self
    }

    /// This figure divided by that one, round by round: disturbances that both shared cancel out.
    pub fn ratio(what: impl Into<String>, target: Target, this: &Self, that: &Self) -> Self {
        let rounds = this.rounds.iter().zip(&that.rounds).map(|(this, that)| this / that).collect();
        Self::new(what, Unit::Ratio, target, rounds)
    }

    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let (upper, lower) = (sorted[sorted.len() / 2], sorted[(sorted.len() - 1) / 2]);
        f64::midpoint(lower, upper)
    }

    /// The quartiles: half of the rounds lie between them.
    pub fn middle_half(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let quarter = sorted.len() / 4;
        (sorted[quarter], sorted[sorted.len() - 1 - quarter])
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// Whether the median meets the target; `None` without a target.
    pub fn is_met(&self) -> Option<bool> {
        match self.target {
            Target::AtMost(bound) => Some(self.median() <= bound),
            Target::AtLeast(bound) => Some(self.median() >= bound),
            Target::None => None,
        }
    }
}

impl Unit {
    pub fn print(self, value: f64) -> String {
        match self {
            Self::NsPerPacket | Self::NsPerConnection => format!("{value:.0} ns"),
            Self::ConnectionsPerSec => format!("{value:.0} /s"),
            Self::FlowsPerSec => format!("{:.2} M/s", value / 1e6),
            Self::GigabitsPerSec => format!("{value:.1} Gbit/s"),
            Self::Ratio => format!("{value:.2} x"),
            Self::Micros => format!("{value:.0} us"),
            Self::Bytes => format!("{value:.0} B"),
            Self::Millis if value < 100.0 => format!("{value:.1} ms"),
            Self::Millis => format!("{value:.0} ms"),
            Self::Mebibytes => format!("{value:.1} MiB"),
            Self::Count => format!("{value:.0}"),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.middle_half();
        let range = format!("{} .. {}", self.unit.print(low), self.unit.print(high));
        let target = match self.target {
            Target::AtMost(bound) => format!("<= {}", self.unit.print(bound)),
            Target::AtLeast(bound) => format!(">= {}", self.unit.print(bound)),
            Target::None => String::new(),
        };
        let verdict = match self.is_met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        write!(f, "{:<58} {:>14} {range:>30} {target:>14} {verdict}", self.what, self.unit.print(self.median()))
    }
}

/// The table as the terminal shows it.
pub fn table(figures: &[Figure]) -> String {
    let head = format!("{:<58} {:>14} {:>30} {:>14}\n", "what", "median", "half of the rounds", "target");
    figures.iter().fold(head, |text, figure| text + figure.to_string().trim_end() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_of_its_rounds() {
        let odd = Figure::new("odd", Unit::NsPerPacket, Target::AtMost(30.0), vec![40.0, 0.0, 30.0, 90.0, 20.0]);
        assert_eq!((odd.median(), odd.middle_half(), odd.is_met()), (30.0, (20.0, 40.0), Some(true)));
        let even = Figure::new("even", Unit::Ratio, Target::AtLeast(1.1), vec![1.0, 1.1]);
        assert_eq!((even.median(), even.is_met()), (1.05, Some(false)));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let us = Figure::new("us", Unit::ConnectionsPerSec, Target::None, vec![110.0, 220.0]);
        let them = Figure::new("them", Unit::ConnectionsPerSec, Target::None, vec![100.0, 200.0]);
        let ratio = Figure::ratio("us / them", Target::None, &us, &them);
        assert!((ratio.middle_half().0 - ratio.middle_half().1).abs() < 1e-9, "{ratio}");
    }

    #[test]
    fn a_missed_target_is_said() {
        let figure = Figure::new("no interest", Unit::NsPerPacket, Target::AtMost(30.0), vec![31.0]);
        assert!(table(&[figure]).contains("<= 30 ns MISSED"));
    }
}
