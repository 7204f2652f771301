//! Reads the objects of one document: determines its kind, unfolds lists, and collects what is wrong.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use k8s_openapi::api::discovery::v1 as discovery;
use serde::de::DeserializeSeed as _;

use super::Document;
use super::fault::Fault;
use super::head::{self, Head, Sort, is_json};
use super::tree::{self, Node, Note};
use super::unknown;
use crate::likely::likely;
use crate::model::{Kind, ObjectName, ObjectRef, Warning, WarningKind};
use crate::source::convert::{Converted, Converter, SERVICE_NAME};

/// The content of a document. Warnings do not yet name file and document number.
#[derive(Debug, Default)]
pub struct Read {
    pub objects: Vec<Converted>,
    /// Warnings about a document or list item that is not an object. It may have been one before.
    pub bad: Vec<Warning>,
    /// Warnings about content that is ignored but was probably intended.
    pub notes: Vec<Warning>,
}

/// The most warnings for one document.
const BAD_MAX: usize = 1_000;

/// Reads the document and survives a panic of the parser: a file may hold anything.
pub fn read_guarded(document: Document<'_>, converter: &mut Converter) -> Read {
    std::panic::catch_unwind(AssertUnwindSafe(|| read(document, converter))).unwrap_or_else(|_| {
        let fault = Fault::new("makes the parser fail").on_line(document.line);
        Read { bad: vec![fault.warning()], ..Read::default() }
    })
}

/// Reads the document. Unknown kinds are ignored.
fn read(document: Document<'_>, converter: &mut Converter) -> Read {
    let mut reader = Reader { converter, read: Read::default() };
    if let Err(warning) = reader.document(document) {
        reader.read.bad.push(*warning);
    }
    reader.read
}

struct Reader<'a> {
    converter: &'a mut Converter,
    read: Read,
}

impl Reader<'_> {
    fn document(&mut self, document: Document<'_>) -> Result<(), Box<Warning>> {
        match head::find(document)? {
            (Sort::Other, _) => Ok(()),
            (Sort::Object(kind), tree) => {
                let (node, notes) =
                    tree.map_or_else(|| head::whole(document), Ok).map_err(|fault| fault.warning().of(kind.name()))?;
                self.object(kind, &node, notes)
            }
            (Sort::List(of), tree) => self.list(of, document, tree),
        }
    }

    fn list(&mut self, of: Option<Kind>, document: Document<'_>, tree: Option<head::Tree>) -> Result<(), Box<Warning>> {
        let mut number = 0u32;
        let mut each = |item: Rc<Node>, notes: Vec<Note>| {
            self.take_item(&item, notes, of, number);
            number += 1;
        };
        match tree {
            Some((list, mut notes)) => {
                let items = list.get("items").filter(|items| !items.is_null());
                match items.map(|items| &items.value) {
                    // Which item the notes are about is unknown, so the first one gets them.
                    Some(tree::Value::Sequence(items)) => {
                        for item in items {
                            each(Rc::clone(item), std::mem::take(&mut notes));
                        }
                    }
                    Some(_) => {
                        let fault = Fault::new("is not a sequence of objects").at(|| "items".to_owned());
                        return Err(fault.warning().into());
                    }
                    None => {}
                }
            }
            None if is_json(document.text) => {
                let mut json = serde_json::Deserializer::from_str(document.text);
                let read = tree::ItemsSeed(each).deserialize(&mut json);
                read.map_err(|error| Fault::new(error.to_string()).warning())?;
            }
            None => tree::compose_list(document, &mut each).map_err(Fault::warning)?,
        }
        Ok(())
    }

    fn item(&mut self, item: &Node, notes: Vec<Note>, of: Option<Kind>) -> Result<(), Box<Warning>> {
        let head = Head::of(item).map_err(Fault::warning)?;
        let kind = match (head.kind.is_some(), of) {
            // `kubectl get --raw` omits the kind of items.
            (false, Some(kind)) => kind,
            _ => match head.sort()? {
                Sort::Object(kind) => kind,
                Sort::List(of) => {
                    self.nested(item, notes, of);
                    return Ok(());
                }
                Sort::Other => return Ok(()),
            },
        };
        self.object(kind, item, notes)
    }

    /// Reads a list within a list, which kubectl unfolds too.
    fn nested(&mut self, list: &Node, mut notes: Vec<Note>, of: Option<Kind>) {
        let Some(tree::Value::Sequence(items)) = list.get("items").map(|items| &items.value) else { return };
        for (number, item) in (0..).zip(items) {
            self.take_item(item, std::mem::take(&mut notes), of, number);
        }
    }

    fn take_item(&mut self, item: &Node, notes: Vec<Note>, of: Option<Kind>, number: u32) {
        if let Err(warning) = self.item(item, notes, of)
            && self.read.bad.len() <= BAD_MAX
        {
            self.read.bad.push(*in_item(*warning, number));
        }
    }

    fn object(&mut self, kind: Kind, node: &Node, notes: Vec<Note>) -> Result<(), Box<Warning>> {
        let (converted, unknown) = self.convert(kind, node).map_err(|warning| name_object(*warning, kind, node))?;
        let notes = notes.into_iter().map(note);
        match converted {
            Some((object, mut warnings)) => {
                let reference = object.reference();
                warnings.extend(unknown::warnings(&reference, &unknown));
                warnings.extend(notes.map(|note| note.of(&reference)));
                self.read.objects.push((object, warnings));
            }
            None => self.read.notes.extend(notes),
        }
        Ok(())
    }

    fn convert(&mut self, kind: Kind, node: &Node) -> Result<(Option<Converted>, Vec<tree::Unknown>), Box<Warning>> {
        match kind {
            Kind::Service => {
                let (raw, unknown) = tree::parse(node).map_err(Fault::warning)?;
                Ok((Some(self.converter.service(raw)?), unknown))
            }
            Kind::EndpointSlice => {
                let (raw, unknown) = tree::parse::<discovery::EndpointSlice>(node).map_err(Fault::warning)?;
                let orphan = orphan(&raw);
                let converted = self.converter.endpoint_slice(raw)?;
                if converted.is_none() && self.read.notes.len() <= BAD_MAX {
                    self.read.notes.extend(orphan.map(|warning| *name_object(warning, kind, node)));
                }
                Ok((converted, unknown))
            }
            Kind::Endpoints => {
                let (raw, unknown) = tree::parse(node).map_err(Fault::warning)?;
                Ok((self.converter.endpoints(raw)?, unknown))
            }
            Kind::Node => {
                let (raw, unknown) = tree::parse(node).map_err(Fault::warning)?;
                Ok((Some(self.converter.node(&raw)?), unknown))
            }
        }
    }
}

/// A warning if a slice names no Service.
fn orphan(raw: &discovery::EndpointSlice) -> Option<Warning> {
    let labels = raw.metadata.labels.as_ref();
    if labels.and_then(|labels| labels.get(SERVICE_NAME)).is_some_and(|service| !service.is_empty()) {
        return None;
    }
    let near = labels.into_iter().flatten().map(|(key, _)| key).find(|key| likely(key, [SERVICE_NAME]).is_some());
    let remedy = match near {
        Some(key) if key != SERVICE_NAME => format!("rename the label {key} to {SERVICE_NAME}"),
        Some(_) | None => format!("add the label {SERVICE_NAME} with the name of the Service"),
    };
    let problem = "name no Service, so the slice is ignored";
    Some(Warning::new(WarningKind::Ignored, problem, remedy).at("metadata.labels"))
}

fn note(note: Note) -> Warning {
    let Note { line, key, problem, remedy } = note;
    let line = if line > 0 { format!(" (line {line} of the file)") } else { String::new() };
    let warning = Warning::new(WarningKind::BadField, format!("{problem}{line}"), remedy);
    match key {
        Some(key) => warning.at(key),
        None => warning,
    }
}

/// Adds the name of an object that does not parse, if its metadata do.
fn name_object(warning: Warning, kind: Kind, node: &Node) -> Box<Warning> {
    let of_metadata = |field| node.get("metadata")?.get(field)?.text();
    let Some(name) = of_metadata("name") else { return Box::new(warning.of(kind.name())) };
    let namespace = match kind {
        Kind::Node => "",
        Kind::Service | Kind::EndpointSlice | Kind::Endpoints => of_metadata("namespace").unwrap_or("default"),
    };
    Box::new(warning.of(ObjectRef { kind, name: ObjectName::new(namespace, name) }))
}

fn in_item(mut warning: Warning, number: u32) -> Box<Warning> {
    let field = warning.field.take().map_or_else(String::new, |field| format!(".{field}"));
    warning.field = Some(format!("items[{number}]{field}"));
    Box::new(warning)
}

#[cfg(test)]
mod tests;
