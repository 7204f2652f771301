//! The guard: a mode that leaves an address to the balancer also holds against a kube-proxy that would claim the
//! address.

use lb_tests::address::{FAMILIES, Family, UPLINK, vip};
use lb_tests::deadline;
use lb_tests::dial::{Dial, Outcome};
use lb_tests::lab::{Cni, Setup};
use lb_tests::manifest::ingress;
use lb_tests::scene::{BALANCER, Probe, Scene, TARGET};
use serde_json::json;

use crate::kube_proxy::KubeProxy;

/// The masquerading of a CNI for pods that talk to the network.
const CNI_MASQUERADE: &str = "
    table inet cni {
        chain postrouting { type nat hook postrouting priority srcnat; iifname { cali-client, cni0 } oifname up0 masquerade; }
    }
";

/// The last part of the balancer's address in each test.
const NUMBER: u8 = 85;

/// Writes a Service whose status says VIP, annotated with another mode.
fn publish(scene: &Scene, mode: &str, pods: &[&str]) {
    let entries = FAMILIES.map(|family| ingress(vip(family, NUMBER, 80).ip(), "VIP"));
    let service = scene.service("shop", NUMBER, &entries).metadata("annotations", json!({"lb-agent.io/ip-mode": mode}));
    let mut objects = vec![service.object()];
    objects.extend(scene.slices(&service, pods));
    scene.apply("shop", &objects);
}

/// The answers over TCP and UDP.
fn answers(dial: Probe<'_>, family: Family) -> [Outcome; 2] {
    [dial.tcp(vip(family, NUMBER, 80)), dial.udp(vip(family, NUMBER, 80))]
}

#[track_caller]
fn expect(scene: &Scene, who: &str, what: &str) {
    for family in FAMILIES {
        for (client, dial) in [("pod", scene.dial()), ("host", scene.dial_from_node())] {
            for outcome in answers(dial, family) {
                assert_eq!(
                    outcome.who(),
                    Some(who),
                    "{what}: {client}, {family:?}: {outcome:?}\n{}",
                    scene.agent.log()
                );
            }
        }
    }
}

/// The ruleset of the node.
fn rules(scene: &Scene) -> String {
    scene.lab.node.run("nft", &["list", "ruleset"])
}

/// An override holds for pods and the host. Without the guard it does not, and nothing of the guard stays.
fn override_holds(setup: Setup, kube_proxy: KubeProxy) {
    let mut scene = Scene::without_agent(setup, &[]);
    kube_proxy.claim(&scene.lab, NUMBER, "b");
    scene.lab.node.nft(CNI_MASQUERADE);
    expect(&scene, "b", "the rules claim the address");

    scene.agent.start();
    publish(&scene, "Proxy", &["b"]);
    expect(&scene, BALANCER, "the override holds");
    for family in FAMILIES {
        for outcome in answers(scene.dial(), family) {
            let Outcome::Answered(answer) = outcome else { panic!("{outcome:?}") };
            assert_eq!(answer.client.ip(), UPLINK.host(family, 2), "the CNI's masquerade applies");
        }
    }
    let frontends = scene.agent.says(&["show", "frontends", "-o", "json"]);
    assert!(frontends.contains("\"deciding_key\": \"lb-agent.io/ip-mode\""), "{frontends}");
    assert!(scene.agent.says(&["show", "guard"]).contains("workload, host, external"));

    // If it is deleted, it comes back.
    let table = rules(&scene)
        .lines()
        .find_map(|line| line.strip_prefix("table inet lb-agent-guard-"))
        .map(|rest| format!("lb-agent-guard-{}", rest.trim_end_matches(" {")));
    let table = table.expect("the guard's table");
    scene.lab.node.run("nft", &["delete", "table", "inet", &table]);
    deadline::until_true("the table is restored", || rules(&scene).contains(&table));
    expect(&scene, BALANCER, "the override holds again");

    // It outlives the agent as the dataplane does, and a restart leaves it unchanged.
    let listed = |scene: &Scene| scene.lab.node.run("nft", &["-a", "list", "table", "inet", &table]);
    let before = listed(&scene);
    scene.agent.crash();
    expect(&scene, BALANCER, "the override holds without an agent");
    scene.agent.start();
    assert_eq!(listed(&scene), before, "handles included");

    scene.agent.terminate();
    scene.agent.set_flags(&["--guard", "off"]);
    scene.agent.start();
    assert!(!rules(&scene).contains("lb-agent-guard"), "{}", rules(&scene));
    expect(&scene, "b", "without the guard kube-proxy claims it");

    scene.agent.terminate();
    scene.agent.set_flags(&[]);
    scene.agent.start();
    expect(&scene, BALANCER, "the override holds once more");
    scene.agent.terminate();
    let said = scene.agent.says(&["unload"]);
    assert!(said.contains(&table), "{said}");
    assert!(!rules(&scene).contains("lb-agent"), "{}", rules(&scene));
    expect(&scene, "b", "nothing of us is left");
}

#[test]
fn an_override_holds_beside_nftables_rules() {
    override_holds(Setup::new("guardnft"), KubeProxy::Nftables);
}

#[test]
fn an_override_holds_beside_iptables_rules() {
    override_holds(Setup::new("guardipt"), KubeProxy::Iptables);
}

#[test]
fn an_override_holds_for_bridged_pods() {
    override_holds(Setup::new("guardbr").cni(Cni::Bridge), KubeProxy::Nftables);
}

/// Split concerns connections from this node: kube-proxy still serves those from the network if no uplink of the agent
/// does.
fn split_holds(setup: Setup, kube_proxy: KubeProxy) {
    let scene = Scene::start(setup);
    kube_proxy.claim(&scene.lab, NUMBER, "b");
    publish(&scene, "Split", &["b"]);
    expect(&scene, BALANCER, "what starts here is left to the balancer");
    for family in FAMILIES {
        let client = lb_tests::address::FAR.host(family, 7);
        let outcome = scene.dial_from_far().bound(client).tcp(vip(family, NUMBER, 80));
        assert_eq!(outcome.who(), Some("b"), "{family:?}: {outcome:?}");
    }
}

#[test]
fn split_holds_for_what_starts_here() {
    split_holds(Setup::new("guardsplit"), KubeProxy::Nftables);
}

#[test]
fn split_holds_for_what_starts_on_a_bridge() {
    split_holds(Setup::new("guardsplbr").cni(Cni::Bridge), KubeProxy::Iptables);
}

#[test]
fn nothing_is_guarded_that_the_status_leaves_alone() {
    let scene = Scene::start(Setup::new("guardnone"));
    scene.publish("proxy", NUMBER, "Proxy", &["b"]);
    scene.publish("shop", NUMBER + 1, "VIP", &["b"]);
    assert!(!rules(&scene).contains("lb-agent-guard"), "{}", rules(&scene));
    publish(&scene, "Proxy", &["b"]);
    // Beside the status that says Proxy a second Service now says VIP for the same address: the older one counts.
    scene.manifests.write("proxy", &[json!({"kind": "Secret", "apiVersion": "v1"})]);
    deadline::until_true("the table is there", || rules(&scene).contains("lb-agent-guard"));
    scene.publish("shop", NUMBER, "Proxy", &["b"]);
    deadline::until_true("the table is gone", || !rules(&scene).contains("lb-agent-guard"));
}

/// IPM-30 holds only if the status says Proxy: kube-proxy rejects addresses without endpoints in its filter chains, and
/// a translation of an address to itself does not bypass these. Documented in the README.
fn a_reject_is_not_overcome(setup: Setup, kube_proxy: KubeProxy) {
    let scene = Scene::start(setup);
    publish(&scene, "Proxy", &[]);
    expect(&scene, BALANCER, "nobody rejects it yet");
    kube_proxy.reject(&scene.lab, NUMBER);
    assert_eq!(scene.dial().patient().tcp(vip(Family::V4, NUMBER, 80)), Outcome::Refused);
    assert_eq!(scene.dial().patient().tcp(vip(Family::V6, NUMBER, 80)), Outcome::Refused);
}

#[test]
fn a_reject_of_nftables_rules_is_not_overcome() {
    a_reject_is_not_overcome(Setup::new("guardrejnft"), KubeProxy::Nftables);
}

#[test]
fn a_reject_of_iptables_rules_is_not_overcome() {
    a_reject_is_not_overcome(Setup::new("guardrejipt"), KubeProxy::Iptables);
}

/// A hostPort as the portmap plug-in of CNI writes it: at every address of the node, for packets from everywhere.
fn host_port(scene: &Scene, pod: &str) {
    for (family, restore) in FAMILIES.into_iter().zip(["iptables-nft-restore", "ip6tables-nft-restore"]) {
        let to = std::net::SocketAddr::new(scene.lab.pod_address(pod, family), TARGET);
        let rule = |chain: &str| {
            format!("-A {chain} -m addrtype --dst-type LOCAL -p tcp --dport 80 -j DNAT --to-destination {to}\n")
        };
        let rules = format!("*nat\n{}{}COMMIT\n", rule("PREROUTING"), rule("OUTPUT"));
        scene.lab.node.feed(restore, &["--noflush"], &rules);
    }
}

/// Why `explain` is not asked: it does not read rules of other programs than kube-proxy.
const HOST_PORT: &str = "a hostPort translates what the programs leave alone";

/// If the address is the node's own, a hostPort is the balancer (k3s, portmap): the guard does not override its
/// translation.
#[test]
fn a_host_port_at_an_address_of_the_node_is_not_guarded() {
    for (name, flags, annotation) in [
        ("guardhpann", &[][..], json!({"lb-agent.io/ip-mode": "Proxy"})),
        ("guardhpspl", &[], json!({"lb-agent.io/ip-mode": "Split"})),
        ("guardhpdef", &["--default-ip-mode", "Proxy"], json!({})),
    ] {
        let scene = Scene::with_flags(Setup::new(name), flags);
        host_port(&scene, "b");
        let node = |family| UPLINK.host(family, 2);
        let mut entries = FAMILIES.map(|family| ingress(node(family), "VIP"));
        if !flags.is_empty() {
            entries = FAMILIES.map(|family| json!({"ip": node(family)}));
        }
        let service = scene.service("web", NUMBER, &entries).metadata("annotations", annotation);
        scene.apply("web", &[vec![service.object()], scene.slices(&service, &["a"])].concat());
        assert!(rules(&scene).contains("lb-agent-guard"), "{name}: other addresses would be guarded");
        for family in FAMILIES {
            let far = scene.dial_from_far().unasked(HOST_PORT).bound(lb_tests::address::FAR.host(family, 7));
            for (client, dial) in
                [("pod", scene.dial().unasked(HOST_PORT)), ("host", Dial::from(&scene.lab.node)), ("far", far)]
            {
                let outcome = dial.tcp((node(family), 80).into());
                assert_eq!(outcome.who(), Some("b"), "{name}: {client}, {family:?}: {outcome:?}");
            }
        }
        let warnings = scene.agent.says(&["show", "warnings"]);
        assert!(warnings.contains("is an address of this node") && warnings.contains("ipMode: Proxy"), "{warnings}");
        let to = format!("{}:80/tcp", node(Family::V4));
        let explained = scene.agent.says(&["explain", "--from", "pod", "--to", &to]);
        assert!(explained.contains("this node's own"), "{explained}");
    }
}

/// The guard's table is readable: it lists interfaces by their names.
#[test]
fn the_interfaces_of_the_guard_are_listed_by_name() {
    let scene = Scene::start(Setup::new("guardnames"));
    publish(&scene, "Proxy", &["b"]);
    let rules = rules(&scene);
    let links = rules.split("set links").nth(1).and_then(|rest| rest.split('}').next()).expect("the set of interfaces");
    assert!(links.contains("cali-client"), "{rules}");
}
