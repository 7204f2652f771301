//! The agent's tables and programs in a node's namespace, with established connections.

use anyhow::{Context, Result, ensure};
use aya::programs::Xdp;
use lb_agent::dataplane::bpf::BpfDataplane;
use lb_agent::dataplane::links::{Class, Link, LinkHeader};
use lb_agent::dataplane::object::{self, DRIVER_PROGRAMS};
use lb_agent::dataplane::{Dataplane as _, Sizes, UplinkRows};
use lb_common::addr::Proto;
use lb_common::table::{Backend, Counter, Direction, FrontendKey, PoolKey, Port, Scope, ScopeFlags, Scopes, Uplink};

use super::frames::{FAR, FAR_NODE, FRAMES, Frame, Frames, MAC, NODE, UPLINK, alone, frame, routed};
use crate::forward::End;
use crate::packet::{Segment, packet};
use crate::program::run;
use crate::ring::{PinFolder, frontend, write};

pub const CLIENT: End = ([203, 0, 113, 9], 40_000);
const LOCAL: End = ([10, 244, 1, 10], 8080);
/// Behind another card, and behind the card that the client is behind.
pub const ELSEWHERE: End = ([10, 244, 2, 5], 8080);
const SAME: End = ([10, 244, 3, 5], 8080);
/// One Service, each port with an endpoint of its own: those above, in turn.
pub const VIPS: [End; 3] = [([198, 51, 100, 1], 80), ([198, 51, 100, 1], 81), ([198, 51, 100, 1], 82)];
const ENDPOINTS: [End; 3] = [LOCAL, ELSEWHERE, SAME];

/// A frame that the program of the driver sends back (include/uapi/linux/bpf.h).
const XDP_TX: u32 = 3;

/// Who handles frames of known flows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// As with `--xdp=off`.
    Tc,
    Driver,
}

impl By {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Driver => "xdp",
        }
    }
}

/// The agent's dataplane, attached to the uplinks of the thread's namespace.
pub struct Balancer {
    dataplane: BpfDataplane,
    by: By,
    /// A frame of the answers from [`ELSEWHERE`].
    pub answer: Frame,
    _pins: PinFolder,
}

impl Balancer {
    /// Loads the programs over tables with so many Services, and opens a connection to each port of the first.
    pub fn open(by: By, services: u32) -> Result<Self> {
        let sizes = Sizes { frontends_max: 2 * services + 16, backends_max: services + 16, ..Sizes::default() };
        let pins = PinFolder::new(&format!("{}{services}", by.name()));
        let mut dataplane = match by {
            By::Tc => pins.open(sizes)?,
            By::Driver => pins.open_driven(sizes)?,
        };
        fill(&mut dataplane, services)?;
        object::driver_program(dataplane.ebpf(), DRIVER_PROGRAMS[0])?;
        let (mut ports, mut uplinks) = (Vec::new(), UplinkRows::new());
        for (name, source4) in [(UPLINK, NODE), (FAR, FAR_NODE)] {
            let ifindex = nix::net::if_::if_nametoindex(name)?;
            ports.push(Port { mac: MAC, ..Port::unbridged(ifindex) });
            uplinks.insert(ifindex, Uplink { source4, flags: Uplink::SENDS_FRAMES, ..Uplink::UNNUMBERED });
            dataplane.attach(&Link {
                ifindex,
                name: name.into(),
                class: Class::Uplink,
                header: LinkHeader::Ethernet,
            })?;
        }
        dataplane.set_ports(&ports)?;
        dataplane.set_uplinks(&uplinks)?;
        let answer = frame(ELSEWHERE, (FAR_NODE, 0));
        let mut balancer = Self { dataplane, by, answer, _pins: pins };
        for (vip, endpoint) in VIPS.into_iter().zip(ENDPOINTS) {
            balancer.establish(vip, endpoint)?;
        }
        if by == By::Driver {
            // The first packet in a second to a next hop is left to tc.
            alone(balancer.driver()?, &frame(CLIENT, VIPS[2]), 1)?;
            let (_, action) = alone(balancer.driver()?, &frame(CLIENT, VIPS[2]), 1)?;
            ensure!(action == XDP_TX, "the program of the driver returned {action} for a packet of a connection");
        }
        Ok(balancer)
    }

    /// Opens a connection and lets its endpoint answer.
    fn establish(&mut self, vip: End, endpoint: End) -> Result<()> {
        let ingress = |dataplane: &mut _, from, to, segment| {
            run(dataplane, "uplink_ingress", &packet(from, to, segment), 1).map(drop)
        };
        ingress(&mut self.dataplane, CLIENT, vip, Segment::Syn)?;
        if endpoint == LOCAL {
            run(&mut self.dataplane, "uplink_egress", &packet(LOCAL, CLIENT, Segment::SynAck), 1)?;
        } else {
            let rows = self.dataplane.maps().v4.flows.dump()?;
            let is_reply = |direction| direction == Direction::Reply;
            let reply = rows.iter().find(|(key, _)| is_reply(key.direction) && key.tuple.src == endpoint.0);
            let (key, _) = reply.context("the connection has a flow")?;
            let node = (key.tuple.dst, key.tuple.dport);
            ingress(&mut self.dataplane, endpoint, node, Segment::SynAck)?;
            if endpoint == ELSEWHERE {
                self.answer = frame(endpoint, node);
            }
        }
        ingress(&mut self.dataplane, CLIENT, vip, Segment::Ack)
    }

    /// The program of the driver.
    pub fn driver(&mut self) -> Result<&Xdp> {
        Ok(object::driver_program(self.dataplane.ebpf(), DRIVER_PROGRAMS[0])?)
    }

    /// Nanoseconds for a frame of a known flow. This counter counts each once, and the stack routes those that are for an
    /// endpoint here.
    pub fn known(&mut self, kernel: &mut Frames, frame: &Frame, counter: Counter) -> Result<f64> {
        let is_routed = counter != Counter::Forwarded;
        let before = self.packets([counter, Counter::InDriver])?;
        let ns = routed(if is_routed { FRAMES } else { 0 }, || match self.by {
            By::Tc => kernel.passed(frame),
            By::Driver => kernel.driven(self.driver()?, frame),
        })?;
        let after = self.packets([counter, Counter::InDriver])?;
        let moved = [after[0] - before[0], after[1] - before[1]];
        let expected = [FRAMES, if self.by == By::Driver { FRAMES } else { 0 }].map(u64::from);
        let name = counter.name();
        // In transit, the driver leaves a batch to tc after a pause of the flow, and a frame in each second.
        let left_max = if is_routed { 0 } else { expected[1] / 1_000 };
        let is_right = moved[0] == expected[0] && (expected[1] - left_max..=expected[1]).contains(&moved[1]);
        ensure!(is_right, "{name}: {moved:?} frames, not {expected:?}: something else was measured");
        Ok(ns)
    }

    /// A measurement of frames that nothing translates, all of which the stack routes.
    pub fn left_alone(&mut self, work: impl FnOnce(&Xdp) -> Result<f64>) -> Result<f64> {
        let ours = [Counter::RequestTranslated, Counter::InDriver];
        let before = self.packets(ours)?;
        let ns = routed(FRAMES, || work(self.driver()?))?;
        ensure!(self.packets(ours)? == before, "packets of no Service were translated: something else was measured");
        Ok(ns)
    }

    fn packets(&self, counters: [Counter; 2]) -> Result<[u64; 2]> {
        let values = self.dataplane.maps().counters()?;
        Ok(counters.map(|counter| values.get(&counter).map_or(0, |value| value.packets)))
    }
}

/// Writes the frontends: the measured Service, and others of one port.
fn fill(dataplane: &mut BpfDataplane, services: u32) -> Result<()> {
    let (mut pools, mut frontends, mut scopes) = (Vec::new(), Vec::new(), Vec::new());
    let others = (1..services).map(|number| {
        let [_, a, b, c] = number.to_be_bytes();
        (([100, 64 + a, b, c], 80), LOCAL)
    });
    for (id, (vip, endpoint)) in (1..).zip(VIPS.into_iter().zip(ENDPOINTS).chain(others)) {
        let flags = if endpoint == LOCAL { 0 } else { ScopeFlags::MASQUERADE };
        pools.push((PoolKey { pool: id, slot: 0 }, Backend { addr: endpoint.0, port: endpoint.1 }));
        let external = Scope::balance(id, 1).with_flags(flags);
        scopes.push((id, Scopes { external, service_port: id, ..Scopes::PASS }));
        frontends.push((FrontendKey { addr: vip.0, port: vip.1, proto: Proto::TCP, pad: 0 }, frontend(id)));
    }
    write(dataplane, pools, scopes, frontends)
}
