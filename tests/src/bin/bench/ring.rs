//! Tables that measure a program by test run, in which each repeat gets the packet that the last one left.
//!
//! The only backend of each frontend is the next frontend, in a ring. So every repeat has a packet to a frontend again,
//! with another address and another port. A ring of two is a hot flow; once around a ring of n are n new flows.

use std::path::PathBuf;

use anyhow::Result;
use lb_agent::dataplane::bpf::BpfDataplane;
use lb_agent::dataplane::removal;
use lb_agent::dataplane::{
    AttachBy, BpfLog, Dataplane, FamilyOp, FamilyTables, Monitor, Op, Repair, Settings, Sizes, SocketLb, Timeouts,
    Write, Xdp,
};
use lb_common::addr::{Addr, Proto};
use lb_common::table::{
    Backend, Frontend, FrontendKey, FrontendState, Mode, Origin, PoolKey, Rule, Scope, Scopes, bpf_spin_lock,
};
use lb_common::way::SnatPorts;

/// Entries of the flow table: room for every new flow of a measurement, so that nothing is evicted.
pub const FLOWS_MAX: u32 = 1 << 18;

/// An address of a family from a number.
pub trait Numbered: Addr {
    /// The address of the frontend with this number.
    fn frontend(number: u32) -> Self;
    /// The client, and an address that is no frontend's.
    const CLIENT: Self;
    const STRANGER: Self;
    /// The operation for this family.
    fn op(op: FamilyOp<Self>) -> Op;
}

impl Numbered for [u8; 4] {
    fn frontend(number: u32) -> Self {
        let [_, a, b, c] = number.to_be_bytes();
        [100, 64 + a, b, c]
    }

    const CLIENT: Self = [10, 244, 0, 2];
    const STRANGER: Self = [203, 0, 113, 9];

    fn op(op: FamilyOp<Self>) -> Op {
        Op::V4(op)
    }
}

impl Numbered for [u8; 16] {
    fn frontend(number: u32) -> Self {
        let mut addr = [0xfd, 0x64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        addr[12..].copy_from_slice(&number.to_be_bytes());
        addr
    }

    const CLIENT: Self = [0xfd, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    const STRANGER: Self = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

    fn op(op: FamilyOp<Self>) -> Op {
        Op::V6(op)
    }
}

/// The loaded programs over tables full of rings. Nothing is attached; dropping it removes the pins.
pub struct Ring {
    pub dataplane: BpfDataplane,
    /// Frontends in the large ring, of each family: numbers `0..len`. The small ring is `len` and `len + 1`.
    pub len: u32,
    pins: PinFolder,
}

impl Ring {
    /// Loads the programs, and fills the tables with `len` frontends of each family (an even number). The flow table
    /// has `flows_max` entries. Two rings of one name must not be open at once.
    pub fn open(name: &str, len: u32, flows_max: u32) -> Result<Self> {
        assert!(len.is_multiple_of(2), "ports alternate around the ring");
        let pins = PinFolder::new(&format!("{name}{len}"));
        let sizes = Sizes {
            frontends_max: 2 * len + 4,
            backends_max: len + 2,
            flows_max,
            // The table must become full, and all flows belong to one edge.
            pod_flows_percent: 100,
            embryos_max: FLOWS_MAX,
            ..Sizes::default()
        };
        let mut dataplane = pins.open(sizes)?;
        fill::<[u8; 4]>(&mut dataplane, len, 1)?;
        fill::<[u8; 16]>(&mut dataplane, len, len + 3)?;
        Ok(Self { dataplane, len, pins })
    }

    /// The folder of the pinned maps.
    pub fn maps(&self) -> PathBuf {
        self.pins.maps()
    }

    /// The two frontends of the small ring.
    pub const fn pair(&self) -> u32 {
        self.len
    }
}

/// Port of the frontend with this number: it differs from both neighbours'.
pub const fn port(number: u32) -> u16 {
    80 + (number % 2) as u16
}

/// Writes both rings of a family; `first_id` is the ID of frontend 0, of its pool and of its Service port. The small
/// ring is dialled by UDP as well.
fn fill<A: Numbered>(dataplane: &mut BpfDataplane, len: u32, first_id: u32) -> Result<()> {
    let (mut pools, mut frontends, mut scopes) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..len + 2 {
        let next = match number + 1 {
            next if next == len => 0,
            next if next == len + 2 => len,
            next => next,
        };
        let id = first_id + number;
        let scope = Scope::balance(id, 1);
        pools.push((PoolKey { pool: id, slot: 0 }, Backend { addr: A::frontend(next), port: port(next) }));
        scopes.push((id, Scopes { workload: scope, external: scope, service_port: id, ..Scopes::PASS }));
        let key = FrontendKey { addr: A::frontend(number), port: port(number), proto: Proto::TCP, pad: 0 };
        frontends.push((key, frontend(id)));
        if number >= len {
            frontends.push((FrontendKey { proto: Proto::UDP, ..key }, frontend(id)));
        }
    }
    write(dataplane, pools, scopes, frontends)
}

/// Writes rows of one family, and the address bits that the frontends need: without them, packets to the frontends pass.
pub fn write<A: Numbered>(
    dataplane: &mut BpfDataplane,
    pools: Vec<(PoolKey, Backend<A>)>,
    scopes: Vec<(u32, Scopes)>,
    frontends: Vec<(FrontendKey<A>, Frontend)>,
) -> Result<()> {
    let mut needed = FamilyTables { frontends: frontends.iter().copied().collect(), ..FamilyTables::default() };
    needed.derive(dataplane.address_words());
    let addresses = needed.addresses.into_iter().collect();
    dataplane.perform(&A::op(FamilyOp::Addresses(Write::Upsert(addresses))))?;
    dataplane.perform(&A::op(FamilyOp::Pools(Write::Upsert(pools))))?;
    dataplane.perform(&Op::Scopes(Write::Upsert(scopes)))?;
    dataplane.perform(&A::op(FamilyOp::Frontends(Write::Upsert(frontends))))?;
    Ok(())
}

/// A frontend in the ordinary state.
pub fn frontend(id: u32) -> Frontend {
    Frontend {
        id,
        mode: Mode::VIP,
        decided_by: Rule::IpMode,
        origin: Origin::LoadBalancer,
        state: FrontendState::Active,
        lock: bpf_spin_lock::default(),
    }
}

/// The pins of a measurement, removed when it ends in any way.
pub struct PinFolder(PathBuf);

impl PinFolder {
    pub fn new(name: &str) -> Self {
        Self(format!("/sys/fs/bpf/lb-bench-{}-{name}", std::process::id()).into())
    }

    /// The folder of the pinned maps.
    pub fn maps(&self) -> PathBuf {
        self.0.join("maps")
    }

    /// Loads the programs over tables of these sizes, pinned here.
    pub fn open(&self, sizes: Sizes) -> Result<BpfDataplane> {
        self.open_with(sizes, SocketLb::Off)
    }

    /// As [`PinFolder::open`]; these sockets are translated.
    pub fn open_with(&self, sizes: Sizes, sockets: SocketLb) -> Result<BpfDataplane> {
        Ok(BpfDataplane::open(&self.settings(sizes, sockets))?)
    }

    /// As [`PinFolder::open`]; drivers run a program as well.
    pub fn open_driven(&self, sizes: Sizes) -> Result<BpfDataplane> {
        let settings = Settings { xdp: Xdp::Native, ..self.settings(sizes, SocketLb::Off) };
        Ok(BpfDataplane::open(&settings)?)
    }

    /// As [`PinFolder::open`], with tables of the usual sizes; packets are forwarded from these ports.
    pub fn open_forwarding(&self, ports: SnatPorts) -> Result<BpfDataplane> {
        let settings = Settings { snat_ports: Some(ports), ..self.settings(Sizes::default(), SocketLb::Off) };
        Ok(BpfDataplane::open(&settings)?)
    }

    fn settings(&self, sizes: Sizes, sockets: SocketLb) -> Settings {
        Settings {
            pin_path: self.0.clone(),
            sizes,
            timeouts: Timeouts::default(),
            rejects_per_sec: 1000,
            repair: Repair::Off,
            monitor: Monitor::default(),
            bpf_log: BpfLog::Off,
            snat_ports: Some(SnatPorts::DEFAULT),
            sockets,
            attach: AttachBy::Auto,
            xdp: Xdp::Off,
        }
    }
}

impl Drop for PinFolder {
    fn drop(&mut self) {
        if let Err(error) = removal::unload(&self.0) {
            eprintln!("warning: {} was not removed: {error}", self.0.display());
        }
    }
}
