//! The result: rows without IDs. Pools and Service ports are identified by their position in this result.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use lb_common::addr::Proto;
use lb_common::client::PerClient;
use lb_common::table::{Backend, FrontendKey, HeaderVersion, MemberState, Mode, Origin, Rule};

use super::access::Access;
use super::selection::Algorithm;
use crate::model::{ObjectName, Warning};

/// All tables as they should be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Desired {
    pub v4: FamilyDesired<[u8; 4]>,
    pub v6: FamilyDesired<[u8; 16]>,
    /// Indexed by [`ServicePortIndex`]. Each name occurs once.
    pub service_ports: Vec<ServicePortName>,
    /// What could not be done as written.
    pub warnings: Vec<Warning>,
}

/// The tables of one family.
#[derive(Debug, PartialEq, Eq)]
pub struct FamilyDesired<A> {
    pub frontends: BTreeMap<FrontendKey<A>, DesiredFrontend<A>>,
    /// Indexed by [`PoolIndex`]. Each content occurs once and is never empty. Slot by slot: sorted backends, or a
    /// Maglev table.
    pub pools: Vec<Arc<[Backend<A>]>>,
    /// Each (Service port, address, port) once.
    pub members: Vec<DesiredMember<A>>,
}

impl<A> Default for FamilyDesired<A> {
    fn default() -> Self {
        Self { frontends: BTreeMap::new(), pools: Vec::new(), members: Vec::new() }
    }
}

/// One frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredFrontend<A> {
    pub service_port: ServicePortIndex,
    pub mode: Mode,
    pub decided_by: Rule,
    pub origin: Origin,
    pub kube_proxy: KubeProxy,
    /// The PROXY header that connections begin with.
    pub header: Option<HeaderVersion>,
    pub scopes: PerClient<DesiredScope>,
    /// The [`ScopeFlags`](lb_common::table::ScopeFlags) that say which set the pool of each scope is.
    pub pool_flags: PerClient<u8>,
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// Which clients may open a flow, in addition to `scopes`.
    pub access: Access<A>,
    /// Seconds that a client keeps its backend, across all addresses of the Service port. `None`: no affinity.
    pub affinity_secs: Option<NonZeroU32>,
}

/// What a kube-proxy on this node does with an address. It reads the status, but none of our annotations and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubeProxy {
    /// It translates, rejects or drops traffic to the address.
    Claims,
    /// It has no rule for the address.
    LeavesAlone,
}

/// A scope whose pool has no ID yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DesiredScope {
    Pass,
    Reject,
    Drop,
    Balance(PoolIndex),
}

/// Position in [`FamilyDesired::pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolIndex(pub usize);

/// Position in [`Desired::service_ports`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePortIndex(pub usize);

/// A backend whose established flows continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesiredMember<A> {
    pub service_port: ServicePortIndex,
    pub backend: Backend<A>,
    pub state: MemberState,
    /// The [`MemberSets`](lb_common::table::MemberSets) that it belongs to.
    pub sets: u8,
}

/// A Service port. Affinity and membership apply to it across all its addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePortName {
    pub service: Arc<ObjectName>,
    pub port_name: Arc<str>,
    pub proto: Proto,
}

/// `shop/web:http`, or `shop/web` for a port without a name.
impl fmt::Display for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, port_name, proto: _ } = self;
        if port_name.is_empty() { write!(f, "{service}") } else { write!(f, "{service}:{port_name}") }
    }
}
