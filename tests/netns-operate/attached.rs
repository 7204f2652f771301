//! Attachment: globs without an interface, and programs of others before the agent's.

use aya::programs::links::LinkOrder;
use aya::programs::tc::{TcAttachOptions, TcAttachType};
use lb_agent::dataplane::bpf::BpfDataplane;
use lb_agent::dataplane::object::{self, EMPTY_PROGRAM};
use lb_agent::dataplane::{AttachBy, BpfLog, Monitor, Repair, Settings, Sizes, SocketLb, Timeouts, Xdp, removal};
use lb_common::way::SnatPorts;
use lb_tests::address::{Family, vip};
use lb_tests::deadline;
use lb_tests::lab::Setup;
use lb_tests::scene::{FINDING_OUT, Scene};

/// A foreign program, attached first at both hooks of an interface while `work` runs.
fn with_program_in_front(scene: &Scene, interface: &str, work: impl FnOnce() + Send) {
    let settings = Settings {
        pin_path: scene.agent.pin_path().with_file_name(format!("{}-other", scene.lab.node.name())),
        sizes: Sizes { frontends_max: 64, backends_max: 64, flows_max: 64, affinity_max: 64, ..Sizes::default() },
        timeouts: Timeouts::default(),
        rejects_per_sec: 1,
        repair: Repair::Off,
        monitor: Monitor::default(),
        bpf_log: BpfLog::Off,
        sockets: SocketLb::Off,
        attach: AttachBy::Auto,
        xdp: Xdp::Off,
        snat_ports: Some(SnatPorts::DEFAULT),
    };
    scene.lab.node.inside(|| {
        let mut other = BpfDataplane::open(&settings).expect("a program to attach");
        for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
            let program = object::program_mut(other.ebpf(), EMPTY_PROGRAM).expect("there is one");
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            program.attach_with_options(interface, hook, options).expect("root may");
        }
        // Only its programs are needed; they are removed with `other`.
        removal::remove_pins(&settings.pin_path).expect("they are ours");
        work();
    });
}

#[test]
fn programs_in_front_of_ours_are_told() {
    let scene = Scene::start(Setup::new("opahead"));
    scene.publish("shop", 55, "VIP", &["a"]);
    let client = scene.lab.pod("client").interface.clone();
    let before_ours = || {
        let rows = scene.agent.rows("interfaces");
        let row = rows.iter().find(|row| row["interface"] == client.as_str()).expect("it is listed").clone();
        row["before_ours"].as_array().expect("a list").len()
    };
    let told = || {
        let warnings = scene.agent.rows("warnings");
        let wanted = format!("interface {client}");
        warnings.iter().filter(|warning| warning["object"] == wanted.as_str()).count()
    };
    assert_eq!((before_ours(), told()), (0, 0));
    with_program_in_front(&scene, &client, || {
        deadline::until_true("both hooks are told", || told() == 2);
        assert_eq!(before_ours(), 2);
        let check = scene.agent.says(&["check"]);
        let line = check.lines().find(|line| line.starts_with("tcx-programs")).expect("a finding");
        assert!(line.contains(&client) && line.contains("empty") && line.contains("before ours"), "{line}");
    });
    deadline::until_true("it is over", || told() == 0);
    assert_eq!(before_ours(), 0);
}

#[test]
fn globs_that_match_nothing_are_not_ready() {
    let mut scene = Scene::without_agent(Setup::new("opglobs"), &["--workload-interfaces", "cali-late*,eth*"]);
    scene.agent.spawn();
    let readyz = || scene.agent.page("/readyz").unwrap_or_default();
    deadline::until_true("the reason to be told", || {
        let (code, text) = readyz();
        code == 503
            && text.contains("--workload-interfaces: no interface matches cali-late*")
            && text.contains("cali-a")
    });
    assert_eq!(scene.agent.rows("warnings").len(), 2);
    scene.add_pod("late");
    deadline::until_true("it is ready", || scene.agent.page("/readyz").is_some_and(|(code, _)| code == 200));
    let entry = lb_tests::manifest::ingress(vip(Family::V4, 56, 0).ip(), "VIP");
    let service = scene.service("shop", 56, &[entry]);
    // The usual client is behind none of the globs: only the new pod can show the effect.
    scene.manifests.write("shop", &[vec![service.object()], scene.slices(&service, &["a"])].concat());
    let late = scene.dial_from("late").unasked(FINDING_OUT);
    deadline::until_true("the pod is served", || late.tcp(vip(Family::V4, 56, 80)).who() == Some("a"));
}
