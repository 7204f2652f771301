//! Alerts and the dashboard, by the tools of Prometheus. `netns-operate` holds the metrics that they name against a scrape.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lb_tests::manifest::deployed as documents;
use lb_tests::tools;
use serde_json::{Value, json};

const ALERTS: &str = include_str!("alerts.yaml");

fn rules() -> Value {
    documents("monitoring/prometheusrule.yaml").remove(0)["spec"].take()
}

/// Writes a file, and returns its path.
fn written(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("the folder is writable");
    path.display().to_string()
}

#[test]
fn every_alert_fires_when_it_should_and_not_before() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rules = rules();
    // JSON is YAML.
    let path = written(folder.path(), "rules.yaml", &rules.to_string());
    tools::says("promtool", &["check", "rules", "--lint=all", "--lint-fatal", &path], "");
    tools::says("promtool", &["test", "rules", &written(folder.path(), "alerts.yaml", ALERTS)], "");
    let alerts =
        rules["groups"].as_array().into_iter().flatten().filter_map(|group| group["rules"].as_array()).flatten();
    let mut names = BTreeSet::new();
    for alert in alerts {
        let name = alert["alert"].as_str().expect("each rule is an alert");
        assert!(names.insert(name), "{name} is there twice");
        assert!(ALERTS.contains(&format!("alertname=\"{name}\"")), "no case has {name} firing");
        for text in ["summary", "description"] {
            assert!(alert["annotations"][text].is_string(), "{name} has no {text}");
        }
        let severity = alert["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning" | "info")), "{name}: {severity:?}");
    }
    assert!(!names.is_empty());
}

/// Each query of the dashboard is one that Prometheus accepts, each panel has its place, and says what it shows.
#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/monitoring/dashboard.json");
    let dashboard: Value = serde_json::from_slice(&fs::read(path).expect("it is there")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut queries = Vec::new();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64()), "{} is there twice", panel["id"]);
        let side = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        for cell in
            (side("y")..side("y") + side("h")).flat_map(|y| (side("x")..side("x") + side("w")).map(move |x| (x, y)))
        {
            assert!(cell.0 < 24 && taken.insert(cell), "{} lies over another panel", panel["title"]);
        }
        if panel["type"] != "row" {
            assert!(
                panel["description"].is_string() && panel["fieldConfig"]["defaults"]["unit"].is_string(),
                "{panel}"
            );
        }
        queries.extend(panel["targets"].as_array().into_iter().flatten().filter_map(|target| target["expr"].as_str()));
    }
    let plain = |query: &&str| query.replace("$__rate_interval", "5m").replace("$node", ".*");
    let rules: Vec<Value> = queries
        .iter()
        .map(plain)
        .enumerate()
        .map(|(number, query)| json!({"record": format!("query:{number}"), "expr": query}))
        .collect();
    assert!(rules.len() > 20);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let group = json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string();
    tools::says("promtool", &["check", "rules", &written(folder.path(), "dashboard.yaml", &group)], "");
}
