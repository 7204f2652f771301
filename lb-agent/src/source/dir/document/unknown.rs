//! Keys that an object of ours has and its kind has not: what was probably meant.

use super::likely::likely;
use super::tree::Unknown;
use crate::model::{Kind, ObjectRef, Warning, WarningKind};

/// Told of one object in full; the rest is counted.
const TOLD_MAX: usize = 16;

/// Where the fields stand that decide who is served, as far as their name says which they are.
fn places(kind: Kind) -> &'static [(&'static str, &'static [&'static str])] {
    match kind {
        Kind::Service => &[
            ("metadata", &["annotations", "labels"]),
            (
                "spec",
                &[
                    "allocateLoadBalancerNodePorts",
                    "clusterIP",
                    "clusterIPs",
                    "externalIPs",
                    "externalTrafficPolicy",
                    "internalTrafficPolicy",
                    "loadBalancerClass",
                    "loadBalancerSourceRanges",
                    "selector",
                    "sessionAffinity",
                    "sessionAffinityConfig",
                    "trafficDistribution",
                ],
            ),
            ("spec.ports[]", &["appProtocol", "nodePort", "protocol", "targetPort"]),
            ("status", &["loadBalancer"]),
            ("status.loadBalancer", &["ingress"]),
            ("status.loadBalancer.ingress[]", &["hostname", "ip", "ipMode"]),
        ],
        Kind::EndpointSlice => &[
            ("metadata", &["annotations", "labels"]),
            ("", &["addressType", "endpoints", "ports"]),
            ("endpoints[]", &["addresses", "conditions", "hints", "nodeName", "targetRef", "zone"]),
            ("endpoints[].conditions", &["ready", "serving", "terminating"]),
        ],
        Kind::Endpoints => &[
            ("metadata", &["annotations", "labels"]),
            ("", &["subsets"]),
            ("subsets[]", &["addresses", "notReadyAddresses", "ports"]),
            ("subsets[].addresses[]", &["hostname", "ip", "nodeName", "targetRef"]),
        ],
        Kind::Node => &[("metadata", &["annotations", "labels"]), ("status", &["addresses"])],
    }
}

/// A warning for each, as far as they are few.
pub fn warnings(object: &ObjectRef, unknown: &[Unknown]) -> Vec<Warning> {
    let mut warnings: Vec<Warning> =
        unknown.iter().take(TOLD_MAX).map(|unknown| warning(object, unknown).of(object)).collect();
    if unknown.len() > TOLD_MAX {
        let problem = format!("has {} further keys that its kind does not have", unknown.len() - TOLD_MAX);
        warnings.push(Warning::new(WarningKind::Ignored, problem, "correct those that are named first").of(object));
    }
    warnings
}

fn warning(object: &ObjectRef, unknown: &Unknown) -> Warning {
    let Unknown { place, key, line, fields } = unknown;
    let dotted = |place: &str, key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    let line = if *line > 0 { format!(" (line {line} of the file)") } else { String::new() };
    let meant = likely(key, fields.iter().copied());
    let elsewhere = places(object.kind).iter().find(|(_, names)| names.contains(&key.as_str()));
    let (kind, problem, remedy) = match (meant, elsewhere) {
        (_, Some((other, _))) => (
            WarningKind::BadField,
            "is no field of this place and is ignored",
            format!("write it as {}", dotted(other, key)),
        ),
        (Some(meant), None) => (WarningKind::BadField, "is no field and is ignored", format!("write {meant}")),
        // A newer API may have it.
        (None, None) => (
            WarningKind::Ignored,
            "is no field that this version knows, and is ignored",
            "see whether the spelling is right".to_owned(),
        ),
    };
    Warning::new(kind, format!("{problem}{line}"), remedy).at(dotted(place, key))
}
