//! Where addresses are, seen from this node: what the kernel's routes, neighbours and bridges say, asked once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia};

use super::watch::{Error, list};
use super::{Interfaces, Kind};
use crate::dataplane::links::Mac;

/// The interfaces of this node, and the ways to some addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    pub interfaces: Interfaces,
    pub ways: BTreeMap<IpAddr, Way>,
}

/// The way to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The address is this node's own.
    Here,
    By(Hop),
    /// There is no route, or one that refuses.
    Nowhere,
}

/// The interface by which packets for an address leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    pub ifindex: u32,
    pub gateway: Option<IpAddr>,
    /// The port of the bridge behind which the address was seen last.
    pub port: Option<u32>,
    /// The address that the node itself would send from.
    pub source: Option<IpAddr>,
    /// The route adds a header of its own (`encap`).
    pub has_encap: bool,
}

/// Asks for the interfaces and for the ways to these addresses.
pub async fn survey(addresses: BTreeSet<IpAddr>) -> Result<Survey, Error> {
    let (connection, query, _) = rtnetlink::new_connection()?;
    tokio::select! {
        surveyed = ask(&query, addresses) => surveyed,
        () = connection => Err(Error::Closed),
    }
}

async fn ask(query: &Handle, addresses: BTreeSet<IpAddr>) -> Result<Survey, Error> {
    let mut interfaces = Interfaces::default();
    interfaces.apply(list(query).await?);
    let mut ways = BTreeMap::new();
    for addr in addresses {
        ways.insert(addr, way(query, addr).await);
    }
    let is_bridge = |ifindex: u32| interfaces.links().get(&ifindex).is_some_and(|link| link.kind == Kind::Bridge);
    let has_bridged = ways.values().any(|way| matches!(way, Way::By(hop) if is_bridge(hop.ifindex)));
    if has_bridged {
        let (neighbours, stations) =
            (neighbours(query, AddressFamily::Unspec).await?, neighbours(query, AddressFamily::Bridge).await?);
        for (addr, way) in &mut ways {
            if let Way::By(hop) = way
                && is_bridge(hop.ifindex)
            {
                hop.port = port(*addr, hop.ifindex, &neighbours, &stations);
            }
        }
    }
    Ok(Survey { interfaces, ways })
}

/// What `ip route get` says.
async fn way(query: &Handle, addr: IpAddr) -> Way {
    let mut question = RouteMessage::default();
    (question.header.address_family, question.header.destination_prefix_length) =
        if addr.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
    question.attributes.push(RouteAttribute::Destination(addr.into()));
    // The kernel answers "no route" with an error.
    let answer: Result<Vec<RouteMessage>, _> = query.route().get(question).execute().try_collect().await;
    answer.ok().and_then(|routes| routes.first().map(way_of)).unwrap_or(Way::Nowhere)
}

fn way_of(route: &RouteMessage) -> Way {
    let mut hop = Hop::default();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => hop.ifindex = *ifindex,
            RouteAttribute::Gateway(RouteAddress::Inet(addr)) | RouteAttribute::Via(RouteVia::Inet(addr)) => {
                hop.gateway = Some((*addr).into());
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(addr)) | RouteAttribute::Via(RouteVia::Inet6(addr)) => {
                hop.gateway = Some((*addr).into());
            }
            RouteAttribute::PrefSource(RouteAddress::Inet(addr)) => hop.source = Some((*addr).into()),
            RouteAttribute::PrefSource(RouteAddress::Inet6(addr)) => hop.source = Some((*addr).into()),
            RouteAttribute::Encap(_) => hop.has_encap = true,
            _ => {}
        }
    }
    match route.header.kind {
        RouteType::Local => Way::Here,
        RouteType::Unicast if hop.ifindex != 0 => Way::By(hop),
        _ => Way::Nowhere,
    }
}

async fn neighbours(query: &Handle, family: AddressFamily) -> Result<Vec<NeighbourMessage>, Error> {
    let listed = query.neighbours().get().set_address_family(family).execute().try_collect().await;
    listed.map_err(|source| Error::List { what: "neighbours", source })
}

/// The port of a bridge behind which a neighbour is: its MAC, and where the bridge has seen this MAC.
fn port(addr: IpAddr, bridge: u32, neighbours: &[NeighbourMessage], stations: &[NeighbourMessage]) -> Option<u32> {
    let is_it = |entry: &&NeighbourMessage| {
        let is_addr = |attribute: &NeighbourAttribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => addr == IpAddr::from(*found),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => addr == IpAddr::from(*found),
            _ => false,
        };
        entry.header.ifindex == bridge && entry.attributes.iter().any(is_addr)
    };
    let wanted = mac(neighbours.iter().find(is_it)?)?;
    let of_bridge = |entry: &&NeighbourMessage| entry.attributes.contains(&NeighbourAttribute::Controller(bridge));
    let station = stations.iter().filter(of_bridge).find(|entry| mac(entry) == Some(wanted))?;
    (station.header.ifindex != bridge).then_some(station.header.ifindex)
}

fn mac(entry: &NeighbourMessage) -> Option<Mac> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => Mac::try_from(bytes.as_slice()).ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ifindex: u32, attributes: Vec<NeighbourAttribute>) -> NeighbourMessage {
        let mut entry = NeighbourMessage::default();
        (entry.header.ifindex, entry.attributes) = (ifindex, attributes);
        entry
    }

    /// A neighbour on the bridge 5, whose MAC was seen at the port 7.
    #[test]
    fn a_port_is_found_by_neighbour_and_mac() {
        let addr = [10, 0, 0, 9];
        let mac = |last| NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, last]);
        let destination = NeighbourAttribute::Destination(NeighbourAddress::Inet(addr.into()));
        let neighbours = [entry(4, vec![destination.clone(), mac(1)]), entry(5, vec![destination, mac(9)])];
        let on = |port, last, bridge| entry(port, vec![mac(last), NeighbourAttribute::Controller(bridge)]);
        let stations = [on(6, 8, 5), on(8, 9, 4), on(7, 9, 5)];
        assert_eq!(port(addr.into(), 5, &neighbours, &stations), Some(7));
        assert_eq!(port([10, 0, 0, 8].into(), 5, &neighbours, &stations), None, "an unknown neighbour");
        assert_eq!(port(addr.into(), 5, &neighbours, &stations[..2]), None, "an unknown station");
        // The bridge's own MAC.
        assert_eq!(port(addr.into(), 5, &neighbours, &[on(5, 9, 5)]), None);
    }

    #[test]
    fn routes_of_the_node_itself_and_those_that_refuse_are_told_apart() {
        let route = |kind, ifindex| {
            let mut route = RouteMessage::default();
            route.header.kind = kind;
            let gateway = RouteAttribute::Gateway(RouteAddress::Inet([192, 0, 2, 1].into()));
            route.attributes = vec![RouteAttribute::Oif(ifindex), gateway];
            way_of(&route)
        };
        let hop = Hop { ifindex: 3, gateway: Some([192, 0, 2, 1].into()), ..Hop::default() };
        assert_eq!(route(RouteType::Unicast, 3), Way::By(hop));
        assert_eq!(route(RouteType::Local, 1), Way::Here);
        assert_eq!(
            [RouteType::Unreachable, RouteType::BlackHole].map(|kind| route(kind, 1)),
            [Way::Nowhere, Way::Nowhere]
        );
    }
}
