//! Escapes characters in foreign text that could forge a line, move a cursor or change the text direction. All text
//! that is printed, logged or served passes through here.

use std::borrow::Cow;

/// The most bytes of a foreign text that are quoted.
const QUOTED_MAX: usize = 64;

/// The text on one line, with unprintable characters escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) {
            plain.push(c);
        } else {
            plain.extend(c.escape_default());
        }
    }
    Cow::Owned(plain)
}

/// The same for JSON. Unprintable characters occur only in its strings, except for the line ends between them.
pub fn printable_json(json: String) -> String {
    if json.chars().all(|c| is_plain(c) || c == '\n') {
        return json;
    }
    let mut plain = String::with_capacity(json.len());
    for c in json.chars() {
        if is_plain(c) || c == '\n' {
            plain.push(c);
        } else {
            plain.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    plain
}

/// The text in quotes, shortened if it is long.
pub fn quoted(text: &str) -> String {
    format!("{:?}", bounded(text, QUOTED_MAX))
}

/// The text, shortened if it has more bytes than this.
pub fn bounded(text: &str, bytes_max: usize) -> Cow<'_, str> {
    match &text[..text.floor_char_boundary(bytes_max)] {
        start if start.len() < text.len() => Cow::Owned(format!("{start}…")),
        whole => Cow::Borrowed(whole),
    }
}

/// Whether a character only prints itself: no control or format character, no space but the ordinary one, no combining
/// mark. Beyond ASCII, `char::escape_debug` decides.
fn is_plain(c: char) -> bool {
    matches!(c, ' '..='~') || (!c.is_ascii() && c.escape_debug().count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ESC, BEL, line ends, C1, DEL, directions, invisible ones, and marks that pile up.
    const HOSTILE: &str =
        "a\u{1b}[2J\u{7}\n\r\t\u{9b}31m\u{7f}\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}\u{ad}\u{a0}e\u{301}\u{e0041}b";

    #[test]
    fn what_does_not_show_itself_is_spelled_out() {
        let plain = printable(HOSTILE);
        assert!(plain.starts_with(r"a\u{1b}[2J\u{7}\n\r\t\u{9b}31m\u{7f}\u{202e}"), "{plain}");
        assert!(plain.ends_with(r"e\u{301}\u{e0041}b") && plain.is_ascii(), "{plain}");
        assert_eq!(printable(&plain), plain);
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in ["", "shop/web:http", r#"a "b" 'c' \d {e}"#, "Grüße, 世界 → ✓ 😀"] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn json_says_the_same_in_plain_characters() {
        let json = printable_json(serde_json::to_string_pretty(&[HOSTILE, "ü"]).expect("strings"));
        assert!(json.chars().all(|c| c == '\n' || !c.is_control()) && !json.contains('\u{202e}'), "{json}");
        assert_eq!(json.lines().count(), 4);
        assert_eq!(serde_json::from_str::<[String; 2]>(&json).expect("JSON"), [HOSTILE, "ü"]);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(bounded("äöü", 3), "ä…");
        assert_eq!(bounded("äöü", 6), "äöü");
        assert_eq!(quoted(&"x".repeat(1 << 20)).len(), QUOTED_MAX + "\"…\"".len());
    }
}
