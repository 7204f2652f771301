//! Decides the mode of an address and records the rule that decided it (docs/how-it-decides.md#who-decides-the-mode, in that order).

use lb_common::table::{Mode, Rule};

use super::policy::{AnnotationMatch, Policy, VendorAnnotations};
use super::vendor;
use crate::model::{IpMode, Service, Warning, WarningKind};
use crate::printable::quoted;

/// The annotation that overrides everything else.
pub const ANNOTATION: &str = "lb-agent.io/ip-mode";

/// A decision for all addresses of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override<'a> {
    pub mode: Mode,
    pub rule: Rule,
    /// The annotation or label that decided.
    pub key: &'a str,
}

/// The decision for all addresses of a Service, if there is one.
pub fn of_service<'a>(service: &Service, policy: &'a Policy) -> Option<Override<'a>> {
    if let Some(mode) = service.annotations.get(ANNOTATION).and_then(|value| parse(value)) {
        return Some(Override { mode, rule: Rule::Annotation, key: ANNOTATION });
    }
    if let Some(wanted) = policy.proxy_annotations.iter().find(|wanted| matches(service, wanted)) {
        return Some(Override { mode: Mode::Proxy, rule: Rule::ProxyAnnotation, key: &wanted.key });
    }
    match policy.vendor_annotations {
        VendorAnnotations::Ignored => None,
        VendorAnnotations::Honoured => {
            vendor::mode(service).map(|(mode, key)| Override { mode, rule: Rule::VendorAnnotation, key })
        }
    }
}

/// A warning about our annotation if its value is not a mode.
pub fn warning(service: &Service) -> Option<Warning> {
    let value = service.annotations.get(ANNOTATION).filter(|value| parse(value).is_none())?;
    Some(bad_annotation(service, value))
}

/// The decision for one ingress entry, if nothing decides for the whole Service. An unknown string is not VIP (IPM-08).
pub fn of_entry(ip_mode: Option<&IpMode>, policy: &Policy) -> (Mode, Rule) {
    match ip_mode {
        None => (policy.default_ip_mode, Rule::Default),
        Some(IpMode::VIP) => (Mode::VIP, Rule::IpMode),
        Some(IpMode::Proxy | IpMode::Unknown(_)) => (Mode::Proxy, Rule::IpMode),
    }
}

/// Parses the value of the annotation or of `--default-ip-mode`, in any case.
pub fn parse(text: &str) -> Option<Mode> {
    let known = [("VIP", Mode::VIP), ("Proxy", Mode::Proxy), ("Split", Mode::Split), ("Router", Mode::Router)];
    known.into_iter().find_map(|(word, mode)| text.trim().eq_ignore_ascii_case(word).then_some(mode))
}

fn matches(service: &Service, wanted: &AnnotationMatch) -> bool {
    let value = service.annotations.get(wanted.key.as_str());
    value.is_some_and(|value| wanted.value.as_deref().is_none_or(|wanted| wanted == &**value))
}

fn bad_annotation(service: &Service, value: &str) -> Warning {
    let problem = format!("{} is not a mode and is ignored", quoted(value));
    Warning::new(WarningKind::BadField, problem, "write VIP, Proxy, Split or Router")
        .of(format_args!("Service {}", service.name))
        .at(format!("metadata.annotations[{ANNOTATION}]"))
}
