//! The reference's configuration: what a user would say, not what the tables hold.

use std::net::IpAddr;

use lb_common::addr::Proto;

use crate::packet::End;

/// An address, and how many of its first bits count.
pub type Prefix = (IpAddr, u8);

/// What happens to new connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    Pass,
    Reject,
    Drop,
    /// To one of these backends, or to the one in the slot of the connection's hash. The number is unique to this list
    /// of backends.
    Balance(u32, Vec<End>),
}

/// A frontend.
#[derive(Clone, Debug)]
pub struct Frontend {
    pub id: u32,
    pub end: End,
    pub proto: Proto,
    /// The Service port, which frontends may share.
    pub service: u32,
    pub for_pods: Choice,
    pub for_network: Choice,
    /// The source ranges; `None`: any source may dial.
    pub ranges: Option<Vec<Prefix>>,
    /// The affinity time-out; 0: no affinity.
    pub affinity_secs: u64,
    /// Whether the backends are a Maglev table.
    pub by_hash: bool,
    /// Whether some of the network's backends are on other nodes.
    pub forwards: bool,
}

/// All frontends, and by Service port the endpoints that may continue their established connections, terminating ones
/// included.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub frontends: Vec<Frontend>,
    pub members: Vec<(u32, End)>,
    /// Those that serve for policy Cluster.
    pub cluster: Vec<(u32, End)>,
    /// Those of them on this node.
    pub near: Vec<(u32, End)>,
}

impl Policy {
    pub fn frontend(&self, end: End, proto: Proto) -> Option<&Frontend> {
        self.frontends.iter().find(|frontend| (frontend.end, frontend.proto) == (end, proto))
    }

    /// Whether this is an endpoint of any Service, whatever the protocol.
    pub fn is_endpoint(&self, end: End) -> bool {
        self.members.iter().any(|(_, member)| *member == end)
    }

    pub fn is_in_cluster(&self, service: u32, end: End) -> bool {
        self.cluster.contains(&(service, end))
    }

    pub fn is_near(&self, service: u32, end: End) -> bool {
        self.near.contains(&(service, end))
    }

    pub fn is_member(&self, service: u32, end: End) -> bool {
        self.members.contains(&(service, end))
    }
}

impl Frontend {
    pub const fn choice(&self, is_workload: bool) -> &Choice {
        if is_workload { &self.for_pods } else { &self.for_network }
    }

    /// How many of the ranges contain an address; `None` if the frontend has no ranges.
    pub fn ranges_with(&self, addr: IpAddr) -> Option<usize> {
        let ranges = self.ranges.as_ref()?;
        Some(ranges.iter().filter(|(prefix, length)| begins(addr, *prefix, *length)).count())
    }
}

/// Whether an address begins with the first `length` bits of another of its family.
fn begins(addr: IpAddr, prefix: IpAddr, length: u8) -> bool {
    let bits = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => format!("{:032b}", u32::from(addr)),
        IpAddr::V6(addr) => format!("{:0128b}", u128::from(addr)),
    };
    let length = usize::from(length);
    bits(addr)[..length] == bits(prefix)[..length]
}
