//! Finds the kind that a document claims, and the kind that was probably meant.

use super::Document;
use super::fault::Fault;
use super::tree::{self, Node, Note};
use crate::likely::likely;
use crate::model::{Kind, Warning, WarningKind};
use std::rc::Rc;

/// The kind that the document claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Object(Kind),
    /// A list of items that each name their kind, or of items of one kind.
    List(Option<Kind>),
    /// A kind that we do not read.
    Other,
}

/// The two fields that identify the kind of an object.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    pub api_version: Option<String>,
    pub kind: Option<String>,
}

/// The whole document, if it had to be read to find its kind.
pub type Tree = (Rc<Node>, Vec<Note>);

/// The kinds that we read: group, full name and sort.
const KINDS: [(&str, &str, Sort); 9] = [
    ("", "Service", Sort::Object(Kind::Service)),
    ("", "Node", Sort::Object(Kind::Node)),
    ("", "Endpoints", Sort::Object(Kind::Endpoints)),
    (DISCOVERY, "EndpointSlice", Sort::Object(Kind::EndpointSlice)),
    ("", "List", Sort::List(None)),
    ("", "ServiceList", Sort::List(Some(Kind::Service))),
    ("", "NodeList", Sort::List(Some(Kind::Node))),
    ("", "EndpointsList", Sort::List(Some(Kind::Endpoints))),
    (DISCOVERY, "EndpointSliceList", Sort::List(Some(Kind::EndpointSlice))),
];
/// The suffix of the names of lists.
const LIST: &str = "list";
const DISCOVERY: &str = "discovery.k8s.io";

impl Head {
    /// Reads the head of a tree.
    pub fn of(node: &Node) -> Result<Self, Fault> {
        tree::parse(node).map(|(head, _)| head)
    }

    /// Fails if the kind looks like a misspelling of one of our kinds.
    pub fn sort(&self) -> Result<Sort, Box<Warning>> {
        let Some(kind) = self.kind.as_deref().filter(|kind| !kind.is_empty()) else { return Err(Box::new(kindless())) };
        let version = self.api_version.as_deref().unwrap_or_default();
        let group = version.split_once('/').map_or("", |(group, _)| group);
        // A document without apiVersion is assumed to be ours. Other groups have a kind Service too.
        let is_absent = self.api_version.is_none();
        let ours = KINDS.iter().find(|(of, name, _)| *name == kind && (*of == group || is_absent));
        match ours {
            Some((_, _, sort)) => Ok(*sort),
            None if is_of_kubernetes(group) => {
                meant(version, kind).map_or(Ok(Sort::Other), |warning| Err(warning.into()))
            }
            None => Ok(Sort::Other),
        }
    }
}

/// Groups in which our kinds may be looked for by mistake: those of Kubernetes itself, and text that is not a group.
fn is_of_kubernetes(group: &str) -> bool {
    !group.contains('.') || group.ends_with(".k8s.io")
}

/// A warning that says what to write, if one of our kinds was probably meant.
fn meant(version: &str, kind: &str) -> Option<Warning> {
    // Stems are compared, because `PodList` differs from `NodeList` as much as `Pod` from `Node`.
    let stem = |kind: &'static str| kind.strip_suffix("List").filter(|stem| !stem.is_empty()).unwrap_or(kind);
    let is_list = kind.len() > LIST.len() && kind.to_ascii_lowercase().ends_with(LIST);
    let meant_stem =
        likely(if is_list { &kind[..kind.len() - LIST.len()] } else { kind }, KINDS.map(|(_, name, _)| stem(name)))?;
    let is_meant = |name: &'static str| stem(name) == meant_stem && is_list == (stem(name) != name);
    let (group, name, _) = KINDS.iter().find(|(_, name, _)| is_meant(name))?;
    let wanted = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
    let warning = if *name == kind {
        Fault::new(format!("{version} has no {kind}; {wanted} has")).at(|| "apiVersion".into())
    } else {
        Fault::new(format!("{kind:?} is not a kind")).at(|| "kind".into())
    };
    let mut warning = warning.warning();
    warning.remedy = format!("write apiVersion: {wanted} and kind: {name}");
    Some(warning)
}

fn kindless() -> Warning {
    let problem = "is missing: the document is not a Kubernetes object and is ignored";
    Warning::new(WarningKind::Ignored, problem, "name the kind, or keep other files elsewhere").at("kind")
}

/// Finds apiVersion and kind. In block style they are at the start of a line, which avoids parsing the document twice.
/// JSON is skimmed. Other documents are read whole.
pub fn find(document: Document<'_>) -> Result<(Sort, Option<Tree>), Box<Warning>> {
    if let Some(head) = at_line_starts(document)? {
        return Ok((head.sort()?, None));
    }
    if is_json(document.text)
        && let Ok(head @ Head { kind: Some(_), .. }) = serde_json::from_str(document.text)
    {
        return Ok((head.sort()?, None));
    }
    let tree = whole(document).map_err(Fault::warning)?;
    let head = match &tree.0.value {
        tree::Value::Mapping(_) => Head::of(&tree.0).map_err(Fault::warning)?,
        _ => Head::default(),
    };
    match head.sort() {
        Ok(sort) => Ok((sort, Some(tree))),
        Err(_) if head.kind.is_none() && is_like_ours(&tree.0) => {
            let fault =
                Fault::new("is missing").with_remedy("name the kind: Service, EndpointSlice, Endpoints or Node");
            Err(fault.at(|| "kind".into()).on_line(tree.0.line).warning().into())
        }
        Err(warning) => Err(warning),
    }
}

/// Reads the whole document in any form.
pub fn whole(document: Document<'_>) -> Result<Tree, Fault> {
    // Our JSON parser is faster, and it reads some JSON (tabs) that YAML does not.
    if is_json(document.text)
        && let Ok(tree) = tree::read_json(document.text)
    {
        return Ok(tree);
    }
    tree::compose(document)
}

/// Whether the document may be one of our objects without its kind.
fn is_like_ours(node: &Node) -> bool {
    let parts = ["spec", "status", "endpoints", "addressType", "subsets"];
    node.get("metadata").is_some() && parts.iter().any(|part| node.get(part).is_some())
}

fn at_line_starts(document: Document<'_>) -> Result<Option<Head>, Box<Warning>> {
    let mut head = Head::default();
    let mut kinds = 0;
    for line in document.text.lines() {
        if let Some(value) = line.strip_prefix("kind:") {
            kinds += 1;
            head.kind = plain_scalar(value);
        } else if let Some(value) = line.strip_prefix("apiVersion:") {
            match plain_scalar(value) {
                Some(version) => head.api_version = Some(version),
                // The value is not plain, so read the whole document.
                None => return Ok(None),
            }
        } else if line.starts_with("<<") || line.starts_with("\"kind\"") || line.starts_with("'kind'") {
            return Ok(None);
        }
    }
    match kinds {
        0 | 1 => Ok(head.kind.is_some().then_some(head)),
        _ => {
            let fault = Fault::new("appears more than once: two documents without --- between them");
            Err(fault.with_remedy("put a line --- between the documents").at(|| "kind".into()).warning().into())
        }
    }
}

/// The value of a `key: value` line if it needs no YAML parser.
fn plain_scalar(value: &str) -> Option<String> {
    let value = value.split(" #").next().unwrap_or_default().trim();
    let unquoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    let value = unquoted.unwrap_or(value);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-');
    (!value.is_empty() && value.chars().all(is_plain)).then(|| value.to_owned())
}

pub fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}
