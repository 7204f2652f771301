//! How packets lie in memory is the sender's affair: all of their headers are found.

use std::os::fd::AsRawFd as _;

use lb_tests::address::{FAMILIES, vip};
use lb_tests::dial::Outcome;
use lb_tests::lab::Setup;
use lb_tests::scene::Scene;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// Longer than a page: then the kernel keeps no more than the Ethernet header of a packet socket's frame in the linear
/// part.
const PAYLOAD_LEN: usize = 6_000;

#[test]
fn headers_behind_the_linear_part_are_found() {
    let scene = Scene::start(Setup::new("nonlinear"));
    let client = &scene.lab.pod("client").netns;
    for pod in ["client", "a"] {
        scene.lab.pod(pod).netns.ip(&["link set eth0 mtu 9000"]);
        scene.lab.node.ip(&[format!("link set {} mtu 9000", scene.lab.pod(pod).interface)]);
    }
    // The frame is sent again as it was seen: with its checksum.
    client.run("ethtool", &["-K", "eth0", "tx", "off"]);
    scene.publish("large", 1, "VIP", &["a"]);
    for family in FAMILIES {
        let asking = scene.dial().asking(vip(family, 1, 80));
        let tap = client.inside(|| {
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
                .expect("root may open a packet socket")
        });
        setsockopt(&tap, sockopt::ReceiveTimeout, &TimeVal::new(2, 0)).expect("an option that all sockets have");
        let words = "w".repeat(PAYLOAD_LEN);
        assert!(matches!(asking.ask(&words), Outcome::Answered(_)), "{family:?}: the ordinary way");
        let mut frame = vec![0; 10_000];
        let (len, link) = loop {
            let (len, link) = recvfrom::<LinkAddr>(tap.as_raw_fd(), &mut frame).expect("the frame is seen");
            if len > PAYLOAD_LEN {
                break (len, link.expect("packet sockets tell where"));
            }
        };
        sendto(tap.as_raw_fd(), &frame[..len], &link, MsgFlags::empty()).expect("it is sent again");
        let answer = asking.another(&words);
        assert!(matches!(answer, Outcome::Answered(_)), "{family:?}: the frame of a packet socket: {answer:?}");
    }
}
