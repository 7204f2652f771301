//! Converts Services to model types (docs/contract.md#ipmode, docs/contract.md#which-objects-count).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use lb_common::addr::Family;

use super::converter::Converter;
use super::fields::Fields;
use crate::model::{
    AnnotationKeys, HostNames, IngressEntry, IpMode, Kept, LABELS, ObjectName, Service, ServicePort, ServiceType,
    SourceRange, TrafficPolicy, WarningKind,
};
use crate::printable::{bounded, quoted};
use crate::source::{address, names};

/// Bytes that are kept of an unknown mode.
const IP_MODE_MAX: usize = 64;
/// The API's default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_DEFAULT_SECS: NonZeroU32 = NonZeroU32::new(10_800).unwrap();
/// The API's largest value of that field: a day.
const AFFINITY_MAX_SECS: u32 = 86_400;

pub fn convert(converter: &mut Converter, name: ObjectName, raw: core::Service, fields: &mut Fields) -> Service {
    let spec = raw.spec.unwrap_or_default();
    let ingress = raw.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
    Service {
        name,
        created_secs: raw.metadata.creation_timestamp.map(|time| time.0.as_second()),
        service_type: service_type(spec.type_.as_deref(), fields),
        served_elsewhere: !converter.claim.holds_for(raw.metadata.labels.as_ref()),
        annotations: annotations(&converter.annotations, raw.metadata.annotations, fields),
        labels: labels(raw.metadata.labels, fields),
        has_selector: spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()),
        headless: cluster_ip_texts(&spec).1.contains(&"None"),
        cluster_ips: cluster_ips(&spec, fields),
        external_ips: external_ips(&spec, fields),
        ports: ports(converter, spec.ports.as_deref().unwrap_or_default(), fields),
        host_names: host_names(ingress.as_deref().unwrap_or_default()),
        ingress: ingress_entries(ingress.as_deref().unwrap_or_default(), fields),
        external_policy: traffic_policy("spec.externalTrafficPolicy", spec.external_traffic_policy.as_deref(), fields),
        internal_policy: traffic_policy("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_deref(), fields),
        affinity_secs: affinity_secs(&spec, fields),
        source_ranges: source_ranges(&spec, fields),
        health_check_node_port: health_check_node_port(&spec, fields),
    }
}

/// The annotations that policy reads. The others are dropped, because often one of them holds a copy of the whole
/// object.
fn annotations(
    keys: &AnnotationKeys,
    raw: Option<BTreeMap<String, String>>,
    fields: &mut Fields,
) -> BTreeMap<Arc<str>, Arc<str>> {
    let Kept { annotations, cut } = keys.keep(&raw.unwrap_or_default());
    for key in cut {
        let field = format!("metadata.annotations[{key}]");
        fields.warn(
            WarningKind::BadField,
            field,
            "is too long: only its start is read",
            "write a value that the key has",
        );
    }
    annotations
}

fn labels(raw: Option<BTreeMap<String, String>>, fields: &mut Fields) -> Box<[(Arc<str>, Arc<str>)]> {
    let kept = raw.unwrap_or_default().into_iter().filter(|(key, _)| LABELS.contains(&key.as_str()));
    let kept = kept.filter_map(|(key, value)| {
        let field = || format!("metadata.labels[{key}]");
        let value = fields.name(field, &value, names::LABEL_VALUE, "the label is ignored")?;
        Some((Arc::from(key.as_str()), Arc::from(value)))
    });
    kept.collect()
}

fn service_type(text: Option<&str>, fields: &mut Fields) -> ServiceType {
    match text {
        None | Some("ClusterIP" | "") => ServiceType::ClusterIP,
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some("ExternalName") => ServiceType::ExternalName,
        Some(other) => {
            let problem = format!("{} is not a type; read as ClusterIP", quoted(other));
            fields.warn(
                WarningKind::BadField,
                "spec.type",
                problem,
                "write ClusterIP, NodePort, LoadBalancer or ExternalName",
            );
            ServiceType::ClusterIP
        }
    }
}

/// `spec.clusterIPs`, or `spec.clusterIP` if the list is absent. `None` and the empty string mean no address.
fn cluster_ip_texts(spec: &core::ServiceSpec) -> (&'static str, Vec<&str>) {
    match spec.cluster_ips.as_deref() {
        Some(list) if !list.is_empty() => ("spec.clusterIPs", list.iter().map(String::as_str).collect()),
        _ => ("spec.clusterIP", spec.cluster_ip.as_deref().into_iter().collect()),
    }
}

fn cluster_ips(spec: &core::ServiceSpec, fields: &mut Fields) -> Vec<IpAddr> {
    let (field, texts) = cluster_ip_texts(spec);
    let mut ips: Vec<IpAddr> = Vec::new();
    for text in texts.into_iter().filter(|text| !text.is_empty() && *text != "None") {
        let Some(ip) = frontend_ip(|| field.to_owned(), text, fields) else { continue };
        if ips.iter().any(|known| known.is_ipv4() == ip.is_ipv4()) {
            let problem = format!("{ip} is a second address of its family and is left out");
            fields.warn(WarningKind::BadField, field, problem, "keep one address per family");
        } else {
            ips.push(ip);
        }
    }
    ips
}

fn external_ips(spec: &core::ServiceSpec, fields: &mut Fields) -> Vec<IpAddr> {
    let listed = spec.external_ips.as_deref().unwrap_or_default();
    let ips = listed.iter().enumerate();
    ips.filter_map(|(index, text)| frontend_ip(|| format!("spec.externalIPs[{index}]"), text, fields)).collect()
}

/// An address that clients dial. An address that would capture other traffic is refused.
fn frontend_ip(field: impl Fn() -> String, text: &str, fields: &mut Fields) -> Option<IpAddr> {
    let ip = fields.ip(&field, text)?;
    let what = "a Service's address and is left out";
    fields.is_usable(&field, ip, what, "write an address that routers can deliver to").then_some(ip)
}

fn ports(converter: &mut Converter, raw: &[core::ServicePort], fields: &mut Fields) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::with_capacity(raw.len());
    for (index, entry) in raw.iter().enumerate() {
        let Some(port) = service_port(converter, index, entry, fields) else { continue };
        if ports.iter().any(|known| known.port == port.port && known.proto == port.proto) {
            let problem = format!("{}/{} appears twice; the second is left out", port.port, port.proto.name());
            fields.warn(WarningKind::BadField, format!("spec.ports[{index}]"), problem, "keep one of them");
        } else {
            ports.push(port);
        }
    }
    ports
}

fn service_port(
    converter: &mut Converter,
    index: usize,
    raw: &core::ServicePort,
    fields: &mut Fields,
) -> Option<ServicePort> {
    let node_port = raw.node_port.filter(|port| *port != 0);
    let name = raw.name.as_deref().unwrap_or_default();
    let name = fields.name(|| format!("spec.ports[{index}].name"), name, names::LABEL, "the port is left out")?;
    Some(ServicePort {
        name: converter.strings.share(name),
        proto: fields.proto(|| format!("spec.ports[{index}].protocol"), raw.protocol.as_deref())?,
        port: fields.port(|| format!("spec.ports[{index}].port"), raw.port)?,
        node_port: node_port.and_then(|port| fields.port(|| format!("spec.ports[{index}].nodePort"), port)),
    })
}

/// The entries with an IP. A host name beside the IP is ignored, as is `ports[].error` (IPM-07, IPM-13).
fn ingress_entries(raw: &[core::LoadBalancerIngress], fields: &mut Fields) -> Vec<IngressEntry> {
    let mut entries = Vec::with_capacity(raw.len());
    for (index, entry) in (0u32..).zip(raw) {
        let Some(text) = entry.ip.as_deref().filter(|text| !text.is_empty()) else { continue };
        let Some(ip) = frontend_ip(|| format!("status.loadBalancer.ingress[{index}].ip"), text, fields) else {
            continue;
        };
        entries.push(IngressEntry { index, ip, ip_mode: ip_mode(index, entry.ip_mode.as_deref(), fields) });
    }
    entries
}

/// Whether any entry has a host name alone.
fn host_names(raw: &[core::LoadBalancerIngress]) -> HostNames {
    let is_set = |text: Option<&str>| text.is_some_and(|text| !text.is_empty());
    let is_name = |entry: &core::LoadBalancerIngress| is_set(entry.hostname.as_deref()) && !is_set(entry.ip.as_deref());
    if raw.iter().any(is_name) { HostNames::Present } else { HostNames::Absent }
}

fn ip_mode(index: u32, text: Option<&str>, fields: &mut Fields) -> Option<IpMode> {
    match text? {
        "VIP" => Some(IpMode::VIP),
        "Proxy" => Some(IpMode::Proxy),
        other => {
            let problem =
                format!("{} is not a mode; the address is left to the balancer, as with Proxy", quoted(other));
            let field = format!("status.loadBalancer.ingress[{index}].ipMode");
            fields.warn(WarningKind::BadField, field, problem, "write VIP or Proxy");
            Some(IpMode::Unknown(bounded(other, IP_MODE_MAX).into()))
        }
    }
}

fn traffic_policy(field: &str, text: Option<&str>, fields: &mut Fields) -> TrafficPolicy {
    match text {
        None | Some("Cluster" | "") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            let problem = format!("{} is not a traffic policy; read as Cluster", quoted(other));
            fields.warn(WarningKind::BadField, field, problem, "write Cluster or Local");
            TrafficPolicy::Cluster
        }
    }
}

fn affinity_secs(spec: &core::ServiceSpec, fields: &mut Fields) -> Option<NonZeroU32> {
    match spec.session_affinity.as_deref() {
        None | Some("None" | "") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            let problem = format!("{} is not an affinity; read as None", quoted(other));
            fields.warn(WarningKind::BadField, "spec.sessionAffinity", problem, "write ClientIP or None");
            return None;
        }
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let Some(given) = config.and_then(|client| client.timeout_seconds) else { return Some(AFFINITY_DEFAULT_SECS) };
    let secs = u32::try_from(given).ok().and_then(NonZeroU32::new).filter(|secs| secs.get() <= AFFINITY_MAX_SECS);
    if secs.is_none() {
        let problem = format!("{given} is out of range; read as {AFFINITY_DEFAULT_SECS}");
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        fields.warn(WarningKind::BadField, field, problem, "write seconds from 1 to 86400");
    }
    secs.or(Some(AFFINITY_DEFAULT_SECS))
}

fn health_check_node_port(spec: &core::ServiceSpec, fields: &mut Fields) -> Option<u16> {
    let number = spec.health_check_node_port.filter(|number| *number != 0)?;
    fields.port(|| "spec.healthCheckNodePort".to_owned(), number)
}

fn source_ranges(spec: &core::ServiceSpec, fields: &mut Fields) -> Vec<SourceRange> {
    let listed = spec.load_balancer_source_ranges.as_deref().unwrap_or_default().iter().enumerate();
    listed.map(|(index, text)| source_range(index, text.trim(), fields)).collect()
}

fn source_range(index: usize, text: &str, fields: &mut Fields) -> SourceRange {
    address::parse_prefix(text).map_or_else(
        || {
            let problem = format!("{} is not a range of addresses; the entry allows no client", quoted(text));
            let field = format!("spec.loadBalancerSourceRanges[{index}]");
            fields.warn(WarningKind::BadField, field, problem, "write ADDRESS/LENGTH, such as 203.0.113.0/24");
            SourceRange::Unreadable(if text.contains(':') { Family::V6 } else { Family::V4 })
        },
        SourceRange::Prefix,
    )
}
