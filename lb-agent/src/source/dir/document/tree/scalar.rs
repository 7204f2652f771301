//! Resolves scalars without quotes as go-yaml 2 does, on which kubectl is based.

/// The meaning of a plain scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plain<'a> {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(&'a str),
}

/// Resolves the text. Infinities and "not a number" stay text, because JSON lacks them.
pub fn resolve(text: &str) -> Plain<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Plain::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Plain::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Plain::Bool(false),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) => number(text),
        _ => Plain::Text(text),
    }
}

fn number(text: &str) -> Plain<'_> {
    let digits = text.replace('_', "");
    if let Some(int) = integer(&digits).filter(|_| !text.starts_with('.')) {
        return Plain::Int(int);
    }
    match digits.parse::<f64>() {
        Ok(float) if is_float(&digits) && float.is_finite() => Plain::Float(float),
        Ok(_) | Err(_) => Plain::Text(text),
    }
}

/// A 64-bit integer in the bases of Go's `ParseInt`. A leading 0 alone means octal.
fn integer(text: &str) -> Option<i128> {
    let (is_negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let prefixes = [("0x", 16), ("0X", 16), ("0b", 2), ("0B", 2), ("0o", 8), ("0O", 8), ("0", 8)];
    let (digits, base) = prefixes
        .iter()
        .find_map(|(prefix, base)| Some((digits.strip_prefix(prefix).filter(|rest| !rest.is_empty())?, *base)))
        .unwrap_or((digits, 10));
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let int = i128::from(u64::from_str_radix(digits, base).ok()?);
    let int = if is_negative { -int } else { int };
    (int >= i128::from(i64::MIN)).then_some(int)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).map_or((unsigned, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let is_mantissa = match fraction {
        None => are_digits(whole),
        Some(fraction) if whole.is_empty() => are_digits(fraction),
        Some(fraction) => are_digits(whole) && (fraction.is_empty() || are_digits(fraction)),
    };
    is_mantissa && exponent.is_none_or(|exponent| are_digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pair is a result of kubectl 1.32.
    #[test]
    fn scalars_mean_what_they_mean_to_kubectl() {
        let ints = [("0x50", 80), ("0o17", 15), ("017", 15), ("1_000", 1000), ("0b11", 3), ("-0x10", -16), ("+5", 5)];
        for (text, int) in ints.into_iter().chain([("0_7", 7), ("0", 0), ("-0", 0)]) {
            assert_eq!(resolve(text), Plain::Int(int), "{text}");
        }
        for (text, float) in [("0080", 80.0), ("08", 8.0), ("8e1", 80.0), ("8.0e+1", 80.0), (".5", 0.5), ("5.", 5.0)] {
            assert_eq!(resolve(text), Plain::Float(float), "{text}");
        }
        for text in ["yes", "Yes", "y", "on", "True"] {
            assert_eq!(resolve(text), Plain::Bool(true), "{text}");
        }
        for text in ["n", "off", "NO", "false"] {
            assert_eq!(resolve(text), Plain::Bool(false), "{text}");
        }
        for text in ["~", "null", "NULL", ""] {
            assert_eq!(resolve(text), Plain::Null, "{text}");
        }
        for text in
            ["0x1p4", "12:30", "2001-12-14", "_1", "tRue", "1e400", "-", "+", ".", "0x", "--1", "+-1", "1.2.3.4"]
        {
            assert_eq!(resolve(text), Plain::Text(text), "{text}");
        }
        assert_eq!(resolve("99999999999999999999"), Plain::Float(1e20));
    }
}
