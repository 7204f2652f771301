//! Frames as a driver makes them, by `BPF_PROG_TEST_RUN`, and what the stack does with them.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, ProgramArray};
use aya::programs::{Program, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_tests::netns::Netns;
use lb_tests::packet::{CLIENT_MAC, NODE_MAC};

use crate::forward::End;
use crate::packet::{Segment, packet};

/// Frames of a measurement, and of one call of the drivers' poll (`NAPI_POLL_WEIGHT`).
pub const FRAMES: u32 = 200_000;
const BATCH: u32 = 64;
/// Bytes of a frame, as the floors write them: the shortest that Ethernet has.
const FRAME_LEN: usize = 64;
pub type Frame = [u8; FRAME_LEN];

/// The interfaces, with their networks. Frames arrive by the first.
pub const UPLINK: &str = "up0";
pub const FAR: &str = "far0";
const POD: &str = "pod0";
/// The node's addresses on both uplinks.
pub const NODE: [u8; 4] = [192, 0, 2, 2];
pub const FAR_NODE: [u8; 4] = [192, 0, 3, 2];
/// The MAC of each.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];

/// A namespace with three devices: one by which frames arrive, and two more by which they leave. Nothing reads from
/// them, so they have no carrier.
pub fn node(name: &str) -> Netns {
    let node = Netns::create("benchxdp", name);
    node.sysctl(&[("net.ipv4.ip_forward", "1"), ("net.ipv4.conf.all.rp_filter", "0")]);
    node.sysctl(&[("net.ipv4.conf.default.rp_filter", "0")]);
    for (name, own, router, networks) in [
        (UPLINK, "192.0.2.2/24", "192.0.2.1", &["203.0.113.0/24", "10.244.3.0/24"][..]),
        (FAR, "192.0.3.2/24", "192.0.3.1", &["10.244.2.0/24", "198.51.100.0/24"]),
        (POD, "192.0.4.2/24", "192.0.4.1", &["10.244.1.0/24"]),
    ] {
        node.ip(&[format!("tuntap add {name} mode tap"), format!("link set {name} address 02:00:00:00:01:01 up")]);
        node.ip(&[format!("addr add {own} dev {name}")]);
        node.ip(&[format!("neigh replace {router} lladdr 02:00:00:00:02:02 nud permanent dev {name}")]);
        for network in networks {
            node.ip(&[format!("route add {network} via {router} dev {name} onlink")]);
        }
    }
    node
}

/// A segment in mid-flow, in a frame of the shortest length for the interface.
pub fn frame(from: End, to: End) -> Frame {
    let bytes = packet(from, to, Segment::Ack);
    assert_eq!(bytes[..12], [NODE_MAC, CLIENT_MAC].concat(), "the frame begins with its MACs");
    let mut frame = [0; FRAME_LEN];
    frame[..bytes.len()].copy_from_slice(&bytes);
    frame[..6].copy_from_slice(&MAC);
    frame
}

/// The programs that write a packet into a frame, and one that does nothing.
pub struct Frames(Ebpf);

impl Frames {
    pub fn open() -> Result<Self> {
        let object = option_env!("LB_BPF_FLOORS").context("the floors were not built: build without LB_BPF_OBJECT")?;
        let mut floors = EbpfLoader::new().load_file(object).with_context(|| format!("cannot load {object}"))?;
        for (name, program) in floors.programs_mut() {
            if let Program::Xdp(program) = program {
                program.load().with_context(|| format!("the kernel did not load {name}"))?;
            }
        }
        Ok(Self(floors))
    }

    /// The program that does nothing.
    pub fn empty(&self) -> Result<&Xdp> {
        Ok(self.0.program("empty_driver").context("a program of the floors")?.try_into()?)
    }

    /// Nanoseconds for a frame that arrives at the uplink of the thread's namespace and is passed to its stack.
    pub fn passed(&mut self, frame: &Frame) -> Result<f64> {
        self.live("restore_pass", frame)
    }

    /// The same for a frame that this program handles first.
    pub fn driven(&mut self, driver: &Xdp, frame: &Frame) -> Result<f64> {
        let map = self.0.map_mut("next").context("the floors have a next program")?;
        ProgramArray::try_from(map)?.set(0, driver.fd()?, 0)?;
        self.live("restore_then", frame)
    }

    fn live(&mut self, program: &str, frame: &Frame) -> Result<f64> {
        let words = frame.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word)).collect::<Vec<_>>();
        let words: [u32; FRAME_LEN / 4] = words.try_into().expect("as many words");
        let map = self.0.map_mut("template").context("the floors have a template")?;
        Array::<_, [u32; FRAME_LEN / 4]>::try_from(map)?.set(0, words, 0)?;
        let program: &Xdp = self.0.program(program).context("a program of the floors")?.try_into()?;
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context()?),
            repeat: FRAMES,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        Ok(program.test_run(options)?.duration.as_secs_f64() * 1e9)
    }
}

/// Runs a program on a frame at the uplink, which no stack gets: nanoseconds of a run, and what the last one returned.
pub fn alone(program: &Xdp, frame: &Frame, repeat: u32) -> Result<(f64, u32)> {
    let context = context()?;
    let options = TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), repeat, ..TestRunOptions::default() };
    let result = program.test_run(options)?;
    Ok((result.duration.as_secs_f64() * 1e9, result.return_value))
}

/// `struct xdp_md` (include/uapi/linux/bpf.h): the end of the data, and the interface.
fn context() -> Result<Vec<u8>> {
    let ifindex = nix::net::if_::if_nametoindex(UPLINK)?;
    Ok([0, FRAME_LEN as u32, 0, ifindex, 0, 0].map(u32::to_ne_bytes).concat())
}

/// A measurement of which the thread's namespace routes so many frames.
pub fn routed<T>(expected: u32, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = routed_packets()?;
    let result = work()?;
    let moved = routed_packets()? - before;
    ensure!(moved == u64::from(expected), "{moved} frames were routed, not {expected}: something else was measured");
    Ok(result)
}

/// IPv4 packets that were routed (`ForwDatagrams`).
fn routed_packets() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:")).map(str::split_whitespace);
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let (_, value) = names.zip(values).find(|(name, _)| *name == "ForwDatagrams").context("a counter of the kernel")?;
    Ok(value.parse()?)
}
