//! What the node pays for a packet in transit: `uplink_ingress` on established flows to an endpoint of another node,
//! beside one on this node, by test run in a namespace with the routes of a node.
//!
//! A packet in transit loses a hop in each run, so each run has a packet of its own.

use anyhow::{Context, Result, ensure};
use lb_agent::dataplane::bpf::BpfDataplane;
use lb_agent::dataplane::object::EMPTY_PROGRAM;
use lb_agent::dataplane::{Dataplane as _, Sizes};
use lb_common::addr::Proto;
use lb_common::table::{Backend, Counter, Direction, FrontendKey, PoolKey, Scope, ScopeFlags, Scopes, Uplink};
use lb_tests::address::{Family, UPLINK, add_address};
use lb_tests::netns::Netns;

use crate::figures::{Figure, Target, Unit};
use crate::packet::{Segment, packet};
use crate::program::{counted, run};
use crate::ring::{PinFolder, frontend, write};

const INGRESS: &str = "uplink_ingress";
/// Runs for a figure of a round.
const RUNS: u32 = 5_000;

pub type End = ([u8; 4], u16);

const CLIENT: End = ([203, 0, 113, 9], 40_000);
const HERE: End = ([198, 51, 100, 1], 80);
const ELSEWHERE: End = ([198, 51, 100, 2], 80);
const LOCAL: End = ([10, 244, 1, 10], 8080);
const REMOTE: End = ([10, 244, 2, 5], 8080);

/// The figures, in turns.
pub fn measure(rounds: u16) -> Result<Vec<Figure>> {
    let node = Netns::create("benchfwd", "node");
    node.sysctl(&[("net.ipv4.ip_forward", "1")]);
    node.ip(&["link add up0 type veth peer name net0", "link set up0 up", "link set net0 up"]);
    node.ip(&[add_address(Family::V4, &UPLINK.interface(Family::V4, 2), "up0")]);
    node.run("ip", &["route", "add", "default", "via", &UPLINK.host(Family::V4, 1).to_string()]);
    node.inside(|| in_namespace(rounds))
}

fn in_namespace(rounds: u16) -> Result<Vec<Figure>> {
    let pins = PinFolder::new("forward");
    let mut dataplane = pins.open(Sizes { flows_max: 1 << 12, ..Sizes::default() })?;
    fill(&mut dataplane)?;
    establish(&mut dataplane, HERE)?;
    establish(&mut dataplane, ELSEWHERE)?;
    let node = source_of_transit(&dataplane)?;
    let (local, request) = (packet(CLIENT, HERE, Segment::Ack), packet(CLIENT, ELSEWHERE, Segment::Ack));
    let reply = packet(REMOTE, node, Segment::Ack);
    let (mut locals, mut requests, mut replies) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..rounds {
        let empty = many(|| run(&mut dataplane, EMPTY_PROGRAM, &local, 1))?;
        locals.push(many(|| counted(&mut dataplane, Counter::RequestTranslated, INGRESS, &local, 1))? - empty);
        requests.push(many(|| counted(&mut dataplane, Counter::Forwarded, INGRESS, &request, 1))? - empty);
        replies.push(many(|| counted(&mut dataplane, Counter::Forwarded, INGRESS, &reply, 1))? - empty);
        println!("  forwarding: round {} of {rounds}", index + 1);
    }
    let ns = |what: &str, rounds| Figure::new(what, Unit::NsPerPacket, Target::None, rounds);
    let local = ns("uplink, established, endpoint here", locals);
    let [request, reply] =
        [("uplink, established, forwarded request", requests), ("uplink, established, forwarded reply", replies)]
            .map(|(what, rounds)| ns(what, rounds));
    let ratio = |figure: &Figure| {
        Figure::ratio(format!("{} / endpoint here", figure.what), Target::AtMost(2.5), figure, &local)
    };
    let ratios = [ratio(&request), ratio(&reply)];
    Ok([local, request, reply].into_iter().chain(ratios).collect())
}

/// The mean of many measurements, in nanoseconds.
fn many(mut measure: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut sum = 0.0;
    for _ in 0..RUNS {
        sum += measure()?;
    }
    Ok(sum / f64::from(RUNS))
}

/// Writes a frontend with an endpoint here, one with an endpoint elsewhere, and the uplink.
fn fill(dataplane: &mut BpfDataplane) -> Result<()> {
    publish(dataplane, [(1, HERE, LOCAL, 0), (2, ELSEWHERE, REMOTE, ScopeFlags::MASQUERADE)])?;
    let ifindex = nix::net::if_::if_nametoindex("up0").context("the namespace has an uplink")?;
    dataplane.set_uplinks(&[(ifindex, Uplink { source4: [192, 0, 2, 2], ..Uplink::UNNUMBERED })].into())?;
    Ok(())
}

/// Writes frontends for the network, each by ID, address, only endpoint and scope flags.
pub fn publish(dataplane: &mut BpfDataplane, services: [(u32, End, End, u8); 2]) -> Result<()> {
    let (mut pools, mut frontends, mut scopes) = (Vec::new(), Vec::new(), Vec::new());
    for (id, vip, backend, flags) in services {
        let external = Scope::balance(id, 1).with_flags(flags);
        pools.push((PoolKey { pool: id, slot: 0 }, Backend { addr: backend.0, port: backend.1 }));
        scopes.push((id, Scopes { external, service_port: id, ..Scopes::PASS }));
        frontends.push((FrontendKey { addr: vip.0, port: vip.1, proto: Proto::TCP, pad: 0 }, frontend(id)));
    }
    write(dataplane, pools, scopes, frontends)
}

/// Opens a connection and lets its endpoint answer.
fn establish(dataplane: &mut BpfDataplane, vip: End) -> Result<()> {
    run(dataplane, INGRESS, &packet(CLIENT, vip, Segment::Syn), 1)?;
    let answers = match vip {
        HERE => ("uplink_egress", packet(LOCAL, CLIENT, Segment::SynAck)),
        _ => (INGRESS, packet(REMOTE, source_of_transit(dataplane)?, Segment::SynAck)),
    };
    run(dataplane, answers.0, &answers.1, 1)?;
    run(dataplane, INGRESS, &packet(CLIENT, vip, Segment::Ack), 1)?;
    Ok(())
}

/// The address and port of the node that the endpoint elsewhere sees.
fn source_of_transit(dataplane: &BpfDataplane) -> Result<End> {
    let rows = dataplane.maps().v4.flows.dump()?;
    let mut replies = rows.iter().filter(|(key, _)| key.direction == Direction::Reply && key.tuple.src == REMOTE.0);
    let (key, _) = replies.next().context("the connection to the other node has a flow")?;
    ensure!(key.tuple.dst == [192, 0, 2, 2], "its source is the node's address on the uplink");
    Ok((key.tuple.dst, key.tuple.dport))
}
