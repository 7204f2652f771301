//! Metrics as Prometheus scrapes them: the formats, what `deploy/` asks of them, and the reference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use lb_agent::dataplane::Sizes;
use lb_agent::model::Kind;
use lb_agent::source::connection::Connections;
use lb_agent::status::Status;
use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::dial::Outcome;
use lb_tests::lab::Setup;
use lb_tests::scene::{BALANCER, Scene, node_addresses};
use lb_tests::{http, tools};
use prometheus_client::encoding::text::encode;
use serde_json::json;
use tokio::sync::watch;

const MONITORING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/monitoring");

/// A family of metrics in a scrape.
#[derive(Debug, Default)]
struct Described {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// The families of a scrape in the format 0.0.4, by name.
fn families(text: &str) -> BTreeMap<String, Described> {
    let mut families = BTreeMap::<String, Described>::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help.clone_into(&mut families.entry(name.to_owned()).or_default().help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kind.clone_into(&mut families.entry(name.to_owned()).or_default().kind);
        } else if let Some((name, labels)) = line.split_once('{') {
            let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
            let names = labels.split(',').filter_map(|pair| pair.split_once('=')).map(|(label, _)| label.to_owned());
            let family = name.strip_suffix("_bucket").filter(|family| families.contains_key(*family)).unwrap_or(name);
            let family = families.get_mut(family).unwrap_or_else(|| panic!("{name} has no type"));
            family.labels.extend(names.filter(|label| label != "le"));
        }
    }
    families
}

/// What only the API as a source has, from a status with connections.
fn families_of_the_api() -> BTreeMap<String, Described> {
    let connections = Connections::starting(&[Kind::Service]);
    let status = Status::starting(Instant::now()).with_connections(connections.now());
    let (_sender, receiver) = watch::channel(Arc::new(status));
    let registry = lb_agent::metrics::registry("/nonexistent".into(), Sizes::default(), receiver);
    let mut text = String::new();
    encode(&mut text, &registry).expect("text");
    families(&lb_agent::metrics::classic(&text))
}

fn page(families: &BTreeMap<String, Described>) -> String {
    let mut page = String::from(include_str!("metrics.head.md"));
    page.push_str("\n| metric | type | labels | what |\n|---|---|---|---|\n");
    for (name, Described { kind, help, labels }) in families {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", ")).expect("strings take everything");
    }
    page
}

/// The names of metrics in text: words that begin as ours do, without the suffixes of histograms.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("lb_agent_") || word.starts_with("process_"));
    ours.map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned()).collect()
}

#[test]
fn a_scrape_is_what_prometheus_and_the_manifests_expect() {
    let node = node_addresses()[0];
    let at = SocketAddr::new(node, 10357);
    let flags = ["--metrics", &at.to_string(), "--service-metrics", "on", "--service-metrics-max", "1"];
    let scene = Scene::with_flags(Setup::new("opscrape"), &flags);
    scene.publish("left", 71, "Proxy", &["a"]);
    scene.publish("empty", 72, "VIP", &[]);
    let service = scene.service("shop", 70, &[lb_tests::manifest::ingress(vip(Family::V4, 70, 0).ip(), "VIP")]);
    let mut slices = scene.slices(&service, &["a"]);
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    slices[0]["metadata"]["annotations"] = json!({"endpoints.kubernetes.io/last-change-trigger-time": now});
    scene.apply("shop", &[vec![service.object()], slices].concat());
    assert_eq!(scene.dial().tcp(vip(Family::V4, 70, 80)).who(), Some("a"));
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 71, 80)).who(), Some(BALANCER));
    }
    assert_eq!(scene.dial().tcp(vip(Family::V4, 72, 80)), Outcome::Refused);

    // From the network, at an address that serves nothing else.
    let outside = &scene.lab.external;
    assert_eq!(http::get(outside, at, "/readyz").map(|(code, _)| code), Some(404));
    let scrape = http::page(outside, at, "/metrics").expect("it is served");
    assert_eq!((scrape.status, scrape.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    let text = scrape.body;
    tools::says("promtool", &["check", "metrics"], &text);
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok());
        found.unwrap_or_else(|| panic!("{name} is missing in\n{text}"))
    };
    assert!(value("lb_agent_frontends{mode=\"VIP\"}") >= 2 && value("lb_agent_frontends{mode=\"Proxy\"}") >= 4);
    assert_eq!(value("lb_agent_frontends{mode=\"Router\"}"), 0);
    assert_eq!(value("lb_agent_network_programming_duration_seconds_count"), 1);
    assert!(value("lb_agent_service_ports_beyond_max") >= 3);
    let series: Vec<&str> = text.lines().filter(|line| line.starts_with("lb_agent_service_flows_total{")).collect();
    assert!(series.len() == 2 && series[1].contains("{service=\"other\"}"), "{series:?}");
    assert!(value("lb_agent_service_flows_total{service=\"other\"}") >= 1, "{series:?}");
    assert!(value("lb_agent_service_rejects_total{service=\"other\"}") >= 1, "of the Service without endpoints");

    let mut all = families_of_the_api();
    for (name, described) in families(&text) {
        let known = all.entry(name).or_default();
        (known.kind, known.help) = (described.kind, described.help);
        known.labels.extend(described.labels);
    }
    asked_for_by_the_manifests(&all);
    let written = page(&all);
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs/reference/metrics.md");
    if std::env::var_os("LB_REWRITE").is_some() {
        fs::write(&reference, &written).expect("the folder is there");
    }
    assert_eq!(
        fs::read_to_string(reference).unwrap_or_default(),
        written,
        "LB_REWRITE=1 writes docs/reference/metrics.md"
    );
}

/// Each metric that alerts and dashboards name is in a scrape.
#[track_caller]
fn asked_for_by_the_manifests(families: &BTreeMap<String, Described>) {
    for file in ["prometheusrule.yaml", "dashboard.json"] {
        let text = fs::read_to_string(Path::new(MONITORING).join(file)).expect("it is there");
        let named = named(&text);
        let unknown: Vec<&String> = named.iter().filter(|name| !families.contains_key(*name)).collect();
        assert!(named.len() > 5 && unknown.is_empty(), "{file}: {unknown:?}");
    }
}
