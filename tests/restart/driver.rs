//! Programs of drivers (`--xdp`): they outlive the agent, are adopted and exchanged, and leave nothing. Those of others stay.

use std::collections::BTreeMap;
use std::time::Duration;

use aya::programs::XdpMode;
use aya::programs::links::{FdLink, PinnedLink};
use lb_agent::dataplane::bpf::BpfDataplane;
use lb_agent::dataplane::driver::{Mode, pin_name, programs};
use lb_agent::dataplane::{
    AttachBy, BpfLog, Monitor, Repair, Settings, Sizes, SocketLb, Timeouts, Xdp, object, removal,
};
use lb_common::table::Uplink;
use lb_common::way::SnatPorts;
use lb_tests::address::{FAMILIES, vip};
use lb_tests::deadline;
use lb_tests::dump::Dump;
use lb_tests::lab::{FAR_NAME, Lab, Setup, UPLINK_NAME};
use lb_tests::scene::Scene;
use serde_json::Value;

const UPLINKS: [&str; 2] = [UPLINK_NAME, FAR_NAME];
/// The agent tries again after half of this at the latest.
const RETRY_MAX: Duration = Duration::from_mins(1);

fn flags(xdp: &str) -> [&str; 4] {
    ["--uplink-interfaces", "up0,up1", "--xdp", xdp]
}

fn index(lab: &Lab, interface: &str) -> u32 {
    lab.node.inside(|| nix::net::if_::if_nametoindex(interface)).expect("the lab has it")
}

/// The programs of a driver, by mode.
fn attached_to(lab: &Lab, interface: &str) -> BTreeMap<Mode, u32> {
    let ifindex = index(lab, interface);
    lab.node.inside(|| programs(ifindex).expect("anyone may ask"))
}

/// The same of each uplink.
fn attached(lab: &Lab) -> [BTreeMap<Mode, u32>; 2] {
    UPLINKS.map(|uplink| attached_to(lab, uplink))
}

fn modes(lab: &Lab) -> [Vec<Mode>; 2] {
    attached(lab).map(|programs| programs.into_keys().collect())
}

/// The IDs of the pinned links.
fn links(scene: &Scene) -> [Option<u32>; 2] {
    UPLINKS.map(|uplink| {
        let pin = scene.agent.pin_path().join("links").join(pin_name(index(&scene.lab, uplink)));
        let link = PinnedLink::from_pin(pin).ok()?;
        Some(FdLink::from(link).info().expect("the kernel knows it").id())
    })
}

/// Whether other drivers may send frames to the uplinks.
fn send(scene: &Scene) -> [bool; 2] {
    let rows = Dump::of(&scene.agent).map("uplinks");
    UPLINKS.map(|uplink| {
        let of = index(&scene.lab, uplink);
        let row = rows.iter().find(|row| row["key"] == of).expect("each uplink has a row");
        row["value"]["flags"].as_u64().expect("a number") & u64::from(Uplink::SENDS_FRAMES) != 0
    })
}

fn row(scene: &Scene, interface: &str) -> Value {
    let rows = scene.agent.rows("interfaces");
    rows.into_iter().find(|row| row["interface"] == interface).expect("it is listed")
}

fn restart(scene: &mut Scene, xdp: &str) {
    scene.agent.crash();
    scene.agent.set_flags(&flags(xdp));
    scene.agent.start();
}

/// `name` is of the mode that is adopted, `other` that of the next run.
fn drivers_follow_the_agent(test: &'static str, (name, mode): (&str, Mode), (other_name, other): (&str, Mode)) {
    let mut scene = Scene::with_flags(Setup::new(test), &flags(name));
    scene.publish("shop", 80, "VIP", &["a"]);
    let (pinned, before) = (links(&scene), attached(&scene.lab));
    assert!(pinned.iter().all(Option::is_some), "{pinned:?}");
    assert_eq!((modes(&scene.lab), send(&scene)), ([vec![mode], vec![mode]], [true; 2]));
    assert_eq!(row(&scene, FAR_NAME)["xdp"], name);
    assert_eq!(row(&scene, "cali-a")["xdp"], Value::Null);

    scene.agent.crash();
    assert_eq!((links(&scene), attached(&scene.lab)), (pinned, before.clone()), "they outlive it");
    assert_eq!(row(&scene, FAR_NAME)["xdp"], name, "the pins tell");
    scene.agent.start();
    assert_eq!((links(&scene), modes(&scene.lab), send(&scene)), (pinned, [vec![mode], vec![mode]], [true; 2]));
    assert_ne!(attached(&scene.lab), before, "the next run has programs of its own");

    restart(&mut scene, other_name);
    let anew = links(&scene);
    assert_eq!((modes(&scene.lab), send(&scene)), ([vec![other], vec![other]], [true; 2]));
    assert!(anew.iter().zip(pinned).all(|(anew, before)| anew.is_some() && *anew != before), "{anew:?} {pinned:?}");

    restart(&mut scene, "off");
    assert_eq!((links(&scene), modes(&scene.lab), send(&scene)), ([None; 2], [vec![], vec![]], [false; 2]));
    assert_eq!(row(&scene, FAR_NAME)["xdp"], Value::Null);

    restart(&mut scene, "auto");
    assert_eq!((links(&scene), modes(&scene.lab)), ([None; 2], [vec![], vec![]]));
    let veth = row(&scene, FAR_NAME);
    assert_eq!(
        (veth["xdp"].as_str(), veth["xdp_why"].as_str()),
        (Some("tc"), Some("its driver veth is not known to complete checksums and to redirect frames"))
    );
    assert_eq!(scene.agent.rows("warnings"), [Value::Null; 0]);

    restart(&mut scene, name);
    scene.agent.terminate();
    let listed = scene.agent.says(&["unload", "--dry-run"]);
    assert_eq!(listed.matches("-driver").count(), 2, "{listed}");
    scene.agent.unload();
    assert_eq!(modes(&scene.lab), [vec![], vec![]]);
    assert!(!scene.agent.pin_path().exists());
}

#[test]
fn generic_programs_outlive_the_agent_and_leave_nothing() {
    drivers_follow_the_agent("drvgeneric", ("generic", Mode::Generic), ("native", Mode::Native));
}

#[test]
fn native_programs_outlive_the_agent_and_leave_nothing() {
    drivers_follow_the_agent("drvnative", ("native", Mode::Native), ("generic", Mode::Generic));
}

#[test]
fn a_driver_goes_with_its_interface_and_with_its_class() {
    let mut scene = Scene::with_flags(Setup::new("drvgone"), &flags("generic"));
    let pins = UPLINKS.map(|uplink| scene.agent.pin_path().join("links").join(pin_name(index(&scene.lab, uplink))));
    assert!(pins.iter().all(|pin| pin.exists()));
    scene.lab.node.ip(&["link del up1"]);
    deadline::until_true("the pin of the removed interface is gone", || !pins[1].exists());
    assert!(pins[0].exists());
    scene.agent.crash();
    scene.agent.set_flags(&["--uplink-interfaces", "none", "--xdp", "generic"]);
    scene.agent.start();
    assert!(!pins[0].exists() && attached_to(&scene.lab, UPLINK_NAME).is_empty());
}

/// A foreign program, attached to the driver of an interface while `work` runs.
fn with_foreign_program(scene: &mut Scene, interface: &str, work: impl FnOnce(&mut Scene, u32)) {
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
    // Attached until it is dropped.
    let _other = scene.lab.node.inside(|| {
        let mut other = BpfDataplane::open(&settings).expect("a program to attach");
        let program = object::driver_program(other.ebpf(), Mode::Native.program()).expect("there is one");
        program.attach(interface, XdpMode::Driver).expect("root may");
        removal::remove_pins(&settings.pin_path).expect("they are ours");
        other
    });
    let programs = attached_to(&scene.lab, interface);
    assert_eq!(programs.len(), 1, "{programs:?}");
    work(scene, programs[&Mode::Native]);
}

#[test]
fn a_program_of_others_stays_and_is_told() {
    let mut scene = Scene::without_agent(Setup::new("drvforeign"), &flags("generic"));
    with_foreign_program(&mut scene, FAR_NAME, |scene, id| {
        for xdp in ["generic", "native"] {
            scene.agent.set_flags(&flags(xdp));
            scene.agent.start();
            scene.publish("shop", 81, "VIP", &["a"]);
            assert_eq!(attached_to(&scene.lab, FAR_NAME), [(Mode::Native, id)].into());
            assert_eq!(send(scene), [true, false]);
            let told = scene.agent.says(&["show", "warnings"]);
            assert!(told.contains("interface up1") && told.contains(&format!("(id {id}) of others")), "{told}");
            let row = row(scene, FAR_NAME);
            assert_eq!((row["xdp"].as_str(), row["hooks"].as_array().map(Vec::len)), (Some("tc"), Some(2)));
            for family in FAMILIES {
                assert_eq!(scene.dial_from_far().tcp(vip(family, 81, 80)).who(), Some("a"), "tc serves");
            }
            scene.agent.crash();
        }
        scene.agent.set_flags(&flags("generic"));
        scene.agent.start();
    });
    deadline::within(RETRY_MAX, || (links(&scene)[1].is_some()).then_some(())).expect("there is room now");
    assert_eq!(send(&scene), [true; 2]);
    assert!(!scene.agent.says(&["show", "warnings"]).contains("up1"));
}
