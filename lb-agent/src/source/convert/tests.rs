//! Conversion keeps what is valid and names what is not.

use k8s_openapi::serde::de::DeserializeOwned;
use lb_common::addr::Family;

use super::*;
use crate::model::{EndpointSlice, IpMode, Service, ServiceType, SourceRange};

fn read<T: DeserializeOwned>(yaml: &str) -> T {
    serde_yaml_ng::from_str(yaml).expect("test YAML parses")
}

fn service(yaml: &str) -> (Service, Vec<String>) {
    match Converter::default().service(read(yaml)).expect("has a name") {
        (Object::Service(service), warnings) => (service, warnings.iter().map(ToString::to_string).collect()),
        (other, _) => panic!("not a Service: {other:?}"),
    }
}

fn slice(yaml: &str) -> (EndpointSlice, Vec<String>) {
    match Converter::default().endpoint_slice(read(yaml)).expect("has a name").expect("is of a Service") {
        (Object::EndpointSlice(slice), warnings) => (slice, warnings.iter().map(ToString::to_string).collect()),
        (other, _) => panic!("not a slice: {other:?}"),
    }
}

#[test]
fn defaults_are_those_of_the_api_server() {
    let (service, warnings) = service("{metadata: {name: a}, spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}}");
    assert_eq!(service.name.to_string(), "default/a");
    assert_eq!(service.service_type, ServiceType::ClusterIP);
    assert_eq!(service.cluster_ips, ["10.0.0.1".parse::<std::net::IpAddr>().expect("an address")]);
    assert_eq!(
        (&*service.ports[0].name, service.ports[0].proto, service.ports[0].port),
        ("", lb_common::addr::Proto::TCP, 80)
    );
    assert_eq!(service.created_secs, None);
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn a_bad_field_spoils_only_itself() {
    let (service, warnings) = service(
        "metadata: {name: a, namespace: n}
spec:
  clusterIP: 10.0.0.1
  externalTrafficPolicy: Nearby
  ports: [{name: x, port: 80}, {name: y, port: 70000}, {name: z, port: 1, protocol: tcp}, {name: w, port: 80}]
status: {loadBalancer: {ingress: [{ip: 1.2.3}, {ip: 1.2.3.004}, {ip: 0.0.0.0}, {ip: 1.2.3.5, ipMode: proxy}]}}",
    );
    assert_eq!(service.ports.len(), 1);
    assert_eq!(service.ingress.iter().map(|entry| entry.ip.to_string()).collect::<Vec<_>>(), ["1.2.3.4", "1.2.3.5"]);
    assert_eq!(service.ingress[1].ip_mode, Some(IpMode::Unknown("proxy".into())));
    for field in [
        "spec.externalTrafficPolicy",
        "spec.ports[1].port",
        "spec.ports[2].protocol",
        "spec.ports[3]",
        "status.loadBalancer.ingress[0].ip",
        "status.loadBalancer.ingress[2].ip",
        "status.loadBalancer.ingress[3].ipMode",
    ] {
        let start = format!("Service n/a: {field}: ");
        assert!(warnings.iter().any(|text| text.starts_with(&start)), "{field} in {warnings:#?}");
    }
    assert_eq!(warnings.len(), 7, "{warnings:#?}");
}

#[test]
fn eps_02_absent_conditions_are_ready() {
    let (slice, _) = slice(
        "{metadata: {name: s, labels: {kubernetes.io/service-name: a}}, addressType: IPv4,
          endpoints: [{addresses: [10.1.1.1, 10.1.1.2]}, {addresses: [10.1.1.3], conditions: {ready: false}}]}",
    );
    assert_eq!(slice.endpoints.len(), 2);
    assert_eq!(slice.endpoints[0].conditions, crate::model::Conditions::READY);
    let second = slice.endpoints[1].conditions;
    assert_eq!((second.ready, second.serving, second.terminating), (false, true, false));
}

#[test]
fn eps_03_only_the_first_address_counts() {
    let (slice, _) = slice(
        "{metadata: {name: s, labels: {kubernetes.io/service-name: a}}, addressType: IPv4,
          endpoints: [{addresses: [10.1.1.1, 10.1.1.2]}]}",
    );
    assert_eq!(slice.endpoints[0].addr.to_string(), "10.1.1.1");
}

#[test]
fn endpoints_of_the_wrong_family_are_named() {
    let (slice, warnings) = slice(
        "{metadata: {name: s, labels: {kubernetes.io/service-name: a}}, addressType: IPv6,
          ports: [{port: 80}, {port: 0}, {}], endpoints: [{addresses: [10.1.1.1]}, {addresses: ['fd00::1']}]}",
    );
    assert_eq!(slice.endpoints.len(), 1);
    assert_eq!(slice.ports.len(), 1);
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].starts_with("EndpointSlice default/s: endpoints[0].addresses[0]: 10.1.1.1 is not"),
        "{warnings:?}"
    );
}

#[test]
fn slices_of_nobody_are_ignored() {
    for yaml in [
        "{metadata: {name: s}, addressType: IPv4, endpoints: []}",
        "{metadata: {name: s, labels: {kubernetes.io/service-name: a}}, addressType: FQDN, endpoints: []}",
    ] {
        assert!(Converter::default().endpoint_slice(read(yaml)).expect("has a name").is_none());
    }
}

#[test]
fn an_object_without_a_name_is_refused() {
    let warning = Converter::default().service(read("{spec: {}}")).expect_err("has no name");
    assert_eq!(warning.field.as_deref(), Some("metadata.name"));
}

#[test]
fn sr_07_source_ranges_are_trimmed_and_read_in_old_spellings() {
    let (service, warnings) = service(
        "{metadata: {name: a}, spec: {clusterIP: 10.0.0.1, loadBalancerSourceRanges:
          [' 203.0.113.0/25 ', 203.0.113.000/025, '2001:db8::/32', 203.0.113.0, '2001:db8::/129']}}",
    );
    let ranges: Vec<_> = service.source_ranges.iter().map(|range| range.prefix().map(|p| p.to_string())).collect();
    let readable = ["203.0.113.0/25", "203.0.113.0/25", "2001:db8::/32"].map(|text| Some(text.to_owned()));
    assert_eq!(ranges, [&readable[..], &[None, None]].concat());
    let families: Vec<_> = service.source_ranges[3..].iter().map(SourceRange::family).collect();
    assert_eq!(families, [Family::V4, Family::V6]);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("Service default/a: spec.loadBalancerSourceRanges[3]: \"203.0.113.0\" is not"));
}

/// SA: the parameters. The API's default is three hours, and its largest value is a day.
#[test]
fn sa_affinity_has_seconds_from_1_to_86400() {
    for (fields, expected_secs, warned) in [
        ("", None, false),
        ("sessionAffinity: None", None, false),
        ("sessionAffinity: ClientIP", Some(10_800), false),
        ("sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}", Some(1), false),
        ("sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86400}}", Some(86_400), false),
        ("sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}", Some(10_800), true),
        ("sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}", Some(10_800), true),
        ("sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: -1}}", Some(10_800), true),
        ("sessionAffinity: None, sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}", None, false),
        ("sessionAffinity: Cookie", None, true),
    ] {
        let (service, warnings) = service(&format!("{{metadata: {{name: a}}, spec: {{{fields}}}}}"));
        assert_eq!(service.affinity_secs.map(std::num::NonZeroU32::get), expected_secs, "{fields}");
        assert_eq!(!warnings.is_empty(), warned, "{fields}: {warnings:?}");
    }
}

#[test]
fn hz_02_hz_06_a_node_is_leaving_if_it_is_deleted_or_tainted() {
    for (fields, is_leaving) in [
        ("metadata: {name: n}", false),
        ("metadata: {name: n}, spec: {taints: [{key: node.kubernetes.io/unschedulable, effect: NoSchedule}]}", false),
        (
            "metadata: {name: n}, spec: {taints: [{key: x, effect: ''}, {key: ToBeDeletedByClusterAutoscaler, effect: ''}]}",
            true,
        ),
        ("metadata: {name: n, deletionTimestamp: '2026-11-30T20:00:00Z'}", true),
    ] {
        match Converter::default().node(&read(&format!("{{{fields}}}"))).expect("has a name") {
            (Object::Node(node), warnings) => {
                assert_eq!((node.is_leaving, warnings.len()), (is_leaving, 0), "{fields}");
            }
            (other, _) => panic!("not a Node: {other:?}"),
        }
    }
}

#[test]
fn a_health_check_node_port_is_a_port() {
    for (number, port, warned) in [("31000", Some(31_000), false), ("0", None, false), ("70000", None, true)] {
        let (service, warnings) =
            service(&format!("{{metadata: {{name: a}}, spec: {{healthCheckNodePort: {number}}}}}"));
        assert_eq!((service.health_check_node_port, !warnings.is_empty()), (port, warned), "{warnings:?}");
    }
}

#[test]
fn cluster_ips_win_over_cluster_ip() {
    let (service, _) =
        service("{metadata: {name: a}, spec: {clusterIP: 10.0.0.1, clusterIPs: ['10.0.0.1', 'fd00::1']}}");
    assert_eq!(service.cluster_ips.len(), 2);
    let (headless, warnings) = self::service("{metadata: {name: a}, spec: {clusterIP: None, clusterIPs: ['None']}}");
    assert!(headless.cluster_ips.is_empty());
    assert!(warnings.is_empty());
}
