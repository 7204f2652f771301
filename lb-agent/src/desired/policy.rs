//! The settings that decide what the tables say. All are validated, and no `Option` means "default".

use lb_common::table::{Mode, POOL_ELEMENTS_MAX};

use super::selection::Selection;
use crate::model::Prefix;

/// What the operator asked for, as far as the tables depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Name of this node, compared with `nodeName` of endpoints and the names of Nodes.
    pub node_name: String,
    /// `--services`.
    pub services: Services,
    /// `--default-ip-mode`: for ingress entries without a mode.
    pub default_ip_mode: Mode,
    /// `--proxy-annotation`: a Service with one of these annotations is in Proxy mode.
    pub proxy_annotations: Vec<AnnotationMatch>,
    pub vendor_annotations: VendorAnnotations,
    /// `--proxy-protocol`.
    pub headers_from: HeadersFrom,
    /// `--external-ips`.
    pub external_ips: ExternalIps,
    /// `--cluster-cidrs`: addresses that a Service cannot claim by naming them.
    pub cluster_ranges: Vec<Prefix>,
    /// `--lb-algorithm` and `--maglev-table-size`.
    pub selection: Selection,
    /// `--health-check-node-ports`.
    pub health_checks: HealthCheckPorts,
    /// `--nodeport-addresses`.
    pub node_ports: NodePortAddresses,
    /// `--forwarding`.
    pub forwarding: Forwarding,
}

impl Policy {
    /// Whether the addresses of interfaces decide where the node is reached. If so, nothing may be deleted before they
    /// are known.
    pub fn reads_interfaces(&self) -> bool {
        let has_node_ports = self.services == Services::All || self.health_checks == HealthCheckPorts::Served;
        has_node_ports && self.node_ports != NodePortAddresses::Primary
    }
}

/// At which addresses of this node node ports are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The first InternalIP of a family in the Node's status, else the first ExternalIP.
    Primary,
    /// All addresses of the node's interfaces.
    All,
    /// Those in these prefixes. All addresses of a family of which no prefix is listed, as kube-proxy.
    In(Vec<Prefix>),
}

/// What happens to packets of the network for endpoints on other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// They are left to the stack.
    Off,
    /// This node forwards them, with an address of its own as source.
    Snat,
}

/// Whether this node listens on health check node ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthCheckPorts {
    Served,
    /// Another program listens, such as a kube-proxy.
    Left,
}

/// Which addresses of Services are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Services {
    /// Only load-balancer addresses: kube-proxy serves the rest.
    LoadBalancers,
    /// Also cluster addresses, node ports and externalIPs: no kube-proxy runs.
    All,
}

/// Which externalIPs are served, if `Services` includes them. The author of a Service chooses them freely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalIps {
    /// Those that are not addresses of the cluster itself.
    Guarded,
    /// All.
    Any,
    /// None.
    Off,
}

/// Whether the built-in list of vendor annotations is consulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VendorAnnotations {
    Ignored,
    Honoured,
}

/// Which annotations ask for a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadersFrom {
    /// None: no header is ever added.
    Nothing,
    /// Ours.
    Annotation,
    /// Ours, else the vendors'.
    Vendor,
}

/// `KEY` or `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationMatch {
    pub key: String,
    /// `None` means any value.
    pub value: Option<String>,
}

impl std::str::FromStr for AnnotationMatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        if key.is_empty() {
            return Err(format!("{text:?} names no annotation: write KEY or KEY=VALUE"));
        }
        Ok(Self { key: key.to_owned(), value })
    }
}

/// How much fits in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// The largest frontend ID. Both families share the IDs, because IDs index `scopes`.
    pub frontend_ids_max: u32,
    /// Rows of `frontends4`, and likewise of `frontends6`.
    pub frontends_max: u32,
    /// Rows of all pools of a family.
    pub pool_rows_max: u32,
    /// Further rows that are kept free for pools that replace others.
    pub pool_rows_spare: u32,
    /// Elements of `pools4`, and likewise of `pools6`.
    pub pool_elements: u32,
    /// Rows of `members4`, and likewise of `members6`.
    pub members_max: u32,
    /// Rows of `source_ranges4`, and likewise of `source_ranges6`.
    pub source_ranges_max: u32,
    /// `--namespace-share`: the share of each limit that one namespace may use, in per cent.
    pub namespace_percent: u32,
}

/// The most pools that one Service port has in a family: cluster, near and local.
const PORT_POOLS: u32 = 3;

impl TableLimits {
    /// The limit of pool rows if some pools are Maglev tables with this many slots: all pools of a port must fit beside
    /// those that they replace.
    pub fn pool_rows_beside_tables(&self, slots: u16) -> u32 {
        let total = self.pool_rows_max.saturating_add(self.pool_rows_spare);
        total.saturating_sub(self.pool_rows_spare.max(PORT_POOLS * u32::from(slots)))
    }

    /// The limits for one namespace.
    #[must_use]
    pub fn of_namespace(&self) -> Self {
        let share = |max: u32| (u64::from(max) * u64::from(self.namespace_percent) / 100) as u32;
        Self {
            frontend_ids_max: share(self.frontend_ids_max),
            frontends_max: share(self.frontends_max),
            pool_rows_max: share(self.pool_rows_max),
            members_max: share(self.members_max),
            source_ranges_max: share(self.source_ranges_max),
            ..*self
        }
    }

    /// For tests and tools that fill no tables.
    pub const UNLIMITED: Self = Self {
        frontend_ids_max: u32::MAX,
        frontends_max: u32::MAX,
        pool_rows_max: u32::MAX,
        pool_rows_spare: 0,
        pool_elements: POOL_ELEMENTS_MAX - 1,
        members_max: u32::MAX,
        source_ranges_max: u32::MAX,
        namespace_percent: 100,
    };
}
