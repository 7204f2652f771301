//! The owners of MACs, and the bridges of interfaces, as the agent wrote them to `ports`.

use lb_common::forward::Whose;
use lb_common::packet::{ETHERNET_LEN, Packet as _};
use lb_common::table::{Port, edge_index};

use crate::maps;
use crate::skb::Skb;

/// The owner of a frame whose destination MAC is not the interface's. A function of its own: few frames need it, and
/// none without a link header.
#[inline(never)]
pub fn whose_frame(skb: Skb<ETHERNET_LEN>) -> Whose {
    let ifindex = skb.ifindex();
    let Some(port) = maps::ports.get(edge_index(ifindex)) else { return Whose::Stranger };
    if port.ifindex != ifindex || port.bridge == 0 {
        return Whose::Stranger;
    }
    let Some(mac) = skb.header::<[u8; 6]>(0) else { return Whose::Stranger };
    if mac == port.mac || port.flags & Port::ANY_MAC != 0 { Whose::Node } else { Whose::Neighbour }
}

/// Whether a packet leaves by what it came in by. From a port of a bridge, it comes to the stack by the bridge.
#[inline(always)]
pub fn has_come_back(skb: Skb<ETHERNET_LEN>) -> bool {
    let (from, to) = (skb.ingress_ifindex(), skb.ifindex());
    if from == to {
        return true;
    }
    from != 0 && maps::ports.get(edge_index(to)).is_some_and(|port| port.ifindex == to && port.bridge == from)
}
