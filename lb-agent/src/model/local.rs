//! Addresses of this node's interfaces.

/// What an address of this node is for. Where several interfaces have an address, the first variant counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// It is the node's own.
    Node,
    /// It is an address of a Service: kube-proxy in ipvs mode binds these to an interface of its own.
    KubeProxy,
}
