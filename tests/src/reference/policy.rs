//! What the reference knows of the configuration: what a person would say of it, not what the tables hold.

use std::net::IpAddr;

use lb_common::addr::Proto;

use crate::packet::End;

/// The first bits of an address, and how many of them count.
pub type Prefix = (IpAddr, u8);

/// What new connections get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    Pass,
    Reject,
    Drop,
    /// One of these backends, or the one in the slot that the connection's hash names; a number that no other set of them
    /// has had.
    Balance(u32, Vec<End>),
}

/// A frontend.
#[derive(Clone, Debug)]
pub struct Frontend {
    pub id: u32,
    pub end: End,
    pub proto: Proto,
    /// The Service port; frontends share it.
    pub service: u32,
    pub for_pods: Choice,
    pub for_network: Choice,
    /// From where it may be dialled; none: from everywhere.
    pub ranges: Option<Vec<Prefix>>,
    /// How long a client keeps its backend; 0: not at all.
    pub affinity_secs: u64,
    /// Whether the backends are a Maglev table.
    pub by_hash: bool,
}

/// All frontends, and by Service port who is or was one of its endpoints and may go on with what it began.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub frontends: Vec<Frontend>,
    pub members: Vec<(u32, End)>,
}

impl Policy {
    pub fn frontend(&self, end: End, proto: Proto) -> Option<&Frontend> {
        self.frontends.iter().find(|frontend| (frontend.end, frontend.proto) == (end, proto))
    }

    /// Of any Service, whatever its protocol.
    pub fn is_endpoint(&self, end: End) -> bool {
        self.members.iter().any(|(_, member)| *member == end)
    }

    pub fn is_member(&self, service: u32, end: End) -> bool {
        self.members.contains(&(service, end))
    }
}

impl Frontend {
    pub const fn choice(&self, is_workload: bool) -> &Choice {
        if is_workload { &self.for_pods } else { &self.for_network }
    }

    /// How many of the ranges hold an address; none where there are no ranges.
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
