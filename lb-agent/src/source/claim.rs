//! Decides which Services this agent serves, by the label that assigns a Service to another proxy (FLT-01).

use std::collections::BTreeMap;

/// Names the proxy that serves a Service. kube-proxy ignores Services with this label, whatever its value.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// The Services that this agent serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    /// Services without the label, which kube-proxy serves too.
    #[default]
    Unlabelled,
    /// Only Services whose label names this proxy. kube-proxy ignores them.
    Named(String),
}

impl Claim {
    /// Whether this agent serves a Service with these labels.
    pub fn holds_for(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let name = labels.and_then(|labels| labels.get(PROXY_NAME));
        match self {
            Self::Unlabelled => name.is_none(),
            Self::Named(ours) => name == Some(ours),
        }
    }

    /// This claim as a label selector of the API.
    pub fn selector(&self) -> String {
        match self {
            Self::Unlabelled => format!("!{PROXY_NAME}"),
            Self::Named(ours) => format!("{PROXY_NAME}={ours}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_decides_also_when_it_is_empty() {
        let labelled = |value: &str| BTreeMap::from([(PROXY_NAME.to_owned(), value.to_owned())]);
        let ours = Claim::Named("lb-agent".into());
        for (labels, is_unlabelled, is_named) in [
            (None, true, false),
            (Some(BTreeMap::new()), true, false),
            (Some(labelled("")), false, false),
            (Some(labelled("other")), false, false),
            (Some(labelled("lb-agent")), false, true),
        ] {
            assert_eq!(Claim::Unlabelled.holds_for(labels.as_ref()), is_unlabelled, "{labels:?}");
            assert_eq!(ours.holds_for(labels.as_ref()), is_named, "{labels:?}");
        }
    }
}
