//! A document as a tree: what YAML and JSON have in common, with the line of each node.
//!
//! YAML means here what it means to kubectl (`sigs.k8s.io/yaml`): YAML 1.1 scalars, merge keys, aliases.

mod json;
mod scalar;
mod typed;
mod yaml;

use std::rc::Rc;

pub use json::{ItemsSeed, read as read_json};
pub use scalar::{Plain, resolve};
pub use typed::{Unknown, parse};
pub use yaml::{Note, compose, compose_list};

/// Nested sequences and mappings. Objects of Kubernetes have less than 20 levels; `serde_json` reads as many.
pub const DEPTH_MAX: usize = 128;
/// Size of one object with its aliases written out. The API server takes requests of 3 MiB.
pub const COST_MAX: u64 = 32 << 20;
/// What a node takes in memory beside its text, about.
const NODE_COST: u64 = 64;

/// A node and all below it. Aliases share theirs.
#[derive(Debug)]
pub struct Node {
    /// Of the file, from 1; 0 in JSON.
    pub line: usize,
    /// With aliases written out.
    cost: u64,
    /// Levels of sequences and mappings, this one included, with aliases written out.
    height: usize,
    pub value: Value,
}

#[derive(Debug)]
pub enum Value {
    /// Without quotes: the text may mean null, a truth value or a number.
    Plain(Box<str>),
    Text(Box<str>),
    Sequence(Vec<Rc<Node>>),
    /// Each key once.
    Mapping(Vec<(Key, Rc<Node>)>),
}

#[derive(Clone, Debug)]
pub struct Key {
    pub line: usize,
    pub name: Rc<str>,
}

impl Key {
    fn cost(&self) -> u64 {
        self.name.len() as u64
    }
}

impl Node {
    fn new(line: usize, value: Value) -> Self {
        let (cost, height) = match &value {
            Value::Plain(text) | Value::Text(text) => (text.len() as u64, 0),
            Value::Sequence(items) => {
                let highest = items.iter().map(|item| item.height).max();
                (items.iter().map(|item| item.cost).sum(), 1 + highest.unwrap_or(0))
            }
            Value::Mapping(entries) => {
                let highest = entries.iter().map(|(_, node)| node.height).max();
                (entries.iter().map(|(key, node)| key.cost() + node.cost).sum(), 1 + highest.unwrap_or(0))
            }
        };
        Self { line, cost: NODE_COST + cost, height, value }
    }

    /// The value of a key, where this is a mapping that has it.
    pub fn get(&self, name: &str) -> Option<&Rc<Self>> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|(key, _)| *key.name == *name).map(|(_, node)| node),
            Value::Plain(_) | Value::Text(_) | Value::Sequence(_) => None,
        }
    }

    /// The text of a scalar that is not null.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Plain(text) | Value::Text(text) => Some(&**text).filter(|_| !self.is_null()),
            Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Plain(text) if resolve(text) == Plain::Null)
    }

    /// Whether both say the same, wherever they stand.
    fn is_like(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Plain(a), Value::Plain(b)) | (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Sequence(a), Value::Sequence(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Rc::ptr_eq(a, b) || a.is_like(b))
            }
            (Value::Mapping(a), Value::Mapping(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .zip(b)
                        .all(|((key_a, a), (key_b, b))| key_a.name == key_b.name && (Rc::ptr_eq(a, b) || a.is_like(b)))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
