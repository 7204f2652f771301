//! Reads YAML into a tree, within limits of depth and of size with aliases written out.
//!
//! The grammar is libyaml's, as for go-yaml and therefore kubectl.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;

use libyaml_safer::{Event, EventData, Parser, ScalarStyle};

use super::{COST_MAX, DEPTH_MAX, Key, NODE_COST, Node, Plain, Value, resolve};
use crate::source::dir::document::Document;
use crate::source::dir::document::fault::Fault;

/// A note that something was read differently from what may be meant.
#[derive(Debug)]
pub struct Note {
    pub line: usize,
    pub key: Option<String>,
    pub problem: String,
    pub remedy: &'static str,
}

impl Note {
    /// A key that occurs twice with different values.
    pub fn twice(line: usize, key: &str) -> Self {
        Self {
            line,
            key: Some(key.to_owned()),
            problem: "appears twice in one mapping; the last value counts, as in kubectl".to_owned(),
            remedy: "keep one of them",
        }
    }
}

/// Reads the document.
pub fn compose(document: Document<'_>) -> Result<(Rc<Node>, Vec<Note>), Fault> {
    let mut composer = Composer::of(document);
    let event = composer.first_event()?;
    let node = composer.node(event)?;
    composer.end()?;
    Ok((node, composer.notes))
}

/// Reads a list object and passes on each of its items, so that a large list is never in memory as a whole.
pub fn compose_list(document: Document<'_>, each: &mut Each<'_>) -> Result<(), Fault> {
    let mut composer = Composer::of(document);
    let event = composer.first_event()?;
    match event.data {
        EventData::MappingStart { .. } => composer.list(each)?,
        _ => return Err(Fault::new("is not a list object").on_line(composer.line(&event))),
    }
    composer.end()
}

/// Takes the items of a list.
pub type Each<'a> = dyn FnMut(Rc<Node>, Vec<Note>) + 'a;

struct Composer<'t> {
    parser: Parser<&'t [u8]>,
    /// Line of the file on which the document starts.
    first_line: usize,
    /// Nodes by anchor; `None` while a node is being read.
    anchors: HashMap<String, Option<Rc<Node>>>,
    depth: usize,
    /// The cost of the object so far.
    spent: u64,
    notes: Vec<Note>,
}

impl<'t> Composer<'t> {
    fn of(document: Document<'t>) -> Self {
        let mut parser = Parser::new();
        parser.set_input(document.text.as_bytes());
        Self { parser, first_line: document.line, anchors: HashMap::new(), depth: 0, spent: 0, notes: Vec::new() }
    }

    fn line(&self, event: &Event) -> usize {
        self.first_line + event.start_mark.line as usize
    }

    fn next(&mut self) -> Result<Event, Fault> {
        self.parser.parse().map_err(|error| {
            let message = match (error.kind(), error.context()) {
                (libyaml_safer::ErrorKind::Reader, _) => error.to_string(),
                (_, Some(context)) => format!("{}, {context}", error.problem()),
                (_, None) => error.problem().to_owned(),
            };
            let line = error.problem_mark().map_or(0, |mark| self.first_line + mark.line as usize);
            Fault::new(message).on_line(line)
        })
    }

    /// The first event of the content.
    fn first_event(&mut self) -> Result<Event, Fault> {
        loop {
            let event = self.next()?;
            match event.data {
                EventData::StreamStart { .. } | EventData::DocumentStart { .. } => {}
                EventData::StreamEnd => return Err(Fault::new("is empty").on_line(self.first_line)),
                _ => return Ok(event),
            }
        }
    }

    fn end(&mut self) -> Result<(), Fault> {
        loop {
            let event = self.next()?;
            match event.data {
                EventData::DocumentEnd { .. } => {}
                EventData::StreamEnd => return Ok(()),
                _ => return Err(Fault::new("another document follows").on_line(self.line(&event))),
            }
        }
    }

    fn node(&mut self, event: Event) -> Result<Rc<Node>, Fault> {
        let line = self.line(&event);
        match event.data {
            EventData::Alias { anchor } => self.alias(&anchor, line),
            EventData::Scalar { anchor, tag, value, style, .. } => {
                let value = self.scalar(value.into(), style, tag.as_deref(), line)?;
                self.finish(anchor, Node::new(line, value))
            }
            EventData::SequenceStart { anchor, tag, .. } => {
                self.begin(anchor.as_deref(), tag.as_deref(), line)?;
                let mut items = Vec::new();
                loop {
                    let event = self.next()?;
                    if event.data == EventData::SequenceEnd {
                        break;
                    }
                    items.push(self.node(event)?);
                }
                self.depth -= 1;
                self.finish(anchor, Node::new(line, Value::Sequence(items)))
            }
            EventData::MappingStart { anchor, tag, .. } => {
                self.begin(anchor.as_deref(), tag.as_deref(), line)?;
                let mut entries = Entries::default();
                while let Some(key) = self.key()? {
                    let event = self.next()?;
                    self.refuse_nested_head(&key, &event)?;
                    let value = self.node(event)?;
                    self.add(&mut entries, key, value)?;
                }
                self.depth -= 1;
                self.finish(anchor, Node::new(line, Value::Mapping(entries.list)))
            }
            _ => Err(Fault::new("the parser of YAML is out of step").on_line(line)),
        }
    }

    /// Reports a nested `kind` or `apiVersion` first: the kind of a document matters more than other faults.
    fn refuse_nested_head(&self, key: &MapKey, event: &Event) -> Result<(), Fault> {
        let MapKey::Name(Key { name, .. }) = key else { return Ok(()) };
        let what = match event.data {
            EventData::SequenceStart { .. } => "sequence",
            EventData::MappingStart { .. } => "map",
            _ => return Ok(()),
        };
        if self.depth > 1 || !matches!(&**name, "kind" | "apiVersion") {
            return Ok(());
        }
        let fault = Fault::new(format!("invalid type: {what}, expected a string"));
        Err(fault.at(|| name.as_ref().to_owned()).on_line(self.line(event)))
    }

    /// Reads a list object. Only its items matter.
    fn list(&mut self, each: &mut Each<'_>) -> Result<(), Fault> {
        self.depth += 1;
        while let Some(key) = self.key()? {
            let event = self.next()?;
            let line = self.line(&event);
            let is_items = matches!(&key, MapKey::Name(key) if *key.name == *"items");
            if is_items && matches!(event.data, EventData::SequenceStart { .. }) {
                self.items(each)?;
                continue;
            }
            let node = self.node(event)?;
            match (key, &node.value) {
                (MapKey::Merge(line), _) => {
                    let fault = Fault::new("<< is not resolved at the top of a list");
                    return Err(fault.with_remedy("write its keys out").on_line(line));
                }
                (MapKey::Name(_), Value::Sequence(items)) if is_items => {
                    for item in items {
                        each(Rc::clone(item), Vec::new());
                    }
                }
                (MapKey::Name(_), _) if is_items && !node.is_null() => {
                    return Err(Fault::new("is not a sequence of objects").at(|| "items".to_owned()).on_line(line));
                }
                (MapKey::Name(_), _) => {}
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn items(&mut self, each: &mut Each<'_>) -> Result<(), Fault> {
        loop {
            let event = self.next()?;
            if event.data == EventData::SequenceEnd {
                return Ok(());
            }
            self.spent = 0;
            let item = self.node(event)?;
            each(item, std::mem::take(&mut self.notes));
        }
    }

    /// The next key of a mapping; `None` at its end. A key that is not text is converted to text, as kubectl does.
    fn key(&mut self) -> Result<Option<MapKey>, Fault> {
        let event = self.next()?;
        let line = self.line(&event);
        match &event.data {
            EventData::MappingEnd => return Ok(None),
            EventData::Scalar { tag: Some(tag), .. } if tag == MERGE => return Ok(Some(MapKey::Merge(line))),
            EventData::Scalar { tag: None, style: ScalarStyle::Plain, value, .. } if value == "<<" => {
                return Ok(Some(MapKey::Merge(line)));
            }
            _ => {}
        }
        let node = self.node(event)?;
        let name: Rc<str> = match &node.value {
            Value::Text(text) => (**text).into(),
            Value::Plain(text) => match resolve(text) {
                Plain::Null => return Err(Fault::new("a key is null").with_remedy("put it in quotes").on_line(line)),
                Plain::Bool(value) => value.to_string().into(),
                Plain::Int(value) => value.to_string().into(),
                Plain::Float(_) | Plain::Text(_) => (**text).into(),
            },
            Value::Sequence(_) | Value::Mapping(_) => {
                return Err(Fault::new("a key is not text").with_remedy("write the key as text").on_line(line));
            }
        };
        Ok(Some(MapKey::Name(Key { line, name })))
    }

    fn add(&mut self, entries: &mut Entries, key: MapKey, value: Rc<Node>) -> Result<(), Fault> {
        match key {
            MapKey::Merge(line) => {
                for (key, node) in merged(&value, line)? {
                    self.spend(key.cost() + node.cost, line)?;
                    self.descend(node.height, line)?;
                    entries.merge(key, node, line)?;
                }
            }
            MapKey::Name(key) => {
                let (line, name) = (key.line, Rc::clone(&key.name));
                if entries.set(key, value) == Twice::Differs {
                    self.notes.push(Note::twice(line, &name));
                }
            }
        }
        Ok(())
    }

    fn alias(&mut self, anchor: &str, line: usize) -> Result<Rc<Node>, Fault> {
        let problem = match self.anchors.get(anchor) {
            Some(Some(node)) => {
                let node = Rc::clone(node);
                self.spend(node.cost, line)?;
                self.descend(node.height, line)?;
                return Ok(node);
            }
            Some(None) => format!("anchor {anchor:?} contains itself"),
            None => format!("unknown anchor {anchor:?}"),
        };
        Err(Fault::new(problem).with_remedy("write the alias after its anchor, in the same document").on_line(line))
    }

    fn scalar(&mut self, text: Box<str>, style: ScalarStyle, tag: Option<&str>, line: usize) -> Result<Value, Fault> {
        let Some(tag) = tag else {
            return Ok(if style == ScalarStyle::Plain { Value::Plain(text) } else { Value::Text(text) });
        };
        let short = tag.strip_prefix(CORE).unwrap_or(tag);
        let fits = match short {
            "str" | "!" | "timestamp" | "merge" => return Ok(Value::Text(text)),
            "null" => resolve(&text) == Plain::Null,
            "bool" => matches!(resolve(&text), Plain::Bool(_)),
            "int" => matches!(resolve(&text), Plain::Int(_)),
            "float" => matches!(resolve(&text), Plain::Int(_) | Plain::Float(_)),
            "binary" => {
                let fault = Fault::new("!!binary is not decoded");
                return Err(fault.with_remedy("write the text itself").on_line(line));
            }
            _ => {
                self.ignore_tag(tag, line);
                return Ok(Value::Text(text));
            }
        };
        if fits {
            Ok(Value::Plain(text))
        } else {
            Err(Fault::new(format!("{text:?} is not a !!{short}")).on_line(line))
        }
    }

    fn ignore_tag(&mut self, tag: &str, line: usize) {
        self.notes.push(Note {
            line,
            key: None,
            problem: format!("the tag {tag:?} is ignored, as kubectl does"),
            remedy: "remove the tag",
        });
    }

    /// Accounts for the start of a sequence or mapping.
    fn begin(&mut self, anchor: Option<&str>, tag: Option<&str>, line: usize) -> Result<(), Fault> {
        self.descend(1, line)?;
        self.depth += 1;
        self.spend(NODE_COST, line)?;
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor.to_owned(), None);
        }
        if let Some(tag) = tag.filter(|tag| !matches!(tag.strip_prefix(CORE), Some("map" | "seq"))) {
            self.ignore_tag(tag, line);
        }
        Ok(())
    }

    /// Accounts for a complete node.
    fn finish(&mut self, anchor: Option<String>, node: Node) -> Result<Rc<Node>, Fault> {
        if node.height == 0 {
            self.spend(node.cost, node.line)?;
        }
        let node = Rc::new(node);
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, Some(Rc::clone(&node)));
        }
        Ok(node)
    }

    fn spend(&mut self, cost: u64, line: usize) -> Result<(), Fault> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent <= COST_MAX {
            return Ok(());
        }
        let problem = format!("the object takes more than {} MiB with its aliases written out", COST_MAX >> 20);
        Err(Fault::new(problem).with_remedy("make it smaller").on_line(line))
    }

    /// Fails if this many further levels exceed the limit.
    fn descend(&self, levels: usize, line: usize) -> Result<(), Fault> {
        if self.depth + levels <= DEPTH_MAX {
            return Ok(());
        }
        let problem = format!("is nested deeper than {DEPTH_MAX} levels");
        Err(Fault::new(problem).with_remedy("nest it less deeply").on_line(line))
    }
}

/// The prefix that `!!` abbreviates.
const CORE: &str = "tag:yaml.org,2002:";
const MERGE: &str = "tag:yaml.org,2002:merge";

enum MapKey {
    Name(Key),
    /// `<<` and its line.
    Merge(usize),
}

/// The entries that `<<` merges. In a list, earlier mappings win.
fn merged(value: &Node, line: usize) -> Result<Vec<(Key, Rc<Node>)>, Fault> {
    let no_map = || {
        Fault::new("<< needs a mapping or a sequence of mappings, as for kubectl")
            .with_remedy("write << with an alias of a mapping, or write the keys out")
            .on_line(line)
    };
    let maps: &[Rc<Node>] = match &value.value {
        Value::Mapping(entries) => return Ok(entries.clone()),
        Value::Sequence(maps) => maps,
        Value::Plain(_) | Value::Text(_) => return Err(no_map()),
    };
    let mut names = std::collections::HashSet::new();
    let mut all = Vec::new();
    for map in maps {
        let Value::Mapping(entries) = &map.value else { return Err(no_map()) };
        all.extend(entries.iter().filter(|(key, _)| names.insert(Rc::clone(&key.name))).cloned());
    }
    Ok(all)
}

/// A mapping while it is being read.
#[derive(Default)]
struct Entries {
    list: Vec<(Key, Rc<Node>)>,
    index: HashMap<Rc<str>, At>,
}

/// Position of a key in the list, and whether `<<` merged it.
#[derive(Clone, Copy)]
struct At {
    index: usize,
    is_merged: bool,
}

/// Whether the key occurred before with another value.
#[derive(PartialEq, Eq)]
enum Twice {
    No,
    Differs,
}

impl Entries {
    /// Sets a key that is written out, which wins over a merged one.
    fn set(&mut self, key: Key, value: Rc<Node>) -> Twice {
        match self.index.entry(Rc::clone(&key.name)) {
            Entry::Vacant(free) => {
                free.insert(At { index: self.list.len(), is_merged: false });
                self.list.push((key, value));
                Twice::No
            }
            Entry::Occupied(mut taken) => {
                let At { index, is_merged } = *taken.get();
                let is_duplicate = !is_merged && !self.list[index].1.is_like(&value);
                self.list[index] = (key, value);
                taken.insert(At { index, is_merged: false });
                if is_duplicate { Twice::Differs } else { Twice::No }
            }
        }
    }

    /// Adds a merged key. Refuses `<<` after a key that it also has, if the values differ: YAML says that the key wins,
    /// but kubectl takes the merged value.
    fn merge(&mut self, key: Key, value: Rc<Node>, line: usize) -> Result<(), Fault> {
        match self.index.entry(Rc::clone(&key.name)) {
            Entry::Vacant(free) => {
                free.insert(At { index: self.list.len(), is_merged: true });
                self.list.push((key, value));
                Ok(())
            }
            Entry::Occupied(taken) if self.list[taken.get().index].1.is_like(&value) => Ok(()),
            Entry::Occupied(_) => {
                let problem = format!(
                    "<< brings another {:?} than the one before it, and kubectl and YAML disagree which counts",
                    &*key.name
                );
                Err(Fault::new(problem).with_remedy("write << once, as the first key of its mapping").on_line(line))
            }
        }
    }
}
