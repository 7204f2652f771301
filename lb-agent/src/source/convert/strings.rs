//! Stores repeated strings of objects once, for as long as any object uses them.

use std::collections::HashSet;
use std::sync::Arc;

/// With fewer strings than this, unused ones are not swept.
const SWEEP_MIN: usize = 1_024;

/// The strings, and when to sweep the unused ones.
#[derive(Debug)]
pub struct Strings {
    known: HashSet<Arc<str>>,
    /// Number of strings at which unused ones are dropped: twice the number in use after the last sweep, so that
    /// sweeping costs no more than inserting.
    sweep_at: usize,
}

impl Default for Strings {
    fn default() -> Self {
        Self { known: HashSet::new(), sweep_at: SWEEP_MIN }
    }
}

impl Strings {
    /// The shared copy of this text.
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

    /// Nodes come and go during the life of an agent.
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
