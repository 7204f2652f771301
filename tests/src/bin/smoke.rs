//! Real packets on the kernel that this runs on, also a slow one: `cargo xtask smoke` runs it in a virtual machine.
//!
//! It panics at the first thing that is not as it should be.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use lb_agent::dataplane::tcx;
use lb_tests::address::{FAMILIES, vip};
use lb_tests::control::{classifiers, has_qdisc, tc};
use lb_tests::deadline;
use lb_tests::dial::{Dial, Outcome};
use lb_tests::lab::Setup;
use lb_tests::manifest::ingress;
use lb_tests::scene::{BALANCER, Scene};
use serde_json::json;

/// An emulated machine verifies the programs for a minute.
const START_MAX: Duration = Duration::from_mins(5);
const INTERFACES: [&str; 5] = ["cali-client", "cali-a", "cali-b", "up0", "up1"];
/// Every dial would otherwise start `explain`, which takes most of the time on a slow machine.
const SLOW: &str = "the machine is slow";

/// How programs are attached here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcx,
    Clsact,
}

/// Says how far it is.
struct Steps(Instant);

impl Steps {
    fn done(&self, text: &str) {
        println!("{:>6.1} s  {text}", self.0.elapsed().as_secs_f32());
    }
}

fn main() {
    let steps = Steps(Instant::now());
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let way = if tcx::is_supported() { Way::Tcx } else { Way::Clsact };
    println!("Linux {}", release.trim());
    let mut scene = Scene::without_agent(Setup::new("smoke"), &["--uplink-interfaces", "up0,up1"]);
    expect(&scene, 80, BALANCER);
    steps.done("without an agent, the balancer answers");
    check(&scene, way);
    steps.done("check finds what is needed");
    start(&mut scene);
    steps.done("the agent is ready");
    serve(&scene, &steps);
    announce(&scene);
    steps.done("a PROXY header names pods and clients of the network, and comes first");
    let rows = scene.agent.rows("interfaces");
    for interface in INTERFACES {
        let row = rows.iter().find(|row| row["interface"] == interface).expect("it is listed");
        let name = if way == Way::Tcx { "tcx" } else { "clsact" };
        assert!(row["attached_by"] == name && row["hooks"].as_array().is_some_and(|hooks| hooks.len() == 2), "{row}");
    }
    expect_classifiers(&scene, way);
    steps.done("every interface has both programs");
    survive(&mut scene);
    expect_classifiers(&scene, way);
    steps.done("kill -9 and a new agent: connections survive, programs are adopted");
    let log = scene.agent.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    unload(&mut scene);
    steps.done("unload: nothing is left, the balancer answers");
}

fn check(scene: &Scene, way: Way) {
    if way == Way::Clsact {
        let node = &scene.lab.node;
        tc(node, "qdisc add dev up0 ingress");
        tc(node, "qdisc add dev up1 clsact");
        tc(node, "filter add dev up1 egress prio 7 protocol ip u32 match ip protocol 254 0xff classid 1:1");
        let said = scene.agent.says(&["check"]);
        for found in
            ["up0 has the qdisc ingress of others", "classifiers of others: classifier u32 (priority 7) at egress"]
        {
            assert!(said.contains(found), "{found}: {said}");
        }
        tc(node, "qdisc del dev up0 ingress");
        tc(node, "qdisc del dev up1 clsact");
    }
    let check = scene.agent.ask(&["check"]);
    let word = if way == Way::Tcx { "has tcx" } else { "by clsact" };
    assert!(check.code == Some(0) && check.stdout.contains(word), "check: {}{}", check.stdout, check.stderr);
    print!("{}", check.stdout);
}

fn serve(scene: &Scene, steps: &Steps) {
    scene.publish("shop", 1, "VIP", &["a"]);
    scene.publish("proxied", 2, "Proxy", &["a"]);
    scene.publish("closed", 3, "VIP", &[]);
    expect(scene, 80, "a");
    expect(scene, 443, BALANCER);
    steps.done("VIP: an endpoint answers pods, the network, and the node itself, TCP and UDP");
    for family in FAMILIES {
        let answer = dial(scene).held(vip(family, 2, 80)).answer;
        let client = scene.client_address(vip(family, 2, 80).ip());
        assert_eq!((answer.who.as_str(), answer.client.ip()), (BALANCER, client));
    }
    steps.done("Proxy: the balancer answers, and sees the client");
    for family in FAMILIES {
        assert_eq!(scene.dial_from("a").unasked(SLOW).tcp(vip(family, 1, 80)).who(), Some("a"), "a pod reaches itself");
        let (pod, node) = (dial(scene).patient(), scene.dial_from_node().unasked(SLOW));
        let to = vip(family, 3, 80);
        assert_eq!((pod.tcp(to), node.tcp(to)), (Outcome::Refused, Outcome::Refused), "{to} has no endpoint");
    }
    steps.done("a pod reaches itself at a VIP; without endpoints, pods and the node are refused");
}

/// The endpoint echoes all that it gets.
fn announce(scene: &Scene) {
    let entries = FAMILIES.map(|family| ingress(vip(family, 4, 80).ip(), "Proxy"));
    let annotations = json!({ "lb-agent.io/proxy-protocol": "v1" });
    let service = scene.service("announced", 4, &entries).metadata("annotations", annotations);
    scene.apply("announced", &[vec![service.object()], scene.slices(&service, &["a"])].concat());
    for family in FAMILIES {
        let to = vip(family, 4, 80);
        for netns in [&scene.lab.pod("client").netns, &scene.lab.far] {
            let (from, answer) = netns.inside(|| hello(to)).expect("a conversation");
            let version = if to.is_ipv4() { "TCP4" } else { "TCP6" };
            let expected = format!("PROXY {version} {} {} {} {}\r\nhello", from.ip(), to.ip(), from.port(), to.port());
            assert!(answer.ends_with(&expected), "{answer:?}, not {expected:?}");
        }
    }
}

/// Says hello, and returns the own address and all that comes back.
fn hello(to: SocketAddr) -> std::io::Result<(SocketAddr, String)> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    stream.write_all(b"hello")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok((stream.local_addr()?, answer))
}

fn survive(scene: &mut Scene) {
    let mut held = FAMILIES.map(|family| dial(scene).held(vip(family, 1, 80)));
    scene.agent.crash();
    for held in &mut held {
        held.transfer(1 << 16).expect("a connection survives without an agent");
    }
    expect(scene, 80, "a");
    start(scene);
    scene.publish("shop", 1, "VIP", &["b"]);
    expect(scene, 80, "b");
    for held in &mut held {
        held.transfer(1 << 16).expect("a connection survives kill -9 and another agent");
        assert_eq!(held.answer.who, "a");
    }
}

fn unload(scene: &mut Scene) {
    scene.agent.terminate();
    print!("{}", scene.agent.says(&["unload"]));
    expect(scene, 80, BALANCER);
    for interface in INTERFACES {
        assert!(!has_qdisc(&scene.lab.node, interface), "{interface} still has a qdisc");
    }
    assert!(!scene.agent.pin_path().exists(), "pins are left");
}

/// Each hook has one, if that is how programs are attached.
fn expect_classifiers(scene: &Scene, way: Way) {
    for interface in INTERFACES {
        let found = classifiers(&scene.lab.node, interface);
        assert_eq!(found.len(), if way == Way::Tcx { 0 } else { 2 }, "{interface}: {found:?}");
    }
}

fn start(scene: &mut Scene) {
    scene.agent.spawn();
    let is_ready = || scene.agent.page("/readyz").is_some_and(|(code, _)| code == 200).then_some(());
    assert!(deadline::within(START_MAX, is_ready).is_some(), "the agent is not ready:\n{}", scene.agent.log());
}

fn dial(scene: &Scene) -> Dial<'_> {
    scene.dial().unasked(SLOW)
}

/// Dials the first address from everywhere: each client is to be answered by this server.
#[track_caller]
fn expect(scene: &Scene, port: u16, who: &str) {
    for family in FAMILIES {
        let to = vip(family, 1, port);
        let clients = [
            ("a pod", dial(scene)),
            ("the network", scene.dial_from_far().unasked(SLOW)),
            ("the node", scene.dial_from_node().unasked(SLOW)),
        ];
        for (client, dial) in clients {
            assert_eq!(dial.tcp(to).who(), Some(who), "TCP from {client} to {to}");
            assert_eq!(dial.udp(to).who(), Some(who), "UDP from {client} to {to}");
        }
    }
}
