//! Reads JSON into a tree. Numbers and words become plain scalars, strings become texts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{COST_MAX, Key, NODE_COST, Node, Note, Value};

/// Reads the text. The error is not reported, because the text is then read as YAML.
pub fn read(text: &str) -> Result<(Rc<Node>, Vec<Note>), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let reading = Reading::default();
    let node = reading.deserialize(&mut json)?;
    json.end()?;
    Ok((node, reading.notes.into_inner()))
}

/// The cost and notes of one object while it is read.
#[derive(Default)]
struct Reading {
    /// The cost so far.
    spent: Cell<u64>,
    notes: RefCell<Vec<Note>>,
}

impl Reading {
    fn spend<E: Error>(&self, bytes: usize) -> Result<(), E> {
        self.spent.set(self.spent.get() + NODE_COST + bytes as u64);
        if self.spent.get() > COST_MAX {
            return Err(E::custom(format_args!("the object takes more than {} MiB", COST_MAX >> 20)));
        }
        Ok(())
    }

    fn plain<E: Error>(&self, text: String) -> Result<Rc<Node>, E> {
        self.spend(text.len())?;
        Ok(Node::new(0, Value::Plain(text.into())).into())
    }
}

impl<'de> DeserializeSeed<'de> for &Reading {
    type Value = Rc<Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Rc<Node>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Reading {
    type Value = Rc<Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Rc<Node>, E> {
        self.plain(value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Rc<Node>, E> {
        self.plain(value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Rc<Node>, E> {
        self.plain(value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Rc<Node>, E> {
        self.plain(value.to_string())
    }

    fn visit_unit<E: Error>(self) -> Result<Rc<Node>, E> {
        self.plain("null".to_owned())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Rc<Node>, E> {
        self.spend(text.len())?;
        Ok(Node::new(0, Value::Text(text.into())).into())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut access: S) -> Result<Rc<Node>, S::Error> {
        self.spend(0)?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Node::new(0, Value::Sequence(items)).into())
    }

    fn visit_map<M: MapAccess<'de>>(self, mut access: M) -> Result<Rc<Node>, M::Error> {
        self.spend(0)?;
        let mut entries: Vec<(Key, Rc<Node>)> = Vec::new();
        let mut index = HashMap::<Rc<str>, usize>::new();
        while let Some(name) = access.next_key::<String>()? {
            self.spend(name.len())?;
            let name: Rc<str> = name.into();
            let node = access.next_value_seed(self)?;
            match index.entry(Rc::clone(&name)) {
                Entry::Vacant(free) => {
                    free.insert(entries.len());
                    entries.push((Key { line: 0, name }, node));
                }
                Entry::Occupied(taken) => {
                    let before = std::mem::replace(&mut entries[*taken.get()].1, node);
                    if !before.is_like(&entries[*taken.get()].1) {
                        self.notes.borrow_mut().push(Note::twice(0, &name));
                    }
                }
            }
        }
        Ok(Node::new(0, Value::Mapping(entries)).into())
    }
}

/// Reads a list object item by item, so that a large list is never in memory as a whole.
pub struct ItemsSeed<F>(pub F);

impl<'de, F: FnMut(Rc<Node>, Vec<Note>)> DeserializeSeed<'de> for ItemsSeed<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(Rc<Node>, Vec<Note>)> Visitor<'de> for ItemsSeed<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list object")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                map.next_value_seed(Each(&mut self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Each<'a, F>(&'a mut F);

impl<'de, F: FnMut(Rc<Node>, Vec<Note>)> DeserializeSeed<'de> for Each<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(Rc<Node>, Vec<Note>)> Visitor<'de> for Each<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of objects")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<(), S::Error> {
        loop {
            let reading = Reading::default();
            let Some(item) = items.next_element_seed(&reading)? else { return Ok(()) };
            (self.0)(item, reading.notes.into_inner());
        }
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
