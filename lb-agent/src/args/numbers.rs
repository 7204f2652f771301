//! Numbers of flags: plain, or with a suffix for thousands or for a unit of time.

use std::ops::RangeInclusive;

/// What a number counts, which decides the suffixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Things,
    Seconds,
    Milliseconds,
}

const THOUSANDS: &[(&str, u64)] =
    &[("k", 1000), ("Ki", 1 << 10), ("M", 1_000_000), ("Mi", 1 << 20), ("G", 1_000_000_000), ("Gi", 1 << 30)];
/// In milliseconds.
const TIMES: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A parser of a flag's value.
pub trait Parser: Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static {}

impl<F: Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static> Parser for F {}

/// A number of things: `65536`, `64Ki`.
pub fn count(range: RangeInclusive<u32>) -> impl Parser {
    move |text: &str| within(text, Unit::Things, &range)
}

/// Seconds: `300`, `300s`, `5m`.
pub fn seconds(range: RangeInclusive<u32>) -> impl Parser {
    move |text: &str| within(text, Unit::Seconds, &range)
}

/// Milliseconds: `50`, `50ms`, `1s`.
pub fn milliseconds(range: RangeInclusive<u32>) -> impl Parser {
    move |text: &str| within(text, Unit::Milliseconds, &range)
}

fn within(text: &str, unit: Unit, range: &RangeInclusive<u32>) -> Result<u32, String> {
    let number = number(text, unit)?;
    let is_within = |number: &u32| range.contains(number);
    u32::try_from(number)
        .ok()
        .filter(is_within)
        .ok_or_else(|| format!("{number} is not in {}..={}", range.start(), range.end()))
}

fn number(text: &str, unit: Unit) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, suffix) = text.split_at(digits);
    let wrong = || unit.remedy().to_owned();
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    if suffix.is_empty() {
        return Ok(number);
    }
    let suffixes = if unit == Unit::Things { THOUSANDS } else { TIMES };
    let (_, factor) = suffixes.iter().find(|(known, _)| *known == suffix).ok_or_else(wrong)?;
    let number = number.checked_mul(*factor).ok_or_else(wrong)?;
    if unit != Unit::Seconds {
        return Ok(number);
    }
    if number % 1000 == 0 { Ok(number / 1000) } else { Err(format!("{text} is no whole number of seconds")) }
}

impl Unit {
    const fn remedy(self) -> &'static str {
        match self {
            Self::Things => "write a number, as 65536, 64k (64,000) or 64Ki (65,536)",
            Self::Seconds => "write seconds, as 300, or a number with its unit, as 300s, 5m, 2h or 1d",
            Self::Milliseconds => "write milliseconds, as 50, or a number with its unit, as 50ms or 1s",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_multiply() {
        let (count, seconds, milliseconds) = (count(1..=1 << 30), seconds(1..=315_360_000), milliseconds(0..=10_000));
        for (text, number) in
            [("1", 1), ("64k", 64_000), ("64Ki", 65_536), ("1M", 1_000_000), ("1Mi", 1 << 20), ("1Gi", 1 << 30)]
        {
            assert_eq!(count(text), Ok(number), "{text}");
        }
        for (text, number) in
            [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86_400), ("2000ms", 2), ("3650d", 315_360_000)]
        {
            assert_eq!(seconds(text), Ok(number), "{text}");
        }
        for (text, number) in [("50", 50), ("50ms", 50), ("1s", 1000), ("0", 0)] {
            assert_eq!(milliseconds(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_gets_an_example() {
        for text in ["", "k", "64K", "64kB", "1.5M", "-1", "1_000", "1 k", "0x10", "5m", "99999999999999999999", "٣"] {
            let said = count(1..=1 << 30)(text).expect_err(text);
            assert!(said.contains("64k") && said.contains("64Ki"), "{text}: {said}");
        }
        for text in ["", "5min", "1h30m", "64k", "1.5h", "s"] {
            let said = seconds(1..=9)(text).expect_err(text);
            assert!(said.contains("5m"), "{text}: {said}");
        }
        assert_eq!(seconds(1..=9)("1500ms"), Err("1500ms is no whole number of seconds".into()));
        assert_eq!(seconds(1..=9)("0"), Err("0 is not in 1..=9".into()));
        assert_eq!(count(1..=9)("1Gi"), Err("1073741824 is not in 1..=9".into()));
        assert_eq!(count(1..=u32::MAX)("8Gi"), Err("8589934592 is not in 1..=4294967295".into()));
    }
}
