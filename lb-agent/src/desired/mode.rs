//! Which mode an address gets, and which rule decided it (`design.md` section 5, in that order).

use lb_common::table::{Mode, Rule};

use super::policy::{AnnotationMatch, Policy, VendorAnnotations};
use super::vendor;
use crate::model::{IpMode, Service, Warning, WarningKind};

/// The annotation that overrides everything else.
pub const ANNOTATION: &str = "lb-agent.io/ip-mode";

/// What decides for all addresses of a Service, if anything does.
pub fn of_service(service: &Service, policy: &Policy, warnings: &mut Vec<Warning>) -> Option<(Mode, Rule)> {
    if let Some(value) = service.annotations.get(ANNOTATION) {
        match parse(value) {
            Some(mode) => return Some((mode, Rule::Annotation)),
            None => warnings.push(bad_annotation(service, value)),
        }
    }
    if policy.proxy_annotations.iter().any(|wanted| matches(service, wanted)) {
        return Some((Mode::Proxy, Rule::ProxyAnnotation));
    }
    match policy.vendor_annotations {
        VendorAnnotations::Ignored => None,
        VendorAnnotations::Honoured => vendor::mode(&service.annotations).map(|mode| (mode, Rule::VendorAnnotation)),
    }
}

/// What decides for one ingress entry that the Service leaves open. An unknown string is not VIP (IPM-08).
pub fn of_entry(ip_mode: Option<&IpMode>, policy: &Policy) -> (Mode, Rule) {
    match ip_mode {
        None => (policy.default_ip_mode, Rule::Default),
        Some(IpMode::VIP) => (Mode::VIP, Rule::IpMode),
        Some(IpMode::Proxy | IpMode::Unknown(_)) => (Mode::Proxy, Rule::IpMode),
    }
}

/// The spelling of the annotation and of `--default-ip-mode`.
pub fn parse(text: &str) -> Option<Mode> {
    match text {
        "VIP" => Some(Mode::VIP),
        "Proxy" => Some(Mode::Proxy),
        "Split" => Some(Mode::Split),
        "Router" => Some(Mode::Router),
        _ => None,
    }
}

fn matches(service: &Service, wanted: &AnnotationMatch) -> bool {
    let value = service.annotations.get(wanted.key.as_str());
    value.is_some_and(|value| wanted.value.as_deref().is_none_or(|wanted| wanted == &**value))
}

fn bad_annotation(service: &Service, value: &str) -> Warning {
    let problem = format!("{value:?} is not a mode and is ignored");
    Warning::new(WarningKind::BadField, problem, "write VIP, Proxy, Split or Router")
        .of(format_args!("Service {}", service.name))
        .at(format!("metadata.annotations[{ANNOTATION}]"))
}
