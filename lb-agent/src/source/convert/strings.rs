//! Strings that many objects repeat, each stored once for as long as an object has it.

use std::collections::HashSet;
use std::sync::Arc;

/// Fewer strings than this are not worth a sweep.
const SWEEP_MIN: usize = 1_024;

/// The strings, and when to look for those that nobody has any more.
#[derive(Debug)]
pub struct Strings {
    known: HashSet<Arc<str>>,
    /// With so many strings the unused ones are dropped: twice those that were in use the last time, so that looking
    /// costs no more than inserting did.
    sweep_at: usize,
}

impl Default for Strings {
    fn default() -> Self {
        Self { known: HashSet::new(), sweep_at: SWEEP_MIN }
    }
}

impl Strings {
    /// The one copy of this text.
    pub fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.known.shrink_to_fit();
            self.sweep_at = SWEEP_MIN.max(2 * self.known.len());
        }
        let new: Arc<str> = text.into();
        self.known.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one() {
        let mut strings = Strings::default();
        let (first, second) = (strings.share("zone-a"), strings.share("zone-a"));
        assert!(Arc::ptr_eq(&first, &second));
    }

    /// Nodes come and go for as long as an agent runs.
    #[test]
    fn what_nobody_has_any_more_is_forgotten_and_the_rest_stays() {
        let mut strings = Strings::default();
        let kept: Vec<_> = (0..SWEEP_MIN).map(|number| strings.share(&format!("kept-{number}"))).collect();
        for number in 0..100 * SWEEP_MIN {
            strings.share(&format!("gone-{number}"));
        }
        assert!(strings.known.len() <= 2 * kept.len() + 1, "{} strings are known", strings.known.len());
        assert!(kept.iter().all(|text| Arc::ptr_eq(text, &strings.share(text))));
    }
}
