//! Counts, for each address, the Services that have it as cluster address: no other Service may claim it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::dense;

/// Number of Services by cluster address. Above 1 only if objects are written by hand.
#[derive(Clone, Debug, Default)]
pub struct ClusterAddresses(BTreeMap<IpAddr, u32>);

impl ClusterAddresses {
    pub fn add(&mut self, addresses: &[IpAddr]) {
        for addr in addresses {
            *self.0.entry(*addr).or_default() += 1;
        }
    }

    pub fn remove(&mut self, addresses: &[IpAddr]) {
        for addr in addresses {
            let Some(count) = self.0.get_mut(addr) else { continue };
            *count -= 1;
            if *count == 0 {
                self.0.remove(addr);
            }
        }
    }

    pub fn condense(&mut self) {
        dense::fill(&mut self.0);
    }

    pub fn count(&self, addr: IpAddr) -> usize {
        self.0.get(&addr).map_or(0, |count| *count as usize)
    }
}
