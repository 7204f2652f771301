//! Remembers what was reported about one kind, as hashes.
//!
//! A new list is compared with the hashes, so that missed deletions are found and unchanged objects are not reported
//! again. No object is kept.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};

use super::read::{Form, Told};
use crate::model::{Change, Kind, ObjectName, ObjectRef};

/// What was reported so far.
#[derive(Debug)]
pub struct Tracker {
    kind: Kind,
    /// Hash keys are random, so an author cannot create two objects with equal hashes.
    hasher: RandomState,
    known: HashMap<ObjectName, Known>,
}

/// Hashes of what was reported about an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    /// The last good form.
    object: Option<u64>,
    /// The warning about the newest form, if it cannot be read.
    trouble: Option<u64>,
}

/// A list in progress. It changes nothing until it is flushed or finished.
#[derive(Debug, Default)]
pub struct Relist {
    seen: HashMap<ObjectName, Known>,
    changes: Vec<Change>,
    /// Names of the objects in `changes`.
    fresh: Vec<ObjectName>,
}

impl Tracker {
    pub fn new(kind: Kind) -> Self {
        Self { kind, hasher: RandomState::new(), known: HashMap::new() }
    }

    /// Number of known objects.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Records the current form of an object.
    pub fn apply(&mut self, told: Told, changes: &mut Vec<Change>) {
        let before = self.known.get(&told.name).copied().unwrap_or_default();
        let name = told.name.clone();
        match self.compare(before, told, changes) {
            Some(known) => drop(self.known.insert(name, known)),
            None => drop(self.known.remove(&name)),
        }
    }

    /// Records that an object was deleted.
    pub fn remove(&mut self, name: &ObjectName, changes: &mut Vec<Change>) {
        if let Some(known) = self.known.remove(name) {
            self.tell_gone(name, known, changes);
        }
    }

    /// Reports what is new about an object. Returns the new state; `None` if the object is irrelevant.
    fn compare(&self, before: Known, told: Told, changes: &mut Vec<Change>) -> Option<Known> {
        match told.form {
            Form::Object(converted) => {
                let hash = self.hash(&*converted);
                if before.trouble.is_some() {
                    changes.push(Change::Place { place: self.place(&told.name), warnings: Vec::new() });
                }
                if before.object != Some(hash) {
                    let (object, warnings) = *converted;
                    changes.push(Change::Apply { object, warnings });
                }
                Some(Known { object: Some(hash), trouble: None })
            }
            Form::Bad(warning) => {
                let hash = self.hash(&*warning);
                if before.trouble != Some(hash) {
                    changes.push(Change::Place { place: self.place(&told.name), warnings: vec![*warning] });
                }
                Some(Known { trouble: Some(hash), ..before })
            }
            Form::Nobodys => {
                self.tell_gone(&told.name, before, changes);
                None
            }
        }
    }

    fn tell_gone(&self, name: &ObjectName, known: Known, changes: &mut Vec<Change>) {
        if known.trouble.is_some() {
            changes.push(Change::Place { place: self.place(name), warnings: Vec::new() });
        }
        if known.object.is_some() {
            changes.push(Change::Remove(ObjectRef { kind: self.kind, name: name.clone() }));
        }
    }

    fn place(&self, name: &ObjectName) -> String {
        format!("API: {} {name}", self.kind.name())
    }

    fn hash(&self, value: &impl Hash) -> u64 {
        self.hasher.hash_one(value)
    }
}

impl Relist {
    /// Records that the list has this object.
    pub fn take(&mut self, told: Told, tracker: &Tracker) {
        if told.form == Form::Nobodys {
            return; // As if the list did not have it.
        }
        let before = tracker.known.get(&told.name).copied().unwrap_or_default();
        let name = told.name.clone();
        if let Some(known) = tracker.compare(before, told, &mut self.changes) {
            self.fresh.push(name.clone());
            self.seen.insert(name, known);
        }
    }

    /// Number of objects in the list so far.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Returns the changes so far, without deletions: for a first list, before which nothing was known.
    pub fn flush(&mut self, tracker: &mut Tracker) -> Vec<Change> {
        let fresh = std::mem::take(&mut self.fresh).into_iter();
        tracker.known.extend(fresh.filter_map(|name| self.seen.get(&name).map(|known| (name, *known))));
        std::mem::take(&mut self.changes)
    }

    /// Completes the list: objects that it does not have were deleted. All changes are one batch.
    pub fn finish(mut self, tracker: &mut Tracker) -> Vec<Change> {
        let gone = std::mem::take(&mut tracker.known).into_iter().filter(|(name, _)| !self.seen.contains_key(name));
        let gone: Vec<(ObjectName, Known)> = gone.collect();
        for (name, known) in &gone {
            tracker.tell_gone(name, *known, &mut self.changes);
        }
        tracker.known = self.seen;
        self.changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Node, Object, Warning, WarningKind};

    fn node(name: &str, zone: &str) -> Told {
        let node = Node { name: name.into(), zone: Some(zone.into()), addresses: Vec::new(), is_leaving: false };
        Told { name: ObjectName::new("", name), version: None, form: Form::Object((Object::Node(node), vec![]).into()) }
    }

    fn with_form(name: &str, form: Form) -> Told {
        Told { name: ObjectName::new("", name), version: None, form }
    }

    fn bad(name: &str) -> Told {
        with_form(name, Form::Bad(Warning::new(WarningKind::BadDocument, "is bad", "make it good").into()))
    }

    fn describe(changes: &[Change]) -> Vec<String> {
        let mut texts: Vec<String> = changes
            .iter()
            .map(|change| match change {
                Change::Apply { object, .. } => format!("+ {}", object.reference()),
                Change::Remove(object) => format!("- {object}"),
                Change::Place { place, warnings } => format!("{} at {place}", warnings.len()),
                Change::Listed => "listed".to_owned(),
            })
            .collect();
        texts.sort();
        texts
    }

    fn applied(tracker: &mut Tracker, told: Told) -> Vec<String> {
        let mut changes = Vec::new();
        tracker.apply(told, &mut changes);
        describe(&changes)
    }

    fn listed(tracker: &mut Tracker, list: Vec<Told>) -> Vec<String> {
        let mut relist = Relist::default();
        for told in list {
            relist.take(told, tracker);
        }
        describe(&relist.finish(tracker))
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut tracker = Tracker::new(Kind::Node);
        assert_eq!(applied(&mut tracker, node("a", "x")), ["+ Node a"]);
        assert_eq!(applied(&mut tracker, node("a", "x")), [""; 0]);
        assert_eq!(applied(&mut tracker, node("a", "y")), ["+ Node a"]);
        let mut changes = Vec::new();
        for _ in 0..2 {
            tracker.remove(&ObjectName::new("", "a"), &mut changes);
        }
        assert_eq!(describe(&changes), ["- Node a"]);
    }

    #[test]
    fn a_list_finds_deletions_that_were_lost() {
        let mut tracker = Tracker::new(Kind::Node);
        listed(&mut tracker, vec![node("a", "x"), node("b", "x"), node("c", "x")]);
        let changes = listed(&mut tracker, vec![node("a", "x"), node("c", "y"), node("d", "x")]);
        assert_eq!(changes, ["+ Node c", "+ Node d", "- Node b"]);
    }

    #[test]
    fn a_list_that_breaks_off_changes_nothing() {
        let mut tracker = Tracker::new(Kind::Node);
        listed(&mut tracker, vec![node("a", "x")]);
        let mut relist = Relist::default();
        relist.take(node("a", "y"), &tracker);
        drop(relist);
        assert_eq!(listed(&mut tracker, vec![node("a", "y")]), ["+ Node a"]);
    }

    #[test]
    fn what_was_flushed_is_known_also_when_the_list_breaks_off() {
        let mut tracker = Tracker::new(Kind::Node);
        let mut relist = Relist::default();
        relist.take(node("a", "x"), &tracker);
        assert_eq!(describe(&relist.flush(&mut tracker)), ["+ Node a"]);
        relist.take(node("b", "x"), &tracker);
        drop(relist);
        assert_eq!(listed(&mut tracker, vec![node("b", "x")]), ["+ Node b", "- Node a"]);
    }

    #[test]
    fn the_last_good_form_of_an_unreadable_object_stays() {
        let mut tracker = Tracker::new(Kind::Node);
        listed(&mut tracker, vec![node("a", "x")]);
        assert_eq!(applied(&mut tracker, bad("a")), ["1 at API: Node a"]);
        assert_eq!(applied(&mut tracker, bad("a")), [""; 0]);
        assert_eq!(listed(&mut tracker, vec![bad("a")]), [""; 0]);
        assert_eq!(applied(&mut tracker, node("a", "x")), ["0 at API: Node a"]);
        assert_eq!(applied(&mut tracker, bad("a")), ["1 at API: Node a"]);
        assert_eq!(listed(&mut tracker, vec![]), ["- Node a", "0 at API: Node a"]);
    }

    #[test]
    fn what_concerns_nobody_any_more_is_gone() {
        let mut tracker = Tracker::new(Kind::Node);
        listed(&mut tracker, vec![node("a", "x"), node("b", "x")]);
        assert_eq!(applied(&mut tracker, with_form("a", Form::Nobodys)), ["- Node a"]);
        assert_eq!(listed(&mut tracker, vec![with_form("b", Form::Nobodys)]), ["- Node b"]);
        assert_eq!(tracker.len(), 0);
    }
}
