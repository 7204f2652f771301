//! Connections and bulk traffic of a client in the network to an endpoint on the node, and to one on another node, in
//! turns: plain routing, kube-proxy's rules, kube-proxy itself if it is given, and the agent.
//!
//! With plain routing the client dials the endpoint itself, and the node is a router for it.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::Path;

use anyhow::{Context, Result};
use lb_agent::dataplane::Dataplane as _;
use lb_agent::dataplane::bpf::BpfDataplane;
use lb_agent::dataplane::links::{Class, Link, LinkHeader};
use lb_common::table::{Port, ScopeFlags, Uplink};
use lb_common::way::SnatPorts;
use lb_tests::address::{FAR_LINK, Family, REMOTE_PODS, UPLINK};
use lb_tests::lab::{FAR_NAME, Lab, Setup, UPLINK_NAME};

use crate::figures::{Figure, Target, Unit};
use crate::forward::publish;
use crate::kube_proxy::KubeProxy;
use crate::load;
use crate::network::{BACKENDS, CLIENTS, PORT, ROUNDS, Server, TURN, endpoint, node_address, vip};
use crate::ring::PinFolder;
use crate::rules::{self, Service};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Nftables,
    KubeProxy,
    /// The agent, with ports for more connections than are made.
    Us,
    /// The agent, with its usual ports: soon all are in use, and new connections take over those of ended ones.
    UsFull,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain routing",
            Self::Nftables => "nftables",
            Self::KubeProxy => "kube-proxy",
            Self::Us => "us",
            Self::UsFull => "us, all ports used",
        }
    }
}

/// Where the endpoint is.
const PLACES: [&str; 2] = ["endpoint here", "endpoint elsewhere"];

/// The ways, each with the name of its namespaces.
const WAYS: [(&str, Way); 4] =
    [("benchupplain", Way::Plain), ("benchupnft", Way::Nftables), ("benchupus", Way::Us), ("benchupfull", Way::UsFull)];

/// As many as masquerading by netfilter uses.
const MANY_PORTS: SnatPorts = SnatPorts { first: 1024, last: 65_535 };

pub fn measure(rounds: u16, kube_proxy: Option<&Path>) -> Result<Vec<Figure>> {
    let real = kube_proxy.map(|_| ("benchupkp", Way::KubeProxy));
    let ways = WAYS.into_iter().chain(real);
    let nodes = ways.map(|(test, way)| Node::start(test, way, kube_proxy)).collect::<Result<Vec<_>>>()?;
    let rounds = usize::from(rounds * ROUNDS);
    println!("uplinks: {rounds} rounds of {} ways", nodes.len());
    let mut figures = Vec::new();
    for (place, name) in PLACES.iter().enumerate() {
        let (mut rates, mut bulks) = (vec![Vec::new(); nodes.len()], vec![Vec::new(); nodes.len()]);
        for round in 0..rounds {
            // Another way begins each time.
            let turn = |step| (round + step) % nodes.len();
            for index in (0..nodes.len()).map(turn) {
                rates[index].push(nodes[index].client(place, |to| load::connection_rate(&[to], CLIENTS, TURN))?);
            }
            for index in (0..nodes.len()).map(turn) {
                bulks[index].push(nodes[index].client(place, |to| load::bulk_rate(to, TURN))?);
            }
        }
        let list = |kind: &str, unit, rounds: Vec<Vec<f64>>| -> Vec<Figure> {
            let figure = |(node, rounds): (&Node, _)| {
                Figure::new(format!("network, {name}: {kind}, {}", node.way.name()), unit, Target::None, rounds)
            };
            nodes.iter().zip(rounds).map(figure).collect()
        };
        let rates = list("connections", Unit::ConnectionsPerSec, rates);
        let bulks = list("bulk", Unit::GigabitsPerSec, bulks);
        let ratios = ratios(&nodes, name, &rates, &bulks);
        figures.extend([rates, bulks, ratios].concat());
    }
    Ok(figures)
}

/// The agent's ratios to every other way.
fn ratios(nodes: &[Node], place: &str, rates: &[Figure], bulks: &[Figure]) -> Vec<Figure> {
    let of = |way: Way| nodes.iter().position(|node| node.way == way);
    let Some(us) = of(Way::Us) else { return Vec::new() };
    let mut ratios = Vec::new();
    for (way, of_rates, of_bulk) in [
        (Way::Nftables, Target::AtLeast(1.10), Target::None),
        (Way::KubeProxy, Target::AtLeast(1.10), Target::None),
        (Way::Plain, Target::None, Target::AtLeast(0.97)),
        (Way::UsFull, Target::None, Target::None),
    ] {
        let Some(other) = of(way) else { continue };
        let what = |kind: &str| format!("network, {place}: {kind}, us / {}", way.name());
        ratios.push(Figure::ratio(what("connections"), of_rates, &rates[us], &rates[other]));
        ratios.push(Figure::ratio(what("bulk"), of_bulk, &bulks[us], &bulks[other]));
    }
    ratios
}

/// A node with an endpoint, another node with one, a client in the network, and the translation between them.
struct Node {
    way: Way,
    /// What the client dials, by place.
    targets: [SocketAddr; 2],
    // In the order in which they must end.
    _servers: Vec<Server>,
    _kube_proxy: Option<KubeProxy>,
    _dataplane: Option<(BpfDataplane, PinFolder)>,
    lab: Lab,
}

impl Node {
    fn start(test: &'static str, way: Way, kube_proxy: Option<&Path>) -> Result<Self> {
        let lab = Setup::new(test).pods(&BACKENDS[..1]).build();
        let here = endpoint(&lab, BACKENDS[0]);
        let IpAddr::V4(elsewhere) = REMOTE_PODS.host(Family::V4, 5) else { unreachable!("an address of IPv4") };
        let endpoints = [here, SocketAddrV4::new(elsewhere, PORT)];
        let servers = [&lab.pod(BACKENDS[0]).netns, &lab.external].map(Server::start).into();
        let services: Vec<_> =
            (0..).zip(endpoints).map(|(number, to)| Service { vip: vip(number), endpoints: vec![to] }).collect();
        let (mut targets, mut real, mut dataplane) = ([0, 1].map(|number| vip(number).into()), None, None);
        match way {
            Way::Plain => targets = endpoints.map(SocketAddr::from),
            Way::Nftables => lab.node.nft(&rules::ruleset(&services, node_address())),
            Way::KubeProxy => {
                let program = kube_proxy.context("this way needs a kube-proxy")?;
                real = Some(KubeProxy::start(program, &lab, &services));
            }
            Way::Us => dataplane = Some(attached(test, &lab, endpoints, MANY_PORTS)?),
            Way::UsFull => dataplane = Some(attached(test, &lab, endpoints, SnatPorts::DEFAULT)?),
        }
        Ok(Self { way, targets, _servers: servers, _kube_proxy: real, _dataplane: dataplane, lab })
    }

    /// Runs `work` in the network, with the address to dial.
    fn client<T: Send>(&self, place: usize, work: impl FnOnce(SocketAddr) -> T + Send) -> T {
        let to = self.targets[place];
        self.lab.far.inside(|| work(to))
    }
}

/// The agent's programs on both uplinks and at the pod, over tables with a Service for each endpoint.
fn attached(
    test: &str,
    lab: &Lab,
    endpoints: [SocketAddrV4; 2],
    ports: SnatPorts,
) -> Result<(BpfDataplane, PinFolder)> {
    lab.node.inside(|| {
        let pins = PinFolder::new(test);
        let mut dataplane = pins.open_forwarding(ports)?;
        let ends = |socket: SocketAddrV4| (socket.ip().octets(), socket.port());
        let [here, elsewhere] = endpoints.map(ends);
        publish(&mut dataplane, [(1, ends(vip(0)), here, 0), (2, ends(vip(1)), elsewhere, ScopeFlags::MASQUERADE)])?;
        dataplane.activate()?;
        let pod = lab.pod(BACKENDS[0]).interface.clone();
        let links = [(UPLINK_NAME, Class::Uplink), (FAR_NAME, Class::Uplink), (&pod, Class::Workload)];
        let mut uplinks = lb_agent::dataplane::UplinkRows::new();
        let mut ports = Vec::new();
        for ((name, class), net) in links.into_iter().zip([Some(UPLINK), Some(FAR_LINK), None]) {
            let ifindex = nix::net::if_::if_nametoindex(name)?;
            ports.push(Port::unbridged(ifindex));
            dataplane.attach(&Link { ifindex, name: name.into(), class, header: LinkHeader::Ethernet })?;
            if let Some(IpAddr::V4(source)) = net.map(|net| net.host(Family::V4, 2)) {
                uplinks.insert(ifindex, Uplink { source4: source.octets(), ..Uplink::UNNUMBERED });
            }
        }
        dataplane.set_ports(&ports)?;
        dataplane.set_uplinks(&uplinks)?;
        Ok((dataplane, pins))
    })
}
