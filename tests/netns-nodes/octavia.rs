//! OpenStack Octavia: a balancer with one address of its own, whose pool is the node port of every node.

mod ranges;
mod snat;
