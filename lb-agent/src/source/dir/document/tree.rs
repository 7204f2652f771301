//! A document as a tree: the common part of YAML and JSON, with the line of each node.
//!
//! YAML means the same here as to kubectl (`sigs.k8s.io/yaml`): YAML 1.1 scalars, merge keys, aliases.

mod json;
mod scalar;
mod typed;
mod yaml;

use std::rc::Rc;

pub use json::{ItemsSeed, read as read_json};
pub use scalar::{Plain, resolve};
pub use typed::{Unknown, parse};
pub use yaml::{Note, compose, compose_list};

/// The most nested sequences and mappings. Kubernetes objects have fewer than 20 levels. `serde_json` has the same
/// limit.
pub const DEPTH_MAX: usize = 128;
/// The largest size of one object with its aliases written out. The API server accepts requests of 3 MiB.
pub const COST_MAX: u64 = 32 << 20;
/// Approximate memory of a node besides its text.
const NODE_COST: u64 = 64;

/// A node and its descendants. Aliases share nodes.
#[derive(Debug)]
pub struct Node {
    /// Line of the file, from 1; 0 in JSON.
    pub line: usize,
    /// Size with aliases written out.
    cost: u64,
    /// Levels of sequences and mappings, including this one, with aliases written out.
    height: usize,
    pub value: Value,
}

#[derive(Debug)]
pub enum Value {
    /// Without quotes: may mean null, a truth value or a number.
    Plain(Box<str>),
    Text(Box<str>),
    Sequence(Vec<Rc<Node>>),
    /// Each key occurs once.
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

    /// The value of a key, if this is a mapping that has the key.
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

    /// Whether both nodes have equal content, whatever their lines.
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
