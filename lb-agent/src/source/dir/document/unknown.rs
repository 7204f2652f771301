//! Warns about keys of an object that its kind does not have, and suggests the key that was probably meant.

use super::tree::Unknown;
use crate::likely::likely;
use crate::model::{Kind, ObjectRef, Warning, WarningKind};

/// The most keys of one object that get a warning each. One more warning counts the rest.
const TOLD_MAX: usize = 16;

/// The correct places of the fields that decide which clients are served, if the field's name is unambiguous.
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

/// One warning for each key, up to `TOLD_MAX`.
pub fn warnings(object: &ObjectRef, unknown: &[Unknown]) -> Vec<Warning> {
    let mut warnings: Vec<Warning> =
        unknown.iter().take(TOLD_MAX).map(|unknown| warning(object, unknown).of(object)).collect();
    if unknown.len() > TOLD_MAX {
        let problem = format!("has {} further keys that are not fields of its kind", unknown.len() - TOLD_MAX);
        warnings.push(Warning::new(WarningKind::Ignored, problem, "correct the keys of the other warnings").of(object));
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
            "is not a field at this place and is ignored",
            format!("write it as {}", dotted(other, key)),
        ),
        (Some(meant), None) => (WarningKind::BadField, "is not a field and is ignored", format!("write {meant}")),
        // The field may belong to a newer API.
        (None, None) => (
            WarningKind::Ignored,
            "is not a field that this version knows, and is ignored",
            "check the spelling".to_owned(),
        ),
    };
    Warning::new(kind, format!("{problem}{line}"), remedy).at(dotted(place, key))
}
