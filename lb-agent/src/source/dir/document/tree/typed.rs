//! Deserializes a tree to a type. Errors name field and line, and keys that the type lacks are reported.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::{Key, Node, Plain, Value, resolve};
use crate::source::dir::document::fault::Fault;

/// A key for which the type has no field.
#[derive(Debug)]
pub struct Unknown {
    /// Path of the mapping that has the key.
    pub place: String,
    pub key: String,
    pub line: usize,
    /// The fields of that mapping's type.
    pub fields: &'static [&'static str],
}

/// Deserializes the tree, and returns the keys that the type lacks.
pub fn parse<T: DeserializeOwned>(node: &Node) -> Result<(T, Vec<Unknown>), Fault> {
    let unknown = RefCell::default();
    let typed = Typed { node, place: Place::Top, unknown: &unknown };
    let value = T::deserialize(typed).map_err(|fault| fault.on_line(node.line))?;
    Ok((value, unknown.into_inner()))
}

/// The path of a node.
#[derive(Clone, Copy)]
enum Place<'a> {
    Top,
    Key(&'a Self, &'a str),
    Item(&'a Self, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => Ok(()),
            Self::Key(Self::Top, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[derive(Clone, Copy)]
struct Typed<'a> {
    node: &'a Node,
    place: Place<'a>,
    unknown: &'a RefCell<Vec<Unknown>>,
}

impl<'a> Typed<'a> {
    fn note_unknown(&self, fields: &'static [&'static str]) {
        let Value::Mapping(entries) = &self.node.value else { return };
        let unknown = entries.iter().filter(|(key, _)| !fields.contains(&&*key.name)).map(|(key, _)| Unknown {
            place: self.place.to_string(),
            key: key.name.as_ref().to_owned(),
            line: key.line,
            fields,
        });
        self.unknown.borrow_mut().extend(unknown);
    }

    const fn items(&self, items: &'a [Rc<Node>]) -> Items<'a> {
        Items { of: *self, left: items, index: 0 }
    }

    const fn entries(&self, entries: &'a [(Key, Rc<Node>)]) -> Entries<'a> {
        Entries { of: *self, left: entries }
    }
}

impl<'de> Deserializer<'de> for Typed<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Sequence(items) => visitor.visit_seq(self.items(items)),
            Value::Mapping(entries) => visitor.visit_map(self.entries(entries)),
            Value::Plain(text) => match resolve(text) {
                Plain::Null => visitor.visit_unit(),
                Plain::Bool(value) => visitor.visit_bool(value),
                Plain::Int(value) => match (i64::try_from(value), u64::try_from(value)) {
                    (Ok(value), _) => visitor.visit_i64(value),
                    (Err(_), Ok(value)) => visitor.visit_u64(value),
                    (Err(_), Err(_)) => visitor.visit_i128(value),
                },
                // kubectl sends objects to the API server as JSON, in which 80.0 becomes 80.
                Plain::Float(value) if value.fract() == 0.0 && value.abs() < f64::from(1 << 30) => {
                    visitor.visit_i64(value as i64)
                }
                Plain::Float(value) => visitor.visit_f64(value),
                Plain::Text(text) => visitor.visit_str(text),
            },
        }
    }

    /// The text as written, whatever a plain scalar would mean.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Plain(text) | Value::Text(text) => visitor.visit_str(text),
            Value::Sequence(_) | Value::Mapping(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    /// Null means an empty sequence.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.node.is_null() { visitor.visit_seq(self.items(&[])) } else { self.deserialize_any(visitor) }
    }

    /// Null means an empty mapping.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.node.is_null() { visitor.visit_map(self.entries(&[])) } else { self.deserialize_any(visitor) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.note_unknown(fields);
        self.deserialize_map(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum
    }
}

struct Items<'a> {
    of: Typed<'a>,
    left: &'a [Rc<Node>],
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((node, left)) = self.left.split_first() else { return Ok(None) };
        let place = Place::Item(&self.of.place, self.index);
        (self.left, self.index) = (left, self.index + 1);
        let item = seed.deserialize(Typed { node, place, unknown: self.of.unknown });
        item.map(Some).map_err(|fault| fault.at(|| place.to_string()).on_line(node.line))
    }
}

struct Entries<'a> {
    of: Typed<'a>,
    /// The value of the first entry is next.
    left: &'a [(Key, Rc<Node>)],
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, _)) = self.left.first() else { return Ok(None) };
        let name: StrDeserializer<'_, Fault> = (*key.name).into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some(((key, node), left)) = self.left.split_first() else { return Err(Fault::new("a value is missing")) };
        self.left = left;
        let place = Place::Key(&self.of.place, &key.name);
        let value = seed.deserialize(Typed { node, place, unknown: self.of.unknown });
        value.map_err(|fault| fault.at(|| place.to_string()).on_line(node.line))
    }
}
