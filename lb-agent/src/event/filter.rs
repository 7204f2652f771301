//! The reasons that a filter of `lb-agent monitor` names, as values of its flag.

use std::str::FromStr;

use lb_common::table::Counter;

/// The reason of an event, by the name of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(Counter);

impl Reason {
    pub const fn name(self) -> &'static str {
        self.0.name()
    }
}

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let told = |counter: &&Counter| super::kind(**counter).is_some();
        let known = Counter::ALL.iter().filter(told).find(|counter| counter.name() == text);
        known.map(|counter| Self(*counter)).ok_or_else(|| {
            let names: Vec<_> = Counter::ALL.iter().filter(told).map(|counter| counter.name()).collect();
            format!("{text:?} is no reason: one of {}", names.join(", "))
        })
    }
}
