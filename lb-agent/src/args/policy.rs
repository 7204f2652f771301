//! Flags of `run` that say which addresses are served, and how.

use clap::{Args, ValueEnum};
use lb_common::table::Mode;

use super::values::{cidr, node_port_address, table_size};
use super::{NodePortAddress, PortRange, Switch};
use crate::desired::TableSize;
use crate::model::Prefix;

#[derive(Debug, Args)]
#[command(next_help_heading = "Policy")]
pub struct PolicyArgs {
    /// lb: load-balancer addresses only, beside kube-proxy. all: cluster addresses, externalIPs and node ports as well,
    /// in place of kube-proxy. With all, endpoints on this node see their clients' own addresses, where kube-proxy shows the
    /// node's.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Services::Lb)]
    pub services: Services,

    /// Addresses of this node that serve node ports with --services=all, and at which health check node ports are open.
    /// primary: the first InternalIP (else ExternalIP) of each family in the Node's status. all: all addresses of
    /// interfaces. Or prefixes, separated by commas: the addresses of interfaces in them; all of a family of which no
    /// prefix is listed, as kube-proxy does. Never loopback and link-local addresses. Addresses are followed as they come
    /// and go. Each address takes a frontend (--frontends-max) for each node port.
    #[arg(long, value_name = "primary|all|CIDRS", value_delimiter = ',', default_value = "primary", value_parser = node_port_address)]
    pub nodeport_addresses: Vec<NodePortAddress>,

    /// Which externalIPs of Services are served with --services=all. Everyone who may edit a Service can name any
    /// address there, and gets what is sent to that address (CVE-2020-8554). guarded: all but cluster addresses of
    /// other Services, addresses in --cluster-cidrs, and addresses of known Nodes (kube: this Node; dir:PATH: all Nodes
    /// of the folder). any: all, as kube-proxy does. off: none. With each value, cluster addresses and balancers'
    /// addresses win over externalIPs, and no externalIP takes an address that is served already. No effect with
    /// --services=lb: kube-proxy serves externalIPs then.
    #[arg(long, value_enum, default_value_t = ExternalIps::Guarded)]
    pub external_ips: ExternalIps,

    /// The cluster's own ranges, separated by commas: those of cluster addresses (--service-cluster-ip-range of the API
    /// server) and of pods. A guarded externalIP and a load balancer's status get no address in these ranges. Without
    /// this flag, only the cluster addresses that Services have are protected [default: none].
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', value_parser = cidr)]
    pub cluster_cidrs: Vec<Prefix>,

    /// Mode of a load-balancer address whose ingress entry has no ipMode and that no annotation decides.
    #[arg(long, value_enum, ignore_case = true, default_value_t = IpMode::VIP)]
    pub default_ip_mode: IpMode,

    /// Services with this annotation (and value, if given) are Proxy; repeatable. lb-agent.io/ip-mode on the Service
    /// wins over this flag.
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub proxy_annotation: Vec<String>,

    /// Honour the annotations by which known vendors ask for Proxy or VIP. --proxy-annotation wins over these
    /// annotations, and these annotations win over the ipMode of the entry.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Switch::Off)]
    pub vendor_annotations: Switch,

    /// Which annotations let this node add the PROXY header that the balancer would, so that a Service whose backends expect
    /// one is served by the shortcut all the same (TCP only; clients are pods of this node and clients in the network, while
    /// processes of the node go through the balancer). off: none. annotation: lb-agent.io/proxy-protocol: v1 or v2 on the
    /// Service. vendor: that, and annotations by which known vendors' balancers write a header of a stated version. No header
    /// is added where an annotation says that the balancer terminates TLS.
    #[arg(long, value_enum, ignore_case = true, default_value_t = ProxyProtocol::Annotation)]
    pub proxy_protocol: ProxyProtocol,

    /// How a backend is chosen for a new flow. random: all backends are equally likely. maglev: by the hash of the
    /// client's address and port and of the frontend (with session affinity, of the client's address alone), over a
    /// table that is the same on all nodes. Every node chooses the same backend, and few flows change their backend
    /// when backends come and go. A client that knows the hash can choose its backend. lb-agent.io/lb-algorithm on a
    /// Service wins over this flag.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Algorithm::Random)]
    pub lb_algorithm: Algorithm,

    /// Slots of the Maglev table of a set of backends, the same on all nodes: 251, 509, 1021, 2039, 4093, 8191, 16381,
    /// 32749 or 65521. With a hundred times as many slots as backends, the shares of the backends differ by at most 1
    /// %, and few flows move except those of a removed backend. Each table takes about 40 B a slot (default: 40 KiB)
    /// and as many entries of --backends-max; there are up to three for each port of a Service and family (endpoints of
    /// the cluster, and those on this node), none for a single endpoint, and equal sets share one.
    #[arg(long, value_name = "SLOTS", default_value_t = TableSize::DEFAULT.slots(), value_parser = table_size)]
    pub maglev_table_size: u16,

    /// What happens to packets of the network for endpoints on other nodes (externalTrafficPolicy: Cluster). snat: this
    /// node forwards them, with an address of its own and a port of --snat-ports as source; replies come back the same
    /// way. Needs IP forwarding, and an uplink that leads to the other nodes. off: they are balanced to endpoints on this
    /// node, and left to the stack if it has none.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Forwarding::Snat)]
    pub forwarding: Forwarding,

    /// Source ports for what this node forwards: FIRST-LAST. Each endpoint port can have as many connections through this
    /// node at a time. A wider range must be kept from other programs of the node (net.ipv4.ip_local_reserved_ports),
    /// and from the node ports of the cluster.
    #[arg(long, value_name = "FIRST-LAST", default_value_t = PortRange::default())]
    pub snat_ports: PortRange,

    /// Keep kube-proxy's nat rules (iptables and nftables mode) off addresses that an annotation or a flag leaves to
    /// the balancer while the status says VIP or nothing. The guard is an nftables table of its own that holds only
    /// these addresses.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Switch::On)]
    pub guard: Switch,

    /// Whose sockets are translated when they connect or send a datagram (TCP and UDP), before they have a packet. host:
    /// processes of the node and hostNetwork pods, whose packets pass no interface of a pod. all: also those of all other
    /// network namespaces of the machine, pods or not,
    /// which saves the translation of each packet; the programs at the interfaces of pods stay for what is left. A
    /// process then sees the backend only in its packets: getpeername and the source of datagrams show the address that
    /// it dialled. Needs the root of the cgroup v2 tree (in a container, the node's /sys/fs/cgroup).
    #[arg(long, value_enum, ignore_case = true, default_value_t = SocketLb::Host, alias = "host-sockets")]
    pub socket_lb: SocketLb,
}

/// Which kinds of Service address are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Services {
    Lb,
    All,
}

/// Which externalIPs are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExternalIps {
    Guarded,
    Any,
    Off,
}

/// A mode, spelled as in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum IpMode {
    /// Shortcut connections to an endpoint.
    #[value(name = "VIP")]
    VIP,
    /// Leave connections to the external balancer.
    Proxy,
    /// Proxy for traffic that starts on this node, VIP for traffic that the network delivers here.
    Split,
    /// VIP while there are endpoints, else Proxy.
    Router,
}

impl std::convert::From<IpMode> for Mode {
    fn from(mode: IpMode) -> Self {
        match mode {
            IpMode::VIP => Self::VIP,
            IpMode::Proxy => Self::Proxy,
            IpMode::Split => Self::Split,
            IpMode::Router => Self::Router,
        }
    }
}

/// Which annotations ask for a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProxyProtocol {
    Off,
    Annotation,
    Vendor,
}

/// Whether packets of the network are forwarded to other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Forwarding {
    Off,
    Snat,
}

/// Whose sockets are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SocketLb {
    Off,
    #[value(alias = "on")]
    Host,
    All,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Algorithm {
    Random,
    Maglev,
}
