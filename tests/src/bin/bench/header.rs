//! Connections and bulk traffic of a pod to backends that require a PROXY header, in turns: by the shortcut, which adds
//! it, and through haproxy, which adds it in the balancer's place. Beside them, backends that want no header, by the
//! shortcut and by plain routing.
//!
//! haproxy runs on the same processor. So a rate counts its work too, and its time is no time of a network.

use std::fs;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use anyhow::{Context, Result};
use lb_agent::dataplane::Dataplane as _;
use lb_agent::dataplane::bpf::BpfDataplane;
use lb_agent::dataplane::links::{Class, Link, LinkHeader};
use lb_common::addr::Proto;
use lb_common::table::{Backend, Frontend, FrontendKey, HeaderVersion, Mode, PoolKey, Scope, Scopes};
use lb_tests::address::{Family, vip};
use lb_tests::haproxy::{Announce, Haproxy, Listener};
use lb_tests::lab::{Lab, Setup, UPLINK_NAME};
use nix::unistd::Pid;

use crate::figures::{Figure, Target, Unit};
use crate::load::{self, Preface};
use crate::network::{BACKENDS, CLIENTS, ROUNDS, Server, TURN, endpoint, interfaces};
use crate::ring::{PinFolder, frontend, write};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The client dials the backends, and no program runs.
    Plain,
    /// The shortcut, to backends that want no header.
    Without,
    /// The shortcut, which adds this header.
    With(HeaderVersion),
    /// In mode Proxy: through haproxy, which adds the header of version 2.
    Hairpin,
}

/// The ways, each with the name of its namespaces.
const WAYS: [(&str, Way); 5] = [
    ("benchhdplain", Way::Plain),
    ("benchhdnone", Way::Without),
    ("benchhdv1", Way::With(HeaderVersion::V1)),
    ("benchhdv2", Way::With(HeaderVersion::V2)),
    ("benchhdhair", Way::Hairpin),
];

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain routing",
            Self::Without => "shortcut",
            Self::With(HeaderVersion::V1) => "shortcut, v1",
            Self::With(HeaderVersion::V2) => "shortcut, v2",
            Self::Hairpin => "haproxy, v2",
        }
    }

    /// The header that the backends require.
    const fn header(self) -> Option<HeaderVersion> {
        match self {
            Self::Plain | Self::Without => None,
            Self::With(version) => Some(version),
            Self::Hairpin => Some(HeaderVersion::V2),
        }
    }
}

/// The quantities of a way.
const QUANTITIES: [(&str, Unit); 5] = [
    ("connections", Unit::ConnectionsPerSec),
    ("half of the connections take", Unit::Micros),
    ("99 % of the connections take", Unit::Micros),
    ("balancer's link, a connection", Unit::Bytes),
    ("bulk", Unit::GigabitsPerSec),
];

pub fn measure(rounds: u16) -> Result<Vec<Figure>> {
    let nodes = WAYS.iter().map(|(test, way)| Node::start(test, *way)).collect::<Result<Vec<_>>>()?;
    let rounds = usize::from(rounds * ROUNDS);
    println!("header: {rounds} rounds of {} ways", nodes.len());
    let mut measured = vec![QUANTITIES.map(|_| Vec::new()); nodes.len()];
    for round in 0..rounds {
        if round % usize::from(ROUNDS) == 0 {
            println!("  header: round {} of {rounds}", round + 1);
        }
        // Another way begins each time, so that disturbances of the machine affect all alike.
        for index in (0..nodes.len()).map(|step| (round + step) % nodes.len()) {
            for (rounds, value) in measured[index].iter_mut().zip(nodes[index].turn()?) {
                rounds.push(value);
            }
        }
    }
    let figures: Vec<Vec<Figure>> = nodes.iter().zip(measured).map(|(node, rounds)| list(node.way, rounds)).collect();
    let ratios = ratios(&figures);
    // A table of each quantity.
    let table = (0..QUANTITIES.len()).flat_map(|quantity| figures.iter().map(move |way| way[quantity].clone()));
    Ok(table.chain(ratios).collect())
}

fn list(way: Way, rounds: [Vec<f64>; 5]) -> Vec<Figure> {
    let figure = |((what, unit), rounds): (&(&str, Unit), _)| {
        Figure::new(format!("{what}, {}", way.name()), *unit, Target::None, rounds)
    };
    QUANTITIES.iter().zip(rounds).map(figure).collect()
}

/// The ratios of the ways in the order of [`WAYS`].
fn ratios(figures: &[Vec<Figure>]) -> Vec<Figure> {
    let [plain, without, v1, v2, hairpin] = [0, 1, 2, 3, 4];
    let [connections, median, bulk] = [0, 1, 4];
    let ratio = |quantity: usize, this: usize, that: usize, target| {
        let (what, _) = QUANTITIES[quantity];
        let name = |way: usize| WAYS[way].1.name();
        let what = format!("{what}: {} / {}", name(this), name(that));
        Figure::ratio(what, target, &figures[this][quantity], &figures[that][quantity])
    };
    let mut ratios = Vec::new();
    for with in [v1, v2] {
        ratios.push(ratio(connections, with, without, Target::AtLeast(0.9)));
        ratios.push(ratio(connections, with, hairpin, Target::AtLeast(1.5)));
        ratios.push(ratio(median, with, without, Target::None));
        ratios.push(ratio(median, with, hairpin, Target::None));
        ratios.push(ratio(bulk, with, without, Target::None));
        ratios.push(ratio(bulk, with, hairpin, Target::None));
    }
    ratios.push(ratio(connections, without, plain, Target::None));
    ratios
}

/// A node with a client pod, two backend pods with servers, and the way between them.
struct Node {
    way: Way,
    targets: Vec<SocketAddr>,
    // In the order in which they must end.
    _servers: Vec<Server>,
    haproxy: Option<Haproxy>,
    _dataplane: Option<(BpfDataplane, PinFolder)>,
    lab: Lab,
}

impl Node {
    fn start(test: &'static str, way: Way) -> Result<Self> {
        let lab = Setup::new(test).pods(&["client"]).pods(&BACKENDS).build();
        let endpoints: Vec<SocketAddrV4> = BACKENDS.iter().map(|pod| endpoint(&lab, pod)).collect();
        let backends: Vec<SocketAddr> = endpoints.iter().copied().map(Into::into).collect();
        let IpAddr::V4(client) = lab.pod_address("client", Family::V4) else { unreachable!("an address of IPv4") };
        let preface = way.header().map(|version| Preface::of(version, client));
        let servers = BACKENDS.iter().map(|pod| Server::start_behind(&lab.pod(pod).netns, preface.as_ref())).collect();
        let address = vip(Family::V4, 10, 80);
        let dataplane = (way != Way::Plain).then(|| attached(test, &lab, address, &endpoints, way)).transpose()?;
        let listener =
            || Listener { name: "bench", address, backends: backends.clone(), announce: Announce::ProxyHeader };
        let haproxy = (way == Way::Hairpin).then(|| Haproxy::start(&lab.external, lab.folder(), &[listener()]));
        let targets = if way == Way::Plain { backends } else { vec![address] };
        Ok(Self { way, targets, _servers: servers, haproxy, _dataplane: dataplane, lab })
    }

    /// Each of [`QUANTITIES`], once.
    fn turn(&self) -> Result<[f64; 5]> {
        let balancer = self.haproxy.as_ref().map(|haproxy| Pid::from_raw(haproxy.pid().cast_signed()));
        let client = &self.lab.pod("client").netns;
        let targets = &self.targets;
        let before = self.balancer_bytes()?;
        let many = client.inside(|| load::connections(targets, CLIENTS, TURN, balancer))?;
        let bytes = (self.balancer_bytes()? - before) as f64 / many.times.len() as f64;
        // One after the other: the time of a connection is not that of its neighbours.
        let mut single = client.inside(|| load::connections(targets, 1, TURN, balancer))?;
        let bulk = client.inside(|| load::bulk_rate_by(targets[0], TURN, balancer))?;
        Ok([many.rate(), single.micros(50), single.micros(99), bytes, bulk])
    }

    /// Bytes that have passed the node's link to the balancer, in both directions.
    fn balancer_bytes(&self) -> Result<u64> {
        let text = self.lab.node.inside(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(UPLINK_NAME)?.strip_prefix(':'));
        let fields: Vec<&str> = line.context("the node has an uplink")?.split_whitespace().collect();
        // Received bytes are the first field, sent bytes the ninth (proc_net_dev(5)).
        Ok(fields[0].parse::<u64>()? + fields[8].parse::<u64>()?)
    }
}

/// The agent's programs on every pod's interface, over tables with one Service.
fn attached(
    test: &str,
    lab: &Lab,
    address: SocketAddr,
    endpoints: &[SocketAddrV4],
    way: Way,
) -> Result<(BpfDataplane, PinFolder)> {
    lab.node.inside(|| {
        let pins = PinFolder::new(test);
        let mut dataplane = pins.open(lb_agent::dataplane::Sizes::default())?;
        publish(&mut dataplane, address, endpoints, way)?;
        dataplane.activate()?;
        for name in interfaces(lab) {
            let ifindex = nix::net::if_::if_nametoindex(name.as_str())?;
            dataplane.attach(&Link { ifindex, name, class: Class::Workload, header: LinkHeader::Ethernet })?;
        }
        Ok((dataplane, pins))
    })
}

/// One Service at `address`, as this way serves it.
fn publish(dataplane: &mut BpfDataplane, address: SocketAddr, endpoints: &[SocketAddrV4], way: Way) -> Result<()> {
    const ID: u32 = 1;
    let SocketAddr::V4(address) = address else { unreachable!("an address of IPv4") };
    let slot = |(slot, endpoint): (u32, &SocketAddrV4)| {
        (PoolKey { pool: ID, slot }, Backend { addr: endpoint.ip().octets(), port: endpoint.port() })
    };
    let pools = (0..).zip(endpoints).map(slot).collect();
    let (mode, workload) = if way == Way::Hairpin {
        (Mode::Proxy, Scope::PASS)
    } else {
        let flags = way.header().map_or(0, HeaderVersion::flag);
        (Mode::VIP, Scope::balance(ID, endpoints.len() as u16).with_flags(flags))
    };
    let scopes = vec![(ID, Scopes { workload, service_port: ID, ..Scopes::PASS })];
    let key = FrontendKey { addr: address.ip().octets(), port: address.port(), proto: Proto::TCP, pad: 0 };
    write(dataplane, pools, scopes, vec![(key, Frontend { mode, ..frontend(ID) })])
}
