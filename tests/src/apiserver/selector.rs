//! Label and field selectors, as far as agents use them: `!key`, `key`, `key=value`, `key!=value`, joined by commas.

use serde_json::Value;

use super::resource::Resource;

/// The objects that a request wants.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Clone, Debug)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Exists,
    Absent,
    Equals(String),
    Differs(String),
}

impl Selector {
    /// Fails with the server's message.
    pub fn parse(resource: Resource, labels: &str, fields: &str) -> Result<Self, String> {
        let fields = requirements(fields);
        for Requirement { key, .. } in &fields {
            if resource.field(key, &Value::Null).is_none() {
                return Err(match resource {
                    Resource::EndpointSlices => {
                        format!(r#""{key}" is not a known field selector: only "metadata.name", "metadata.namespace""#)
                    }
                    _ => format!("field label not supported: {key}"),
                });
            }
        }
        Ok(Self { labels: requirements(labels), fields })
    }

    /// Whether every object is selected.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub fn holds_for(&self, resource: Resource, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"][key].as_str();
        self.labels.iter().all(|requirement| requirement.test.holds_for(label(&requirement.key)))
            && self
                .fields
                .iter()
                .all(|requirement| requirement.test.holds_for(resource.field(&requirement.key, object)))
    }
}

impl Test {
    fn holds_for(&self, value: Option<&str>) -> bool {
        match self {
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::Equals(wanted) => value == Some(wanted),
            // A label that is absent differs from every value.
            Self::Differs(unwanted) => value != Some(unwanted),
        }
    }
}

fn requirements(text: &str) -> Vec<Requirement> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(requirement).collect()
}

fn requirement(text: &str) -> Requirement {
    let (key, test) = if let Some(key) = text.strip_prefix('!') {
        (key, Test::Absent)
    } else if let Some((key, value)) = text.split_once("!=") {
        (key, Test::Differs(value.to_owned()))
    } else if let Some((key, value)) = text.split_once('=') {
        (key, Test::Equals(value.trim_start_matches('=').to_owned()))
    } else {
        (text, Test::Exists)
    };
    Requirement { key: key.to_owned(), test }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selects_by_labels_and_fields() {
        let object = json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"clusterIP": "None"}});
        for (labels, fields, expected) in [
            ("", "", true),
            ("x", "", true),
            ("!x", "", false),
            ("!y,x=1", "", true),
            ("x==2", "", false),
            ("y!=1", "", true),
            ("", "metadata.name=a", true),
            ("", "spec.clusterIP!=None", false),
        ] {
            let selector = Selector::parse(Resource::Services, labels, fields).expect("supported");
            assert_eq!(selector.holds_for(Resource::Services, &object), expected, "{labels} {fields}");
        }
        Selector::parse(Resource::Nodes, "", "spec.clusterIP!=None").expect_err("nodes have none");
    }
}
