//! Warnings about what is nearly used up: the share of an interface, the flow tables, and the ports for forwarding.

use std::collections::BTreeMap;

use lb_common::table::maps::{FAMILY4, FAMILY6};
use lb_common::table::{EDGE_UPLINK, edge_index};
use lb_common::way::SnatPorts;

use crate::dataplane::garbage::Garbage;
use crate::dataplane::transit::Pair;
use crate::interfaces::LinkFacts;
use crate::model::{Warning, WarningKind};

/// Endpoints that are named; there may be thousands.
const ENDPOINTS_MAX: usize = 8;

/// The sizes that flows use up.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// The size of a flow table, in entries.
    pub flows_max: usize,
    /// `--snat-ports`; None: nothing is forwarded.
    pub snat_ports: Option<SnatPorts>,
}

impl Room {
    /// What a walk over the flows found crowded.
    pub fn warnings(self, found: &Garbage, links: &BTreeMap<u32, LinkFacts>) -> Vec<Warning> {
        let remedy = "find what opens so many connections, or raise --flows-max or --pod-flows-percent";
        let of_edges = found.crowded.iter().map(|edge| {
            let link = links.values().find(|link| edge_index(link.ifindex) == *edge);
            let whose = match link {
                Some(link) => format!("interface {}", link.name),
                None if *edge == EDGE_UPLINK => "the network".into(),
                None => format!("a removed interface ({edge})"),
            };
            let problem =
                format!("{whose} has used up its share of the flow table: its new flows replace its old ones");
            Warning::new(WarningKind::Capacity, problem, remedy)
        });
        let tables = [(FAMILY4.flows.name(), found.entries4), (FAMILY6.flows.name(), found.entries6)];
        let of_tables =
            tables.into_iter().filter(|(_, entries)| *entries * 8 >= self.flows_max * 7).map(|(table, _)| {
                let problem =
                    format!("{table} is more than 7/8 full: a new flow may evict the flow that was quiet for longest");
                Warning::new(WarningKind::Capacity, problem, remedy)
            });
        of_edges.chain(of_tables).chain(self.of_ports(found)).collect()
    }

    /// Endpoints of other nodes towards which most ports are in use. From there on, new flows need several attempts, and
    /// some fail. The text names a share in tens: a number would be another warning with each walk.
    fn of_ports(self, found: &Garbage) -> Vec<Warning> {
        let Some(range) = self.snat_ports else { return Vec::new() };
        let ports = usize::from(range.last - range.first) + 1;
        let scarce = found.port_use.at_least((ports * 4).div_ceil(5), |port| range.contains(port)).take(ENDPOINTS_MAX);
        let warning = |(Pair { node, endpoint, proto }, used): (&Pair, usize)| {
            let tens = used * 10 / ports * 10;
            let proto = proto.name();
            let problem = format!(
                "{tens} % or more of the {ports} ports of {node} are in use for connections that are forwarded to \
                 {endpoint}/{proto}: new ones may be dropped"
            );
            let remedy = "raise --snat-ports (net.ipv4.ip_local_reserved_ports must hold it), or add endpoints";
            Warning::new(WarningKind::Capacity, problem, remedy).at("--snat-ports")
        };
        scarce.map(warning).collect()
    }
}

#[cfg(test)]
mod tests {
    use lb_common::addr::Proto;
    use lb_common::table::{DIRECT, Direction, Flow, FlowKey, FlowState, Tuple};

    use super::*;

    /// The reply entry of a flow to 10.1.0.5, by this port of the node.
    fn reply(edge: u32, port: u16, proto: Proto, frontend: u32) -> (FlowKey<[u8; 4]>, Flow<[u8; 4]>) {
        let tuple = Tuple { src: [10, 1, 0, 5], dst: [192, 0, 2, 2], sport: 8080, dport: port };
        let key = FlowKey { edge, tuple, proto, direction: Direction::Reply, pad: 0 };
        let to = Tuple { src: [203, 0, 113, 7], dst: [198, 51, 100, 9], sport: 80, dport: port };
        let (state, marks) = (FlowState::Established, 0);
        (key, Flow { to, frontend, pool: 1, state, marks, seq_high: 0, last_seen_jiffies: 1 })
    }

    #[test]
    fn ports_are_scarce_from_eighty_percent_on() {
        let room = Room { flows_max: 1 << 18, snat_ports: Some(SnatPorts { first: 61_000, last: 61_009 }) };
        let mut found = Garbage::default();
        let warnings = |found: &Garbage| -> Vec<_> {
            room.warnings(found, &BTreeMap::new()).iter().map(ToString::to_string).collect()
        };
        for port in 61_000..61_007 {
            for (edge, proto, frontend) in [
                (EDGE_UPLINK, Proto::TCP, if port == 61_000 { DIRECT } else { 7 }),
                // None of these takes a port of another flow to that endpoint.
                (EDGE_UPLINK, Proto::UDP, 7),
                (EDGE_UPLINK, Proto::SCTP, 7),
                (3, Proto::TCP, 7),
            ] {
                let (key, flow) = reply(edge, port, proto, frontend);
                found.port_use.add(&key, &flow);
            }
        }
        // Of another range, and one that has ended.
        let (key, flow) = reply(EDGE_UPLINK, 50_000, Proto::TCP, 7);
        found.port_use.add(&key, &flow);
        let (key, flow) = reply(EDGE_UPLINK, 61_009, Proto::TCP, 7);
        found.port_use.add(&key, &Flow { state: FlowState::Closed, ..flow });
        assert!(warnings(&found).iter().all(|warning| !warning.contains("/tcp")), "{:?}", warnings(&found));
        let (key, flow) = reply(EDGE_UPLINK, 61_007, Proto::TCP, 7);
        found.port_use.add(&key, &flow);
        let found: Vec<_> = warnings(&found).into_iter().filter(|warning| warning.contains("/tcp")).collect();
        let [warning] = &found[..] else { panic!("{found:?}") };
        assert!(
            warning.contains("80 % or more of the 10 ports of 192.0.2.2") && warning.contains("10.1.0.5:8080/tcp"),
            "{warning}"
        );
    }
}
