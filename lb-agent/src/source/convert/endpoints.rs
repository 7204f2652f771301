//! Converts legacy Endpoints to the slices that the API server would make of them.
//!
//! The rules are those of its endpointslice mirroring controller. Whether the Service has a selector is checked later.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lb_common::addr::Family;

use super::converter::Converter;
use super::endpoint_slice::{self, SERVICE_NAME};
use super::fields::Fields;
use crate::model::{Endpoints, ObjectName, WarningKind};

/// Label: do not mirror.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of leader election objects, which hold no endpoints.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// The most addresses of a subset that are mirrored (`--mirroring-max-endpoints-per-subset`).
const ADDRESSES_MAX: usize = 1_000;

pub fn convert(
    converter: &mut Converter,
    name: ObjectName,
    raw: core::Endpoints,
    fields: &mut Fields,
) -> Option<Endpoints> {
    let ObjectMeta { labels, annotations, .. } = raw.metadata;
    let mut labels = labels.unwrap_or_default();
    let is_skipped = labels.get(SKIP_MIRROR).is_some_and(|skip| skip == "true");
    if is_skipped || annotations.is_some_and(|annotations| annotations.contains_key(LEADER)) {
        return None;
    }
    labels.insert(SERVICE_NAME.to_owned(), name.name.as_ref().to_owned());
    let metadata = ObjectMeta { labels: Some(labels), ..ObjectMeta::default() };
    let mut slices = Vec::new();
    for (number, subset) in raw.subsets.unwrap_or_default().into_iter().enumerate() {
        let (addresses, ports) = parts(subset, number, fields);
        for family in [Family::V4, Family::V6] {
            let of_family: Vec<Address> =
                addresses.iter().filter(|address| address.family == family).cloned().collect();
            if of_family.is_empty() {
                continue;
            }
            let raw = discovery::EndpointSlice {
                metadata: metadata.clone(),
                address_type: family.name().to_owned(),
                ports: Some(ports.clone()),
                endpoints: of_family.iter().map(|address| address.raw.clone()).collect(),
            };
            let mut found = fields.again();
            let slice = endpoint_slice::convert(converter, name.clone(), raw, &mut found);
            fields.take(found, |field| subset_field(field, number, &of_family));
            slices.extend(slice.ok().flatten());
        }
    }
    Some(Endpoints { name, slices })
}

/// An address of a subset.
#[derive(Clone)]
struct Address {
    family: Family,
    /// Path of the address within the object.
    field: String,
    raw: discovery::Endpoint,
}

fn parts(
    subset: core::EndpointSubset,
    number: usize,
    fields: &mut Fields,
) -> (Vec<Address>, Vec<discovery::EndpointPort>) {
    let ports = subset.ports.unwrap_or_default().into_iter();
    let ports = ports.map(|port| discovery::EndpointPort {
        app_protocol: port.app_protocol,
        name: port.name,
        port: Some(port.port),
        protocol: port.protocol,
    });
    let listed = [("addresses", subset.addresses, true), ("notReadyAddresses", subset.not_ready_addresses, false)];
    let mut addresses = Vec::new();
    let count: usize = listed.iter().map(|(_, listed, _)| listed.as_ref().map_or(0, Vec::len)).sum();
    for (list, listed, is_ready) in listed {
        for (index, raw) in listed.unwrap_or_default().into_iter().enumerate() {
            if addresses.len() == ADDRESSES_MAX {
                break;
            }
            let field = format!("subsets[{number}].{list}[{index}].ip");
            let Some(ip) = fields.ip(|| field.clone(), &raw.ip) else { continue };
            let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
            addresses.push(Address { family, field, raw: endpoint(raw, is_ready) });
        }
    }
    if count > ADDRESSES_MAX {
        let problem = format!("has {count} addresses; only {ADDRESSES_MAX} are read, as by the API server");
        fields.warn(WarningKind::BadField, format!("subsets[{number}]"), problem, "write EndpointSlices instead");
    }
    (addresses, ports.collect())
}

fn endpoint(raw: core::EndpointAddress, is_ready: bool) -> discovery::Endpoint {
    discovery::Endpoint {
        addresses: vec![raw.ip],
        conditions: Some(discovery::EndpointConditions { ready: Some(is_ready), ..Default::default() }),
        hostname: raw.hostname,
        node_name: raw.node_name,
        target_ref: raw.target_ref,
        ..Default::default()
    }
}

/// Translates a field path of the slice to the subset that the slice was made of.
fn subset_field(field: &str, number: usize, addresses: &[Address]) -> String {
    let index = field.strip_prefix("endpoints[").and_then(|rest| rest.split_once(']'));
    let address = index.and_then(|(index, _)| addresses.get(index.parse::<usize>().ok()?));
    address.map_or_else(|| format!("subsets[{number}].{field}"), |address| address.field.clone())
}
