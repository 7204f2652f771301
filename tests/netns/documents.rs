//! Documents that are wrong: they hurt themselves, are named to whoever looks, and nothing else changes.

use lb_tests::address::{FAMILIES, vip};
use lb_tests::deadline::{until, until_true};
use lb_tests::lab::Setup;
use lb_tests::manifest::yaml;
use lb_tests::scene::{BALANCER, Scene};
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
    // Another file is read as ever, and what the broken one held still holds.
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
