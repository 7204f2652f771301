//! Converts EndpointSlices to model types (docs/contract.md#endpoints).

use std::sync::Arc;

use k8s_openapi::api::discovery::v1 as discovery;
use lb_common::addr::Family;

use super::converter::Converter;
use super::fields::Fields;
use crate::model::{Conditions, Endpoint, EndpointSlice, Hints, ObjectName, SlicePort, Warning, WarningKind};
use crate::printable::quoted;
use crate::source::names;

/// The label that names the Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that names the controller that made the slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The controller that makes slices from Endpoints.
const MIRRORING_CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// The annotation with the time of the change of a pod or Service that made the controller write the slice.
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const HEADLESS: &str = "service.kubernetes.io/headless";

pub fn convert(
    converter: &mut Converter,
    name: ObjectName,
    raw: discovery::EndpointSlice,
    fields: &mut Fields,
) -> Result<Option<EndpointSlice>, Box<Warning>> {
    let family = match raw.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        "FQDN" => return Ok(None),
        other => {
            let problem = format!("{} is not an address type; the slice is left out", quoted(other));
            return Err(Warning::new(WarningKind::BadField, problem, "write IPv4 or IPv6").at("addressType").into());
        }
    };
    let labels = raw.metadata.labels.unwrap_or_default();
    let Some(service) = labels.get(SERVICE_NAME).filter(|service| !service.is_empty()) else { return Ok(None) };
    if !names::LABEL.holds_for(service) {
        let problem = format!("{} is not a name of a Service; the slice is left out", quoted(service));
        let warning = Warning::new(WarningKind::BadField, problem, format!("write {}", names::LABEL.spelling));
        return Err(warning.at(format!("metadata.labels[{SERVICE_NAME}]")).into());
    }
    let ports = raw.ports.unwrap_or_default();
    // Without it, or with something else in it, the change is served and not measured, as in kube-proxy.
    let triggered = raw.metadata.annotations.unwrap_or_default().remove(TRIGGERED);
    let triggered = triggered.and_then(|time| time.parse::<jiff::Timestamp>().ok());
    Ok(Some(EndpointSlice {
        name,
        service: service.as_str().into(),
        family,
        headless: labels.contains_key(HEADLESS),
        is_mirror: labels.get(MANAGED_BY).is_some_and(|manager| manager == MIRRORING_CONTROLLER),
        triggered_ms: triggered.map(jiff::Timestamp::as_millisecond),
        ports: ports
            .iter()
            .enumerate()
            .filter_map(|(index, port)| slice_port(converter, index, port, fields))
            .collect(),
        endpoints: raw
            .endpoints
            .iter()
            .enumerate()
            .filter_map(|(index, raw)| endpoint(converter, family, index, raw, fields))
            .collect(),
    }))
}

/// The API server turns an absent name into an empty one, so both mean the unnamed port. No port or port 0 means "all
/// ports", which a Service cannot use. Such a port is skipped silently, as kube-proxy does.
fn slice_port(
    converter: &mut Converter,
    index: usize,
    raw: &discovery::EndpointPort,
    fields: &mut Fields,
) -> Option<SlicePort> {
    let number = raw.port.filter(|port| *port != 0)?;
    let name = raw.name.as_deref().unwrap_or_default();
    let name = fields.name(|| format!("ports[{index}].name"), name, names::LABEL, "the port is left out")?;
    Some(SlicePort {
        name: converter.strings.share(name),
        proto: fields.proto(|| format!("ports[{index}].protocol"), raw.protocol.as_deref())?,
        port: fields.port(|| format!("ports[{index}].port"), number)?,
    })
}

fn endpoint(
    converter: &mut Converter,
    family: Family,
    index: usize,
    raw: &discovery::Endpoint,
    fields: &mut Fields,
) -> Option<Endpoint> {
    let field = || format!("endpoints[{index}].addresses[0]");
    let Some(text) = raw.addresses.first() else {
        fields.warn(WarningKind::BadField, field(), "is missing; the endpoint is left out", "name an address");
        return None;
    };
    let addr = fields.ip(field, text)?;
    if addr.is_ipv4() != (family == Family::V4) {
        let problem = format!("{addr} is not of the slice's addressType; the endpoint is left out");
        fields.warn(WarningKind::BadField, field(), problem, "put the address into a slice of its own family");
        return None;
    }
    let what = "an endpoint; the endpoint is left out";
    if !fields.is_usable(field, addr, what, "write the address of a pod or host") {
        return None;
    }
    let conditions = raw.conditions.as_ref();
    Some(Endpoint {
        addr,
        conditions: Conditions {
            ready: conditions.and_then(|c| c.ready).unwrap_or(true),
            serving: conditions.and_then(|c| c.serving).unwrap_or(true),
            terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        },
        node: raw.node_name.as_deref().and_then(|node| {
            let field = || format!("endpoints[{index}].nodeName");
            let node = fields.name(field, node, names::SUBDOMAIN, "the endpoint counts as on no node")?;
            Some(converter.strings.share(node))
        }),
        hints: hints(converter, index, raw, fields),
    })
}

fn hints(
    converter: &mut Converter,
    index: usize,
    raw: &discovery::Endpoint,
    fields: &mut Fields,
) -> Option<Arc<Hints>> {
    let raw = raw.hints.as_ref()?;
    let mut shared = |field: &str, name: &str, rule| {
        let field = || format!("endpoints[{index}].hints.{field}");
        fields.name(field, name, rule, "the hint is left out").map(|name| converter.strings.share(name))
    };
    let (zones, nodes) = (raw.for_zones.as_deref(), raw.for_nodes.as_deref());
    let zones = zones.unwrap_or_default().iter().filter_map(|zone| shared("forZones", &zone.name, names::LABEL_VALUE));
    let zones = zones.collect();
    let nodes = nodes.unwrap_or_default().iter().filter_map(|node| shared("forNodes", &node.name, names::SUBDOMAIN));
    Some(Arc::new(Hints { zones, nodes: nodes.collect() }))
}
