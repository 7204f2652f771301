//! All headers are found, however a packet is laid out in memory, and whatever a link or a sender puts around and
//! between them.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::ffi::OsStringExt as _;

use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::answer::Answer;
use lb_tests::deadline;
use lb_tests::dial::{LIMIT, Outcome};
use lb_tests::lab::{Cni, Setup};
use lb_tests::scene::{Scene, TARGET};
use nix::sys::socket::sockopt::SetOsString;
use nix::sys::socket::{setsockopt, sockopt};
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, Socket, Type};

use crate::tap::{ETHERNET_LEN, Tap};

/// Longer than a page: of a packet socket's frame the kernel then keeps only the Ethernet header in the linear part.
const PAYLOAD_LEN: usize = 6_000;

sockopt_impl!(
    /// Options of all IPv4 headers that the socket sends.
    Ipv4HeaderOptions,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_OPTIONS,
    OsString,
    SetOsString
);
sockopt_impl!(
    /// The hop-by-hop options of all IPv6 packets that the socket sends.
    HopByHopOptions,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_HOPOPTS,
    OsString,
    SetOsString
);
sockopt_impl!(
    /// The destination options of all IPv6 packets that the socket sends.
    DestinationOptions,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_DSTOPTS,
    OsString,
    SetOsString
);
sockopt_impl!(
    /// Datagrams are sent without a checksum.
    NoChecksum,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_NO_CHECK,
    bool
);

#[test]
fn headers_behind_the_linear_part_are_found() {
    let scene = Scene::start(Setup::new("nonlinear"));
    let client = &scene.lab.pod("client").netns;
    for pod in ["client", "a"] {
        scene.lab.pod(pod).netns.ip(&["link set eth0 mtu 9000"]);
        scene.lab.node.ip(&[format!("link set {} mtu 9000", scene.lab.pod(pod).interface)]);
    }
    // The captured frame is sent again, with its checksum.
    client.run("ethtool", &["-K", "eth0", "tx", "off"]);
    scene.publish("large", 1, "VIP", &["a"]);
    for family in FAMILIES {
        let asking = scene.dial().asking(vip(family, 1, 80));
        let tap = Tap::open(client);
        let words = "w".repeat(PAYLOAD_LEN);
        assert!(matches!(asking.ask(&words), Outcome::Answered(_)), "{family:?}: the ordinary way");
        let frame = tap.wait_for("the question", |bytes| bytes.len() > PAYLOAD_LEN);
        tap.send(&frame.bytes, &frame);
        let answer = asking.another(&words);
        assert!(matches!(answer, Outcome::Answered(_)), "{family:?}: the frame of a packet socket: {answer:?}");
    }
}

/// Options and headers that a sender may put between the network header and the ports.
#[derive(Clone, Copy, Debug)]
enum Between {
    /// No operation, as padding.
    NoOperation,
    /// Room for the addresses of two routers.
    RecordRoute,
    HopByHop,
    Destination,
    /// Both.
    HopByHopAndDestination,
}

impl Between {
    const fn of(family: Family) -> &'static [Self] {
        match family {
            Family::V4 => &[Self::NoOperation, Self::RecordRoute],
            Family::V6 => &[Self::HopByHop, Self::Destination, Self::HopByHopAndDestination],
        }
    }

    fn set(self, socket: &Socket) {
        // RFC 791: no operation is 1; record route is 7, with its length and the place of the next address.
        let no_operation = || OsString::from_vec(vec![1; 8]);
        let record_route = || OsString::from_vec(vec![7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        // RFC 8200: the next header (which the kernel fills in), the length in further units of eight, and PadN. Linux
        // accepts at most seven bytes of padding; the longer one is an option of RFC 4727 that is skipped if unknown.
        let short = || OsString::from_vec(vec![0, 0, 1, 4, 0, 0, 0, 0]);
        let long = || OsString::from_vec(vec![0, 1, 0x1e, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let set = match self {
            Self::NoOperation => setsockopt(socket, Ipv4HeaderOptions, &no_operation()),
            Self::RecordRoute => setsockopt(socket, Ipv4HeaderOptions, &record_route()),
            Self::HopByHop => setsockopt(socket, HopByHopOptions, &short()),
            Self::Destination => setsockopt(socket, DestinationOptions, &long()),
            Self::HopByHopAndDestination => setsockopt(socket, HopByHopOptions, &long())
                .and_then(|()| setsockopt(socket, DestinationOptions, &short())),
        };
        set.expect("root may set header options");
    }

    /// Whether a packet carries them, and goes to the backend.
    fn is_in(self, frame: &[u8], backend: IpAddr) -> bool {
        let Some(packet) = frame.get(ETHERNET_LEN..) else { return false };
        match (self, backend) {
            (Self::NoOperation, IpAddr::V4(to)) => packet.starts_with(&[0x47]) && packet[16..20] == to.octets(),
            (Self::RecordRoute, IpAddr::V4(to)) => packet.starts_with(&[0x48]) && packet[16..20] == to.octets(),
            (Self::HopByHop | Self::HopByHopAndDestination, IpAddr::V6(to)) => {
                packet[0] >> 4 == 6 && packet[6] == 0 && packet[24..40] == to.octets()
            }
            (Self::Destination, IpAddr::V6(to)) => {
                packet[0] >> 4 == 6 && packet[6] == 60 && packet[24..40] == to.octets()
            }
            (_, _) => false,
        }
    }
}

/// A socket of the client pod that sends these options or headers.
fn socket(scene: &Scene, family: Family, kind: Type, between: Between) -> Socket {
    scene.lab.pod("client").netns.inside(|| {
        let (domain, protocol) = match (family, kind == Type::STREAM) {
            (Family::V4, true) => (Domain::IPV4, Protocol::TCP),
            (Family::V6, true) => (Domain::IPV6, Protocol::TCP),
            (Family::V4, false) => (Domain::IPV4, Protocol::UDP),
            (Family::V6, false) => (Domain::IPV6, Protocol::UDP),
        };
        let socket = Socket::new(domain, kind, Some(protocol)).expect("sockets can be had");
        between.set(&socket);
        socket.set_read_timeout(Some(LIMIT)).expect("an option that all sockets have");
        socket
    })
}

/// A connection whose every packet carries them, in both directions if the server's stack echoes them.
fn stream(scene: &Scene, between: Between, to: SocketAddr) {
    let family = lb_tests::address::family(to.ip());
    let socket = socket(scene, family, Type::STREAM, between);
    socket.connect_timeout(&to.into(), LIMIT).unwrap_or_else(|error| panic!("{between:?} to {to}: {error}"));
    let mut stream = BufReader::new(TcpStream::from(socket));
    let mut line = String::new();
    stream.read_line(&mut line).unwrap_or_else(|error| panic!("{between:?} to {to}: {error}"));
    let answer = Answer::parse(&line).expect("our server");
    assert_eq!((answer.who.as_str(), answer.client.ip()), ("a", scene.client_address(to.ip())), "{between:?}");
    // If the kernel cuts segments behind two extension headers, it loses some, also between the endpoints themselves,
    // and retransmits them one by one: that takes about a second.
    stream.get_mut().set_read_timeout(Some(deadline::PATIENCE)).expect("an option that all sockets have");
    let words: Vec<u8> = (0..=250).cycle().take(16 << 10).collect();
    for _ in 0..16 {
        let mut back = vec![0; words.len()];
        stream.get_mut().write_all(&words).expect("the connection is open");
        stream.read_exact(&mut back).unwrap_or_else(|error| panic!("{between:?} to {to}: {error}"));
        assert_eq!(back, words);
    }
}

/// A datagram with them, and its answer.
fn datagram(scene: &Scene, between: Between, to: SocketAddr) {
    let socket = socket(scene, lb_tests::address::family(to.ip()), Type::DGRAM, between);
    socket.connect(&to.into()).expect("a datagram socket connects at once");
    let socket = UdpSocket::from(socket);
    socket.send(b"hello").expect("there is a route");
    let mut bytes = [0; 256];
    let len = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("{between:?} to {to}: {error}"));
    let text = String::from_utf8_lossy(&bytes[..len]);
    assert!(text.starts_with("a ") && text.ends_with("\nhello"), "{between:?} to {to}: {text}");
}

fn options_are_found(setup: Setup) {
    let scene = Scene::start(setup);
    scene.publish("s1", 1, "VIP", &["a"]);
    for family in FAMILIES {
        let backend = scene.lab.pod_address("a", family);
        for between in Between::of(family) {
            for exchange in [stream, datagram] {
                exchange(&scene, *between, SocketAddr::new(backend, TARGET));
                let tap = Tap::open(&scene.lab.pod("a").netns);
                exchange(&scene, *between, vip(family, 1, 80));
                tap.wait_for(&format!("{between:?}, translated"), |frame| between.is_in(frame, backend));
            }
        }
    }
}

#[test]
fn options_and_extension_headers_of_real_sockets_are_found() {
    options_are_found(Setup::new("options"));
}

#[test]
fn options_and_extension_headers_of_real_sockets_are_found_on_a_bridge() {
    options_are_found(Setup::new("optionsbr").cni(Cni::Bridge));
}

/// RFC 768: zero means "no checksum". The datagram arrives, still with zero.
#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let scene = Scene::start(Setup::new("nochecksum"));
    scene.publish("s1", 1, "VIP", &["a"]);
    let client = &scene.lab.pod("client").netns;
    let tap = Tap::open(&scene.lab.pod("a").netns);
    let socket = client.inside(|| UdpSocket::bind("0.0.0.0:0").expect("any port"));
    setsockopt(&socket, NoChecksum, &true).expect("an option that datagram sockets have");
    socket.set_read_timeout(Some(LIMIT)).expect("an option that all sockets have");
    socket.connect(vip(Family::V4, 1, 80)).expect("a datagram socket connects at once");
    socket.send(b"unsummed").expect("there is a route");
    let IpAddr::V4(backend) = scene.lab.pod_address("a", Family::V4) else { unreachable!("of this family") };
    let frame = tap.wait_for("the datagram at the backend", |frame| {
        frame.ends_with(b"unsummed") && frame[30..34] == backend.octets()
    });
    assert_eq!(frame.bytes[40..42], [0, 0], "the checksum");
    let mut bytes = [0; 256];
    let len = socket.recv(&mut bytes).expect("it is answered");
    assert!(bytes[..len].ends_with(b"\nunsummed"));
}

/// The sender passes one large piece to the kernel, which cuts it into datagrams, or lets a device do so.
#[test]
fn datagrams_that_are_segmented_late_all_arrive() {
    const LEN: usize = 1_000;
    const LEN_OF_SEGMENT: i32 = 1_000;
    let scene = Scene::start(Setup::new("udpgso"));
    scene.publish("s1", 1, "VIP", &["a"]);
    let client = &scene.lab.pod("client").netns;
    for offload in ["on", "off"] {
        client.run("ethtool", &["-K", "eth0", "tx", offload]);
        for family in FAMILIES {
            let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
            let socket = client.inside(|| UdpSocket::bind(any).expect("any port"));
            setsockopt(&socket, sockopt::UdpGsoSegment, &LEN_OF_SEGMENT).expect("Linux 4.18 or newer");
            socket.set_read_timeout(Some(LIMIT)).expect("an option that all sockets have");
            socket.connect(vip(family, 1, 80)).expect("a datagram socket connects at once");
            let sent: Vec<u8> = (b'0'..=b'9').flat_map(|digit| [digit; LEN]).collect();
            socket.send(&sent).expect("there is a route");
            let mut heard: Vec<u8> = (0..10)
                .map(|number| {
                    let mut bytes = [0; 2 * LEN];
                    let len = socket
                        .recv(&mut bytes)
                        .unwrap_or_else(|error| panic!("{family:?}, tx {offload}: answer {number} of 10: {error}"));
                    assert!(bytes[len - LEN..len].iter().all(|byte| *byte == bytes[len - 1]), "one of the pieces");
                    bytes[len - 1]
                })
                .collect();
            heard.sort_unstable();
            assert_eq!(heard, b"0123456789", "{family:?}, tx {offload}");
        }
    }
}

/// A frame with a VLAN tag before its network header (IEEE 802.1Q). The hook never sees the tag, because the kernel
/// removes it earlier. Number 0 is a priority tag, and the frame belongs to the interface itself; any other number is
/// another network's.
#[test]
fn a_tag_is_no_part_of_the_headers() {
    let scene = Scene::start(Setup::new("tagged"));
    scene.publish("s1", 1, "VIP", &["a"]);
    let client = &scene.lab.pod("client").netns;
    // The captured frame is sent again, with its checksum.
    client.run("ethtool", &["-K", "eth0", "tx", "off"]);
    for family in FAMILIES {
        let asking = scene.dial().asking(vip(family, 1, 80));
        let tap = Tap::open(client);
        let words = format!("tagged {family:?}");
        assert!(matches!(asking.ask(&words), Outcome::Answered(_)), "{family:?}: the ordinary way");
        let frame = tap.wait_for("the question", |bytes| bytes.ends_with(words.as_bytes()));
        let tagged = |number: u8| [&frame.bytes[..12], &[0x81, 0, 0xa0, number], &frame.bytes[12..]].concat();
        tap.send(&tagged(0), &frame);
        assert_eq!(asking.another(&words).who(), Some("a"), "{family:?}: priority alone");
        tap.send(&tagged(5), &frame);
        assert_eq!(asking.another(&words), Outcome::Silence, "{family:?}: nobody has that network");
        assert_eq!(asking.ask(&words).who(), Some("a"), "{family:?}: the flow goes on");
    }
}
