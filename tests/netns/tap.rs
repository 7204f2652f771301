//! Whole frames on an interface of a namespace, captured and sent by packet sockets.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Instant;

use lb_tests::deadline::PATIENCE;
use lb_tests::netns::Netns;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// Longer than any frame here.
const FRAME_MAX: usize = 70_000;

/// An Ethernet header without a tag.
pub const ETHERNET_LEN: usize = 14;

/// A frame, and the interface on which it was captured.
pub struct Frame {
    pub bytes: Vec<u8>,
    link: LinkAddr,
}

/// A packet socket. It captures frames sent after it was opened.
pub struct Tap {
    socket: OwnedFd,
}

impl Tap {
    pub fn open(netns: &Netns) -> Self {
        let socket = netns.inside(|| {
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
                .expect("root may open a packet socket")
        });
        setsockopt(&socket, sockopt::RcvBuf, &(8 << 20)).expect("an option that all sockets have");
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000)).expect("an option that sockets have");
        Self { socket }
    }

    /// Waits for a frame.
    #[track_caller]
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&[u8]) -> bool) -> Frame {
        let end = Instant::now() + PATIENCE;
        let mut bytes = vec![0; FRAME_MAX];
        while Instant::now() < end {
            // No frame in time.
            let Ok((len, link)) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut bytes) else { continue };
            if is_it(&bytes[..len]) {
                bytes.truncate(len);
                return Frame { bytes, link: link.expect("packet sockets tell where") };
            }
        }
        panic!("no such frame: {what}");
    }

    /// Sends a frame on the interface on which another was captured.
    pub fn send(&self, bytes: &[u8], like: &Frame) {
        sendto(self.socket.as_raw_fd(), bytes, &like.link, MsgFlags::empty()).expect("the interface takes it");
    }
}
