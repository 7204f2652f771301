//! From kube-proxy to the agent and back, in the order of docs/kube-proxy.md, with rules in kube-proxy's shape.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_tests::address::{FAMILIES, FAR, FAR_LINK, UPLINK};
use lb_tests::deadline;
use lb_tests::dial::{Asking, Dial, Dialler, Held, Outcome};
use lb_tests::lab::Setup;
use lb_tests::scene::{Scene, TARGET};
use serde_json::json;

use crate::all_services::{ALL, HERE, cluster, node_port, objects, publish};
use crate::kube_proxy::KubeProxy;

/// The number of the Service.
const NUMBER: u8 = 60;
/// Why `explain` is not asked: a dial finds rules of a kube-proxy and of the agent at the moment of their exchange.
const EXCHANGE: &str = "kube-proxy and the agent take over from one another";
/// Ended connections are forgotten soon, so that a test need not wait for them.
const QUICK: [&str; 6] = ["--tcp-closing-secs", "1", "--udp-secs", "2", "--gc-secs", "1"];

/// A rule of another program. Without one, kube-proxy's rules would start conntrack, which takes the answer to a SYN that
/// it has not seen for invalid: the client would have to send another SYN.
const CONNTRACK: &str =
    "table inet other { chain forward { type filter hook forward priority 0; ct state established accept; }; }";
/// The agent looks every 30 s which frontends no flow uses.
const RECLAIM_MAX: Duration = Duration::from_secs(45);

/// The client of a dial, the dial, and the address.
type Call<'a> = (&'static str, Dial<'a>, SocketAddr);

/// Each kind of client with each kind of address.
fn calls(scene: &Scene) -> Vec<Call<'_>> {
    let of_family = |family| {
        let (cluster, node_port) = (cluster(family, NUMBER), node_port(family, NUMBER));
        [
            ("pod", scene.dial().unasked(EXCHANGE), cluster),
            ("pod", scene.dial().unasked(EXCHANGE), node_port),
            ("node", scene.dial_from_node().unasked(EXCHANGE), cluster),
            ("node", scene.dial_from_node().unasked(EXCHANGE), node_port),
            ("near", scene.dial_from_near().unasked(EXCHANGE), node_port),
            ("far", scene.dial_from_far().unasked(EXCHANGE).bound(FAR.host(family, 9)), node_port),
        ]
    };
    FAMILIES.into_iter().flat_map(of_family).collect()
}

/// Connections and UDP sockets that stay open.
struct Open {
    held: Vec<(String, Held)>,
    asking: Vec<(String, Asking)>,
}

impl Open {
    /// One for each call. UDP is dialled at cluster addresses.
    #[track_caller]
    fn all(scene: &Scene) -> Self {
        let name = |client, to| format!("{client} at {to}");
        let held = calls(scene).into_iter().map(|(client, dial, to)| (name(client, to), dial.held(to)));
        let datagrams = calls(scene).into_iter().filter(|(.., to)| to.port() == 80);
        let asking = datagrams.map(|(client, dial, to)| (name(client, to), dial.asking(to)));
        Self { held: held.collect(), asking: asking.collect() }
    }

    /// Those that do not answer any more, with the error.
    fn lost(&mut self) -> Vec<String> {
        let held = self.held.iter_mut();
        let held = held.filter_map(|(name, held)| Some(format!("{name}: {}", held.echo("still there?").err()?)));
        let asking = self.asking.iter().map(|(name, asking)| (name, asking.ask("still there?")));
        let asking = asking.filter(|(_, outcome)| outcome.who() != Some("a"));
        held.chain(asking.map(|(name, outcome)| format!("{name}, UDP: {outcome:?}"))).collect()
    }
}

/// Who serves new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// Its rules replace the client's address.
    KubeProxy,
    LbAgent,
}

/// Dials all anew. The node's own connections look the same with both.
#[track_caller]
fn expect_served_by(scene: &Scene, server: Server) {
    let node: Vec<IpAddr> =
        FAMILIES.into_iter().flat_map(|family| [UPLINK.host(family, 2), FAR_LINK.host(family, 2)]).collect();
    for (client, dial, to) in calls(scene) {
        let outcome = dial.tcp(to);
        let Outcome::Answered(answer) = outcome else { panic!("{client} at {to}: {outcome:?}") };
        assert_eq!(answer.who, "a", "{client} at {to}");
        let is_masqueraded = node.contains(&answer.client.ip());
        assert_eq!(is_masqueraded, client == "node" || server == Server::KubeProxy, "{client} at {to}: {answer:?}");
    }
}

/// Dials all the time: pods and the node at cluster addresses, and the network at node ports.
fn dial_on(scene: &Scene) -> Vec<(String, Dialler)> {
    let calls = calls(scene).into_iter().filter(|(client, _, to)| *client == "far" || to.port() == 80);
    calls.map(|(client, dial, to)| (format!("{client} at {to}"), dial.repeatedly(to))).collect()
}

#[track_caller]
fn expect_no_failure(dialling: Vec<(String, Dialler)>) {
    for (name, dialler) in dialling {
        let tally = dialler.stop();
        assert!(tally.failures.is_empty() && tally.answers() > 10, "{name}: {tally:?}");
    }
}

/// Starts kube-proxy: adds its rules.
#[track_caller]
fn start_kube_proxy(scene: &Scene, kube_proxy: KubeProxy) {
    for family in FAMILIES {
        let endpoint = (scene.lab.pod_address("a", family), TARGET).into();
        kube_proxy.claim_port(&scene.lab, cluster(family, NUMBER), endpoint);
        kube_proxy.serve_node_port(&scene.lab, node_port(family, NUMBER).port(), endpoint);
    }
    kube_proxy.filter_forwarded(&scene.lab);
}

/// What `check` says of kube-proxy and of the hand-over: the verdicts and the texts.
fn checked(scene: &Scene) -> [Option<(String, String)>; 2] {
    let findings = scene.agent.findings();
    ["kube-proxy", "hand-over"].map(|check| {
        let found = findings.iter().find(|finding| finding["check"] == check)?;
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Some((text("verdict"), format!("{}; {}", text("found"), text("remedy"))))
    })
}

/// No connection of either is lost, and each new one is served.
#[track_caller]
fn is_handed_over(test: &'static str, kube_proxy: KubeProxy, mode: &str) {
    let mut scene = Scene::without_agent(Setup::new(test), &ALL);
    scene.manifests.write("shop", &objects(&scene, NUMBER, &json!({}), HERE));
    start_kube_proxy(&scene, kube_proxy);
    expect_served_by(&scene, Server::KubeProxy);
    let mut old = Open::all(&scene);
    assert_eq!(old.lost(), [""; 0]);
    let dialling = dial_on(&scene);

    // The agent starts, then kube-proxy ends. Its rules stay.
    scene.agent.start();
    expect_served_by(&scene, Server::LbAgent);
    assert_eq!(old.lost(), [""; 0]);
    let [found, both] = checked(&scene);
    assert!(found.is_some_and(|(verdict, text)| verdict == "warn" && text.contains(mode)));
    let (verdict, text) = both.expect("both claim the Service");
    for words in [mode, "2 cluster addresses, 2 node ports, 2 externalIPs", "--cleanup", "--services=lb"] {
        assert!(verdict == "warn" && text.contains(words), "{words}: {text}");
    }

    // Its rules are removed. The agent may restart.
    kube_proxy.clean_up(&scene.lab);
    assert_eq!(old.lost(), [""; 0]);
    scene.agent.terminate();
    scene.agent.start();
    assert_eq!(old.lost(), [""; 0]);
    expect_served_by(&scene, Server::LbAgent);
    expect_no_failure(dialling);
    let [found, alone] = checked(&scene).map(|finding| finding.expect("it is there").0);
    assert_eq!((found.as_str(), alone.as_str()), ("ok", "ok"));
}

#[test]
fn nftables_rules_are_replaced_without_a_loss() {
    is_handed_over("honft", KubeProxy::Nftables, "nftables mode");
}

#[test]
fn iptables_rules_are_replaced_without_a_loss() {
    is_handed_over("hoipt", KubeProxy::Iptables, "iptables mode");
}

#[test]
fn legacy_iptables_rules_are_replaced_without_a_loss() {
    is_handed_over("holegacy", KubeProxy::IptablesLegacy, "iptables mode, legacy tables");
}

/// The agent keeps its connections until they end, while kube-proxy serves new ones. `flags` make it do so.
#[track_caller]
fn is_handed_back(test: &'static str, kube_proxy: KubeProxy, flags: &[&str]) {
    let mut scene = Scene::with_flags(Setup::new(test), &[&ALL[..], &QUICK].concat());
    scene.lab.node.nft(CONNTRACK);
    publish(&scene, NUMBER, &json!({}), HERE);
    expect_served_by(&scene, Server::LbAgent);
    let mut old = Open::all(&scene);
    let dialling = dial_on(&scene);

    // kube-proxy starts.
    start_kube_proxy(&scene, kube_proxy);
    assert_eq!(old.lost(), [""; 0]);
    expect_served_by(&scene, Server::LbAgent);

    // The agent restarts and serves no new connection.
    scene.agent.terminate();
    scene.agent.set_flags(&[flags, &QUICK].concat());
    scene.agent.start();
    expect_served_by(&scene, Server::KubeProxy);
    assert_eq!(old.lost(), [""; 0]);
    expect_no_failure(dialling);

    // Its connections end.
    drop(old);
    let draining = || scene.agent.page("/metrics").map(|(_, text)| metric(&text, "lb_agent_frontends_draining"));
    assert_ne!(draining(), Some(0), "the agent looks twice a minute");
    let is_over = deadline::within(RECLAIM_MAX, || (draining() == Some(0)).then_some(()));
    assert!(is_over.is_some(), "frontends are still draining: {:?}", draining());

    let dialling = dial_on(&scene);
    scene.agent.terminate();
    scene.agent.unload();
    expect_served_by(&scene, Server::KubeProxy);
    expect_no_failure(dialling);
    assert!(!scene.lab.node.run("nft", &["list", "ruleset"]).contains("lb-agent"), "nothing of the agent stays");
}

fn metric(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
}

#[test]
fn kube_proxy_gets_the_services_back_without_a_loss() {
    is_handed_back("hbnft", KubeProxy::Nftables, &["--services", "lb", "--uplink-interfaces", "auto"]);
}

#[test]
fn kube_proxy_with_iptables_gets_everything_back_without_a_loss() {
    let flags = ["--services", "lb", "--uplink-interfaces", "auto", "--service-proxy-name", "none"];
    is_handed_back("hbipt", KubeProxy::Iptables, &flags);
}

/// Flows that the agent translates end with its tables, unless kube-proxy happens to translate them alike. Sockets of the
/// node are connected to the backend itself.
#[test]
fn connections_of_the_network_end_at_unload() {
    let mut scene = Scene::with_flags(Setup::new("hbearly"), &ALL);
    publish(&scene, NUMBER, &json!({}), HERE);
    let mut old = Open::all(&scene);
    start_kube_proxy(&scene, KubeProxy::Nftables);
    assert_eq!(old.lost(), [""; 0]);
    scene.agent.terminate();
    scene.agent.unload();
    let lost = old.lost();
    let is_expected = |name: &str| lost.iter().any(|line| line.starts_with(&format!("{name}: ")));
    // conntrack picks the next segment up as a new connection, and kube-proxy sends it to an endpoint: here to the only one. A
    // client that it need not masquerade is known there by the same ports, so its connection continues.
    for (name, _) in &old.held {
        if !name.starts_with("pod") && !name.starts_with("far") {
            assert_eq!(is_expected(name), name.starts_with("near"), "{name}: {lost:?}");
        }
    }
    // A datagram makes a new flow, which kube-proxy serves.
    assert!(!lost.iter().any(|line| line.starts_with("pod") && line.contains("UDP")), "{lost:?}");
    expect_served_by(&scene, Server::KubeProxy);
}
