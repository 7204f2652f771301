//! Converts Nodes to model types.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;

use super::converter::Converter;
use super::fields::Fields;
use crate::model::Node;
use crate::source::names;

/// The cluster autoscaler sets this taint, with any effect, before it deletes a node.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

pub fn convert(converter: &mut Converter, name: &str, raw: &core::Node, fields: &mut Fields) -> Node {
    let zone = raw.metadata.labels.as_ref().and_then(|labels| labels.get("topology.kubernetes.io/zone"));
    let listed = raw.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let mut of_type = |wanted: &str| -> Vec<IpAddr> {
        let entries = listed.iter().enumerate().filter(|(_, entry)| entry.type_ == wanted);
        let usable = |(index, entry): (usize, &core::NodeAddress)| {
            let field = || format!("status.addresses[{index}].address");
            let ip = fields.ip(field, &entry.address)?;
            let what = "a node's address and is left out";
            fields.is_usable(field, ip, what, "write an address that other nodes can reach").then_some(ip)
        };
        entries.filter_map(usable).collect()
    };
    let addresses = [of_type("InternalIP"), of_type("ExternalIP")].concat();
    let zone = zone.and_then(|zone| {
        let field = || "metadata.labels[topology.kubernetes.io/zone]".to_owned();
        fields.name(field, zone, names::LABEL_VALUE, "the zone is not known")
    });
    Node {
        name: converter.strings.share(name),
        // An empty label means no zone.
        zone: zone.filter(|zone| !zone.is_empty()).map(|zone| converter.strings.share(zone)),
        addresses,
        is_leaving: is_leaving(raw),
    }
}

fn is_leaving(raw: &core::Node) -> bool {
    let taints = raw.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    raw.metadata.deletion_timestamp.is_some() || taints.iter().any(|taint| taint.key == TO_BE_DELETED)
}
