//! Malformed documents: they affect only themselves, are named in warnings, and nothing else changes.

use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::deadline::{until, until_true};
use lb_tests::dial::Outcome;
use lb_tests::lab::Setup;
use lb_tests::manifest::{NODE, yaml};
use lb_tests::scene::{BALANCER, Scene, TARGET};
use serde_json::json;

/// Waits until a warning names all of the words.
#[track_caller]
fn is_warned_of(scene: &Scene, words: &[&str]) {
    let mut last = String::new();
    until(&format!("a warning with {words:?}"), || {
        last = scene.agent.says(&["show", "warnings"]);
        last.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
    });
}

#[test]
fn a_document_that_does_not_parse_takes_nothing_away() {
    let scene = Scene::start(Setup::new("badyaml"));
    scene.publish("shop", 120, "VIP", &["a"]);
    let mut held = scene.dial().held(vip(FAMILIES[0], 120, 80));
    scene.manifests.write_text("shop", "kind: Service\nmetadata: {name: [unfinished\n");
    is_warned_of(&scene, &["shop.yaml"]);
    // Another file is read as usual, and the broken one's former objects stay.
    scene.publish("other", 121, "VIP", &["b"]);
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 120, 80)).who(), Some("a"));
        assert_eq!(scene.dial().tcp(vip(family, 121, 80)).who(), Some("b"));
    }
    held.echo("still here").expect("the open connection goes on");
    scene.publish("shop", 120, "VIP", &["b"]);
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 120, 80)).who(), Some("b"), "mended, it counts again");
    }
    until_true("a mended document is warned of no more", || {
        !scene.agent.says(&["show", "warnings"]).contains("shop.yaml")
    });
}

#[test]
fn a_bad_object_hurts_only_itself() {
    let scene = Scene::start(Setup::new("badobject"));
    let good = scene.service("good", 122, &FAMILIES.map(|f| lb_tests::manifest::ingress(vip(f, 122, 0).ip(), "VIP")));
    let bad_address = scene.service("bad-address", 123, &[json!({"ip": "1.2.3.999", "ipMode": "VIP"})]);
    let mut bad_type = scene.service("bad-type", 124, &[]).object();
    bad_type["spec"]["ports"][0]["port"] = json!("eighty");
    let stranger = json!({"apiVersion": "example.com/v1", "kind": "Stranger", "metadata": {"name": "x"}});
    let mut objects = vec![bad_address.object(), bad_type, stranger, good.object()];
    objects.extend(scene.slices(&good, &["a"]));
    scene.manifests.write_text("mixed", &yaml(&objects));
    scene.publish("later", 125, "VIP", &["b"]);
    is_warned_of(&scene, &["bad-address", "1.2.3.999"]);
    is_warned_of(&scene, &["mixed.yaml, document 2", "spec.ports[0].port"]);
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 122, 80)).who(), Some("a"), "its neighbours are fine");
        assert_eq!(scene.dial().tcp(vip(family, 125, 80)).who(), Some("b"));
        assert_eq!(scene.dial().tcp(vip(family, 123, 80)).who(), Some(BALANCER));
    }
}

/// A Service whose later ports, entries and endpoints come from merge keys, with UDP and Proxy.
#[test]
fn merge_keys_decide_who_is_served() {
    let scene = Scene::start(Setup::new("mergekeys"));
    for (number, family) in [(126, Family::V4), (128, Family::V6)] {
        let cluster_ip =
            scene.service("any", number, &[]).object()["spec"]["clusterIPs"][usize::from(family == Family::V6)].clone();
        let (left, short) = (vip(family, number, 0).ip(), vip(family, number + 1, 0).ip());
        let address = scene.lab.pod_address("a", family);
        let kind = if family == Family::V4 { "IPv4" } else { "IPv6" };
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: m{number}}}\nspec:\n  type: LoadBalancer\n  clusterIP: {cluster_ip}\n\
             \x20 ports:\n  - &base {{name: one, port: 80, protocol: UDP, targetPort: {TARGET}}}\n  - <<: *base\n    name: two\n    port: 81\n\
             status:\n  loadBalancer:\n    ingress:\n    - &lb {{ip: '{left}', ipMode: Proxy}}\n    - {{<<: *lb, ip: '{short}', ipMode: VIP}}\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: m{number}, labels: {{kubernetes.io/service-name: m{number}}}}}\naddressType: {kind}\n\
             ports:\n- &port {{name: one, port: {TARGET}, protocol: UDP}}\n- {{<<: *port, name: two}}\n\
             endpoints: [{{addresses: ['{address}'], nodeName: {NODE}}}]\n"
        );
        scene.manifests.write_text(&format!("merge{number}"), &text);
    }
    scene.publish("later", 130, "VIP", &["b"]);
    for (number, family) in [(126, Family::V4), (128, Family::V6)] {
        assert_eq!(scene.dial().udp(vip(family, number, 80)).who(), Some(BALANCER), "Proxy as written");
        assert_eq!(scene.dial().udp(vip(family, number + 1, 80)).who(), Some("a"), "VIP as written");
        assert_eq!(scene.dial().udp(vip(family, number + 1, 81)).who(), Some("a"), "UDP by the merge");
    }
}

/// A legacy Endpoints object has the effect of the API server's mirror, when it changes and when it is deleted.
#[test]
fn legacy_endpoints_are_mirrored() {
    let scene = Scene::start(Setup::new("endpoints1"));
    let service = scene.service("ext", 131, &FAMILIES.map(|f| lb_tests::manifest::ingress(vip(f, 131, 0).ip(), "VIP")));
    let endpoints = |pod: &str, other: &str| {
        let entry = |pod: &str, family| json!({"ip": scene.lab.pod_address(pod, family).to_string(), "nodeName": NODE});
        let ports = json!([{"name": "web", "port": TARGET}, {"name": "dns", "port": TARGET, "protocol": "UDP"}]);
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "ext", "namespace": service.object()["metadata"]["namespace"]},
            "subsets": [{"addresses": FAMILIES.map(|family| entry(pod, family)),
                         "notReadyAddresses": FAMILIES.map(|family| entry(other, family)), "ports": ports}]})
    };
    for (pod, other) in [("a", "b"), ("b", "a")] {
        scene.apply("ext", &[service.object(), endpoints(pod, other)]);
        for family in FAMILIES {
            scene.expect_all(vip(family, 131, 80), &[pod]);
            assert_eq!(scene.dial().udp(vip(family, 131, 80)).who(), Some(pod));
        }
    }
    scene.apply("ext", &[service.object()]);
    for family in FAMILIES {
        assert_eq!(scene.dial().patient().tcp(vip(family, 131, 80)), Outcome::Refused);
    }
}

/// Endless files, and special files, are skipped at once: others are read, and probes are answered.
#[test]
fn files_without_an_end_stop_nothing() {
    let scene = Scene::start(Setup::new("endless"));
    scene.publish("shop", 132, "VIP", &["a"]);
    scene.manifests.write_text("brackets", &"[".repeat(50_000));
    scene.manifests.write_text("nested", &("kind: Service\nspec: ".to_owned() + &"{a: ".repeat(50_000)));
    let folder = scene.manifests.path();
    std::fs::File::create(folder.join("sparse.yaml")).and_then(|file| file.set_len(1 << 30)).expect("it is writable");
    let made = std::process::Command::new("mkfifo").arg(folder.join("pipe.yaml")).status().expect("mkfifo is there");
    assert!(made.success());
    scene.publish("shop", 132, "VIP", &["b"]);
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 132, 80)).who(), Some("b"), "it is followed");
    }
    is_warned_of(&scene, &["brackets.yaml", "nested deeper than 128 levels", "line 1 of the file"]);
    is_warned_of(&scene, &["nested.yaml", "nested deeper than 128 levels"]);
    is_warned_of(&scene, &["sparse.yaml", "larger than 64 MiB", "write several files"]);
    is_warned_of(&scene, &["pipe.yaml", "not a regular file"]);
    let (code, metrics) = scene.agent.page("/metrics").expect("it answers");
    assert!(code == 200 && metrics.contains("source_stalled_seconds 0"), "{metrics}");
}
