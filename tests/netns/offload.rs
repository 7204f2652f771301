//! Large transfers with every offload of the devices: checksums, segmentation and reassembly. Only the receiver detects
//! a wrong checksum in a segment that a device completes.

use lb_tests::address::{FAMILIES, FAR, vip};
use lb_tests::lab::{Cni, FAR_NAME, Setup};
use lb_tests::scene::Scene;

/// Bytes each way, in every setting.
const TRANSFER: usize = 4 << 20;

/// Settings as `ethtool -K` takes them. `tso` depends on `tx`.
const SETTINGS: [&[&str]; 6] = [
    &["tx", "on", "tso", "on", "gso", "on", "gro", "on"],
    &["tx", "on", "tso", "on", "gso", "on", "gro", "off"],
    &["tx", "on", "tso", "off", "gso", "on", "gro", "on"],
    &["tx", "on", "tso", "off", "gso", "off", "gro", "off"],
    &["tx", "off", "gso", "on", "gro", "on"],
    &["tx", "off", "gso", "off", "gro", "off"],
];

/// The namespaces of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Everywhere,
    /// The pods and the network, but not the node: the two ends of a link differ.
    Ends,
}

fn set(scene: &Scene, setting: &[&str], place: Where) {
    let arguments = |interface| [&["-K", interface], setting].concat();
    for pod in ["client", "a"] {
        let pod = scene.lab.pod(pod);
        pod.netns.run("ethtool", &arguments("eth0"));
        if place == Where::Everywhere {
            scene.lab.node.run("ethtool", &arguments(&pod.interface));
        }
    }
    scene.lab.far.run("ethtool", &arguments("eth0"));
    if place == Where::Everywhere {
        scene.lab.node.run("ethtool", &arguments(FAR_NAME));
    }
}

fn bulk_arrives(setup: Setup) {
    let scene = Scene::with_flags(setup, &["--uplink-interfaces", "up0,up1"]);
    scene.publish("s1", 1, "VIP", &["a"]);
    for (setting, place) in SETTINGS.iter().flat_map(|setting| [(setting, Where::Everywhere), (setting, Where::Ends)]) {
        set(&scene, setting, place);
        for family in FAMILIES {
            let to = vip(family, 1, 80);
            let far = scene.dial_from_far().bound(FAR.host(family, 9));
            for (whose, dial) in [("a pod", scene.dial()), ("the network", far)] {
                let what = || format!("{setting:?} {place:?}: {to} from {whose}");
                let mut held = dial.hold(to).unwrap_or_else(|outcome| panic!("{}: {outcome:?}", what()));
                held.transfer(TRANSFER).unwrap_or_else(|error| panic!("{}: {error}", what()));
                assert_eq!(dial.udp(to).who(), Some("a"), "{}: UDP", what());
            }
        }
    }
}

#[test]
fn bulk_arrives_with_every_offload() {
    bulk_arrives(Setup::new("offload"));
}

#[test]
fn bulk_arrives_with_every_offload_on_a_bridge() {
    bulk_arrives(Setup::new("offloadbr").cni(Cni::Bridge));
}
