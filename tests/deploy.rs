//! The manifests of `deploy/` are valid for the API, grant no more than needed, and fit the agent's command line.

#[path = "deploy/helm.rs"]
mod helm;
#[path = "deploy/monitoring.rs"]
mod monitoring;
#[path = "deploy/systemd.rs"]
mod systemd;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::Parser as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, Probe, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use lb_agent::args::{Command, CommandLine};
use lb_agent::config::{Config, Source};
use lb_agent::metrics::Place;
use lb_tests::manifest::deployed as documents;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");

/// The object of this kind. The round trip through its type would lose an unknown field.
#[track_caller]
fn strict<T: DeserializeOwned + Serialize>(value: &Value) -> T {
    let object: T = serde_json::from_value(value.clone()).expect("the fields have the API's types");
    let back = serde_json::to_value(&object).expect("it prints");
    assert_eq!(back, *value, "the API knows every field");
    object
}

fn one<T: DeserializeOwned + Serialize>(name: &str, kind: &str) -> T {
    let documents = documents(name);
    let found = documents.iter().find(|document| document["kind"] == kind);
    strict(found.unwrap_or_else(|| panic!("{name} has no {kind}")))
}

fn container() -> Container {
    let daemon_set: DaemonSet = one("daemonset.yaml", "DaemonSet");
    let mut containers = daemon_set.spec.and_then(|spec| spec.template.spec).expect("it has pods").containers;
    assert_eq!(containers.len(), 1);
    containers.remove(0)
}

#[test]
fn an_unknown_field_is_noticed() {
    let mut value = documents("daemonset.yaml").remove(0);
    value["spec"]["template"]["spec"]["hostNetworks"] = true.into();
    let lost = std::panic::catch_unwind(|| drop(strict::<DaemonSet>(&value)));
    assert!(lost.is_err());
}

#[test]
fn rights_are_reading_three_kinds() {
    let role: ClusterRole = one("rbac.yaml", "ClusterRole");
    let mut rights = BTreeSet::new();
    for rule in role.rules.unwrap_or_default() {
        assert!(rule.non_resource_urls.is_none());
        for group in rule.api_groups.unwrap_or_default() {
            for resource in rule.resources.clone().unwrap_or_default() {
                rights.extend(rule.verbs.iter().map(|verb| format!("{verb} {resource}.{group}")));
            }
        }
    }
    let kinds = ["services.", "nodes.", "endpointslices.discovery.k8s.io"];
    let wanted: BTreeSet<String> =
        kinds.iter().flat_map(|kind| ["get", "list", "watch"].map(|verb| format!("{verb} {kind}"))).collect();
    assert_eq!(rights, wanted);
}

#[test]
fn rights_reach_the_pods() {
    let account: ServiceAccount = one("rbac.yaml", "ServiceAccount");
    let role: ClusterRole = one("rbac.yaml", "ClusterRole");
    let binding: ClusterRoleBinding = one("rbac.yaml", "ClusterRoleBinding");
    let daemon_set: DaemonSet = one("daemonset.yaml", "DaemonSet");
    assert_eq!(Some(binding.role_ref.name), role.metadata.name);
    let subjects = binding.subjects.unwrap_or_default();
    assert_eq!(subjects.len(), 1);
    assert_eq!(Some(&subjects[0].name), account.metadata.name.as_ref());
    assert_eq!(subjects[0].namespace, account.metadata.namespace);
    assert_eq!(daemon_set.metadata.namespace, account.metadata.namespace);
    let pod = daemon_set.spec.and_then(|spec| spec.template.spec).expect("it has pods");
    assert_eq!(pod.service_account_name, account.metadata.name);
    assert_eq!(pod.host_network, Some(true));
}

#[test]
fn selector_and_labels_agree() {
    let daemon_set: DaemonSet = one("daemonset.yaml", "DaemonSet");
    let spec = daemon_set.spec.expect("it has one");
    let labels = spec.template.metadata.and_then(|metadata| metadata.labels).expect("pods are labelled");
    let selected = spec.selector.match_labels.expect("selected by labels");
    assert!(!selected.is_empty() && selected.iter().all(|(name, value)| labels.get(name) == Some(value)));
}

#[test]
fn the_container_has_few_privileges() {
    let security = container().security_context.expect("it is said");
    assert_eq!((security.privileged, security.allow_privilege_escalation), (Some(false), Some(false)));
    let capabilities = security.capabilities.expect("they are named");
    assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
    assert_eq!(capabilities.add, Some(["BPF", "NET_ADMIN", "PERFMON"].map(str::to_owned).to_vec()));
    let seccomp = security.seccomp_profile.expect("it is said");
    assert_eq!(seccomp.type_, "RuntimeDefault");
}

/// The patch changes only the profile, and the profile that it names exists.
#[test]
fn the_patch_names_the_profile() {
    let mut daemon_set = documents("daemonset.yaml").remove(0);
    let patch = documents("seccomp/localhost.yaml").remove(0);
    let seccomp = "/spec/template/spec/containers/0/securityContext/seccompProfile";
    let wanted = patch.pointer(seccomp).expect("a profile").clone();
    assert_eq!(patch.pointer("/spec/template/spec/containers/0/name"), Some(&container().name.into()));
    *daemon_set.pointer_mut(seccomp).expect("a profile") = wanted.clone();
    let patched: DaemonSet = strict(&daemon_set);
    assert!(patched.spec.is_some() && wanted["type"] == "Localhost", "{wanted}");
    let name = wanted["localhostProfile"].as_str().expect("a name");
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/seccomp").join(name);
    let profile: Value = serde_json::from_slice(&fs::read(profile).expect("it is there")).expect("JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let names =
        || profile["syscalls"].as_array().into_iter().flatten().filter_map(|rule| rule["names"].as_array().cloned());
    let names: BTreeSet<String> = names().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    assert!(names.contains("bpf") && names.contains("execve"), "{names:?}");
    // Calls that lead out of a container, or into other processes.
    for call in [
        "mount",
        "setns",
        "unshare",
        "ptrace",
        "chroot",
        "pivot_root",
        "init_module",
        "kexec_load",
        "process_vm_writev",
    ] {
        assert!(!names.contains(call), "{call}");
    }
}

#[test]
fn pods_run_on_linux_nodes_with_memory_to_live_on() {
    let daemon_set: DaemonSet = one("daemonset.yaml", "DaemonSet");
    let pod = daemon_set.spec.and_then(|spec| spec.template.spec).expect("it has pods");
    let selector = pod.node_selector.expect("nodes are selected");
    assert_eq!(selector.get("kubernetes.io/os").map(String::as_str), Some("linux"));
    let resources = container().resources.expect("they are said");
    let mib = |list: Option<std::collections::BTreeMap<String, _>>| {
        let quantity: k8s_openapi::apimachinery::pkg::api::resource::Quantity =
            list.expect("given").remove("memory").expect("memory");
        let (number, unit_mib) = match quantity.0.split_at(quantity.0.len().saturating_sub(2)) {
            (number, "Mi") => (number, 1),
            (number, "Gi") => (number, 1024),
            other => panic!("{other:?} is neither in Mi nor in Gi"),
        };
        unit_mib * number.parse::<u32>().expect("a whole number")
    };
    let (requests, limits) = (mib(resources.requests), mib(resources.limits));
    // Measured with 10,000 Services on 2 processors; each further processor has counters of its own. See the README
    // there.
    let (peak, per_processor) = (220, 6);
    assert!(requests >= peak && limits >= peak + per_processor * 126, "{requests} and {limits}");
}

#[test]
fn the_command_line_is_the_agents() {
    let container = container();
    let args = container.args.clone().expect("they are given");
    let name = container.env.iter().flatten().find(|variable| variable.name == "NODE_NAME").expect("it is set");
    let field = name.value_from.as_ref().and_then(|from| from.field_ref.as_ref()).expect("from a field");
    assert_eq!(field.field_path, "spec.nodeName");
    let config = accepted(&args);
    let Source::Kube(source) = &config.source else { panic!("{:?}", config.source) };
    assert_eq!(source.kubeconfig, None, "the service account is used");
    // The agent listens where the probes ask.
    for probe in [&container.startup_probe, &container.liveness_probe, &container.readiness_probe] {
        let asked = address(probe.as_ref().expect("there is one"));
        assert_eq!(asked, config.http.to_string());
    }
    // Prometheus asks the node, and reaches metrics only.
    assert!(config.http.ip().is_loopback());
    assert_eq!(config.metrics.place, Place::At("[2001:db8::11]:10357".parse().expect("an address")));
    let port =
        container.ports.iter().flatten().find(|port| port.name.as_deref() == Some("metrics")).expect("it is named");
    assert_eq!((port.container_port, port.host_port), (10357, Some(10357)));
    // The pins outlive the pod.
    let mounts = container.volume_mounts.unwrap_or_default();
    assert!(mounts.iter().any(|mount| config.dataplane.pin_path.starts_with(&mount.mount_path)), "{mounts:?}");
    // And `lb-agent show` in the pod finds them by itself.
    let pin_path = container.env.iter().flatten().find(|variable| variable.name == "LB_AGENT_PIN_PATH");
    let pin_path = pin_path.and_then(|variable| variable.value.as_deref()).expect("it is set");
    assert_eq!(Path::new(pin_path), config.dataplane.pin_path);
}

/// What the agent makes of the arguments of its container. kubelet replaces the node's address.
#[track_caller]
fn accepted(args: &[String]) -> Config {
    let args = args.iter().map(|arg| arg.replace("$(HOST_IP)", "2001:db8::11"));
    let line =
        CommandLine::try_parse_from(["lb-agent".to_owned()].into_iter().chain(args)).expect("the agent takes it");
    let Command::Run(run) = line.command else { panic!("it does not run the agent") };
    Config::try_from(*run).expect("the settings make sense")
}

/// The pod sees the folder of the default pin path, the cgroup tree for reading, and nothing else of the node's file
/// systems.
#[test]
fn the_pod_sees_its_own_folder_and_the_cgroup_tree_only() {
    let daemon_set: DaemonSet = one("daemonset.yaml", "DaemonSet");
    let pod = daemon_set.spec.and_then(|spec| spec.template.spec).expect("it has pods");
    let volumes = pod.volumes.unwrap_or_default();
    assert_eq!(volumes.len(), 2);
    let cgroup = volumes[1].host_path.as_ref().expect("a folder of the node");
    assert_eq!((cgroup.path.as_str(), cgroup.type_.as_deref()), ("/sys/fs/cgroup", Some("Directory")));
    let mounts = container().volume_mounts.unwrap_or_default();
    let mount = mounts.iter().find(|mount| mount.name == volumes[1].name).expect("it is mounted");
    assert_eq!(mount.read_only, Some(true));
    let folder = volumes[0].host_path.as_ref().expect("a folder of the node");
    let line = ["lb-agent", "unload"];
    // The default folder of `lb-agent unload` on the node.
    let Command::Unload(unload) = CommandLine::try_parse_from(line).expect("the agent takes it").command else {
        panic!("{line:?} is something else");
    };
    assert_eq!(Path::new(&folder.path), unload.pins.pin_path);
    assert_eq!(folder.type_.as_deref(), Some("DirectoryOrCreate"));
}

fn address(probe: &Probe) -> String {
    let get = probe.http_get.as_ref().expect("by HTTP");
    let port = serde_json::to_value(&get.port).expect("a number");
    format!("{}:{port}", get.host.as_deref().unwrap_or_default())
}

#[test]
fn kustomize_names_every_manifest() {
    let kustomization = documents("kustomization.yaml").remove(0);
    let named: BTreeSet<&str> =
        kustomization["resources"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let files = fs::read_dir(folder).expect("it can be listed").map(|entry| entry.expect("it can be read").file_name());
    let files: Vec<String> = files.map(|name| name.to_string_lossy().into_owned()).collect();
    let manifests: BTreeSet<&str> = files
        .iter()
        .map(String::as_str)
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "yaml"))
        .filter(|name| *name != "kustomization.yaml")
        .collect();
    assert_eq!(named, manifests);
}
