//! The Helm chart: with its defaults it is the kustomize base, object by object; values change what they say, and wrong
//! values are refused.

use std::collections::BTreeMap;
use std::process::Command;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use lb_tests::agent;
use lb_tests::manifest::documents_of;
use lb_tests::tools;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DEPLOY, accepted, strict};

/// The objects by kind and name. Each has only fields that its kind has.
type Objects = BTreeMap<String, Value>;

/// What the chart and the kustomization use of the Prometheus Operator's kinds, and nothing else.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodMonitor {
    api_version: String,
    kind: String,
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    spec: PodMonitorSpec,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodMonitorSpec {
    selector: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    job_label: String,
    pod_metrics_endpoints: Vec<Value>,
}

fn objects(text: &str) -> Objects {
    let named = |object: Value| {
        match object["kind"].as_str() {
            Some("DaemonSet") => drop(strict::<DaemonSet>(&object)),
            Some("ConfigMap") => drop(strict::<ConfigMap>(&object)),
            Some("ServiceAccount") => drop(strict::<ServiceAccount>(&object)),
            Some("ClusterRole") => drop(strict::<ClusterRole>(&object)),
            Some("ClusterRoleBinding") => drop(strict::<ClusterRoleBinding>(&object)),
            Some("PodMonitor") => drop(strict::<PodMonitor>(&object)),
            // promtool reads its rules.
            Some("PrometheusRule") => assert_eq!(object["apiVersion"], "monitoring.coreos.com/v1"),
            other => panic!("{other:?} is no kind that we deploy"),
        }
        let name = |field: &str| object["metadata"][field].as_str().unwrap_or("-").to_owned();
        (format!("{} {}/{}", object["kind"].as_str().expect("checked above"), name("namespace"), name("name")), object)
    };
    documents_of(text).into_iter().map(named).collect()
}

/// The chart with these values (`a.b=c`), as the release lb-agent in kube-system.
fn chart(values: &[&str]) -> Objects {
    objects(&tools::says("helm", &command(values).iter().map(String::as_str).collect::<Vec<_>>(), ""))
}

fn command(values: &[&str]) -> Vec<String> {
    let mut words = ["template", "lb-agent"].map(str::to_owned).to_vec();
    words.push(format!("{DEPLOY}/helm/lb-agent"));
    words.extend(["--namespace", "kube-system"].map(str::to_owned));
    words.extend(values.iter().flat_map(|value| ["--set".to_owned(), (*value).to_owned()]));
    words
}

/// A folder of `deploy/` as `kubectl apply -k` applies it.
fn kustomized(folder: &str) -> Objects {
    objects(&tools::says("kubectl", &["kustomize", &format!("{DEPLOY}/{folder}")], ""))
}

const DAEMON_SET: &str = "DaemonSet kube-system/lb-agent";
const UNINSTALL: &str = "DaemonSet kube-system/lb-agent-uninstall";

fn args(objects: &Objects) -> Vec<String> {
    let args = objects[DAEMON_SET].pointer("/spec/template/spec/containers/0/args").expect("it has some").clone();
    serde_json::from_value(args).expect("words")
}

#[test]
fn the_defaults_are_the_kustomize_base() {
    let mut rendered = chart(&[]);
    let hook = rendered.get_mut(UNINSTALL).expect("it is on").pointer_mut("/metadata").expect("all have it");
    let annotations = hook.as_object_mut().and_then(|metadata| metadata.remove("annotations")).expect("a hook");
    assert_eq!(annotations["helm.sh/hook"], "post-delete");
    let mut base = kustomized("");
    base.extend(kustomized("uninstall"));
    assert_eq!(rendered.keys().collect::<Vec<_>>(), base.keys().collect::<Vec<_>>());
    for (name, object) in &base {
        assert_eq!(&rendered[name], object, "{name}");
    }
}

#[test]
fn the_monitoring_of_both_is_the_same() {
    let on = ["podMonitor", "rules", "dashboard"].map(|what| format!("metrics.{what}.enabled=true"));
    let rendered = chart(&on.iter().map(String::as_str).collect::<Vec<_>>());
    let monitoring = kustomized("monitoring");
    assert_eq!(monitoring.len(), 3);
    for (name, object) in &monitoring {
        let mut found = rendered.get(name).unwrap_or_else(|| panic!("the chart has no {name}")).clone();
        if let Some(Value::String(text)) = found.pointer_mut("/data/dashboard.json") {
            // A block of YAML ends with one line break.
            assert_eq!(text.trim_end(), object["data"]["dashboard.json"].as_str().expect("text").trim_end());
            *text = object["data"]["dashboard.json"].as_str().expect("text").to_owned();
        }
        assert_eq!(&found, object, "{name}");
    }
}

#[test]
fn values_reach_the_agent() {
    let rendered = chart(&[
        "services=all",
        "workloadInterfaces=veth*\\,cali*",
        "uplinkInterfaces=eth0",
        "serviceProxyName=lb-agent",
        "metrics.services.enabled=true",
        "metrics.services.max=100000",
        "httpPort=20356",
        "metrics.port=20357",
    ]);
    let args = args(&rendered);
    let config = accepted(&args);
    assert_eq!(config.metrics.service_ports_max, Some(100_000));
    assert_eq!(config.http.to_string(), "127.0.0.1:20356");
    for word in ["--services=all", "--workload-interfaces=veth*,cali*", "--service-proxy-name=lb-agent"] {
        assert!(args.iter().any(|arg| arg == word), "{word} is not in {args:?}");
    }
    let pod = &rendered[DAEMON_SET]["spec"]["template"]["spec"];
    let ports: Vec<_> =
        pod["containers"][0]["ports"].as_array().into_iter().flatten().map(|port| &port["hostPort"]).collect();
    assert_eq!(ports, [20356, 20357]);
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(pod["containers"][0][probe]["httpGet"]["port"], 20356, "{probe}");
    }

    let rendered = chart(&[
        "metrics.enabled=false",
        "metrics.podMonitor.enabled=true",
        "uninstall.enabled=false",
        "image.repository=registry.example/net/lb-agent",
        "image.tag=9.9.9",
        "imagePullSecrets[0].name=pull",
        "seccompProfile.type=Localhost",
        "seccompProfile.localhostProfile=lb-agent.json",
        "nodeSelector.pool=edge",
        "podAnnotations.note=x",
        "maxUnavailable=1",
        "resources.limits.memory=2Gi",
    ]);
    assert!(self::args(&rendered).contains(&"--metrics=off".to_owned()));
    assert!(!rendered.keys().any(|name| name.starts_with("PodMonitor") || name == UNINSTALL), "{:?}", rendered.keys());
    let template = &rendered[DAEMON_SET]["spec"]["template"];
    let container = &template["spec"]["containers"][0];
    assert_eq!(container["image"], "registry.example/net/lb-agent:9.9.9");
    assert_eq!(container["securityContext"]["seccompProfile"]["localhostProfile"], "lb-agent.json");
    assert_eq!(container["resources"]["limits"]["memory"], "2Gi");
    assert_eq!(template["spec"]["nodeSelector"], serde_json::json!({"kubernetes.io/os": "linux", "pool": "edge"}));
    assert_eq!(
        (&template["metadata"]["annotations"]["note"], &template["spec"]["imagePullSecrets"][0]["name"]),
        (&"x".into(), &"pull".into())
    );
}

/// Other settings are a file, which the agent reads; one that it does not know would end its start.
#[test]
fn settings_are_a_file_of_the_agents() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let values = "settings: {flows-max: 1048576, default-ip-mode: Proxy, guard: \"off\", proxy-annotation: [example.com/a, example.com/b=c]}\n";
    std::fs::write(path("values.yaml"), values).expect("the folder is writable");
    let mut words = command(&[]);
    words.extend(["--values".to_owned(), path("values.yaml")]);
    let rendered = objects(&tools::says("helm", &words.iter().map(String::as_str).collect::<Vec<_>>(), ""));
    let text = rendered["ConfigMap kube-system/lb-agent"]["data"]["config.yaml"].as_str().expect("text");
    std::fs::write(path("config.yaml"), text).expect("the folder is writable");
    let mut run = Command::new(agent::program());
    let printed = run.args(["run", "--source=kube", "--print-config", "--config", &path("config.yaml")]).output();
    let printed = printed.expect("it starts");
    let (printed, errors) = (String::from_utf8_lossy(&printed.stdout), String::from_utf8_lossy(&printed.stderr));
    for line in [
        "flows-max: 1048576 ",
        "default-ip-mode: proxy ",
        "guard: \"off\" ",
        "proxy-annotation: [example.com/a, \"example.com/b=c\"] ",
    ] {
        let is_there = printed.lines().any(|found| found.to_lowercase().starts_with(line));
        assert!(is_there, "{line} is not in\n{printed}{errors}");
    }
    let pod = &rendered[DAEMON_SET]["spec"]["template"];
    assert!(args(&rendered).contains(&"--config=/etc/lb-agent/config.yaml".to_owned()));
    let mount = &pod["spec"]["containers"][0]["volumeMounts"][2];
    assert_eq!((&mount["mountPath"], &mount["name"]), (&"/etc/lb-agent".into(), &pod["spec"]["volumes"][2]["name"]));
    assert_eq!(pod["spec"]["volumes"][2]["configMap"]["name"], "lb-agent");
    assert_eq!(pod["metadata"]["annotations"]["lb-agent.io/settings"].as_str().map(str::len), Some(64));
}

#[test]
fn wrong_values_are_refused_by_their_name() {
    for (value, named) in [
        ("services=none", "/services"),
        ("servicess=lb", "servicess"),
        ("settings.http=0.0.0.0:1", "http"),
        ("settings.Flows=1", "Flows"),
        ("httpPort=0", "/httpPort"),
        ("metrics.port=65536", "/metrics/port"),
        ("metrics.podMonitor.interval=soon", "interval"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("seccompProfile.type=Unconfined", "/seccompProfile"),
        ("resources.limits.memory=much", "memory"),
        ("maxUnavailable=few", "/maxUnavailable"),
        ("serviceProxyName=-x", "/serviceProxyName"),
        ("uninstall.enabled=maybe", "/uninstall/enabled"),
    ] {
        let words = command(&[value]);
        let output = tools::run("helm", &words.iter().map(String::as_str).collect::<Vec<_>>(), "");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(named), "{value}: {said}");
    }
}

/// `values.yaml` says what each value means: none is without a comment above it or above its group.
#[test]
fn the_chart_is_linted_and_its_values_have_comments() {
    tools::says("helm", &["lint", "--strict", &format!("{DEPLOY}/helm/lb-agent")], "");
    let text = std::fs::read_to_string(format!("{DEPLOY}/helm/lb-agent/values.yaml")).expect("it is there");
    let groups = text.split("\n\n").skip(1);
    groups.for_each(|group| assert!(group.contains('#'), "no comment in\n{group}"));
}
