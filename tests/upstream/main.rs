//! The tables by which kube-proxy's own tests pin its semantics, as tests under the same names
//! (docs/contract.md#upstreams-own-tests): from YAML to desired tables.
//!
//! Deliberate differences are stated in the test. `TestCategorizeEndpoints` concerns the sets behind the tables, and is
//! with them in `lb-agent/src/desired/tests/categorize.rs`.

mod addresses;
mod flows;
mod masquerade;
mod service_map;

use lb_agent::desired::Forwarding;
use std::collections::HashSet;
use std::net::IpAddr;

use Client::{External, Node, Pod};
use lb_agent::desired::{
    Access, Desired, DesiredFrontend, DesiredScope, ExternalIps, FamilyDesired, HeadersFrom, HealthCheckPorts,
    Incumbents, NodePortAddresses, Policy, PoolIndex, Selection, Services, SourcePrefix, TableLimits,
    VendorAnnotations, desired,
};
use lb_agent::family::TableAddr;
use lb_agent::model::{Holder, World};
use lb_agent::source::address;
use lb_agent::source::dir::Folder;
use lb_common::addr::Proto;
use lb_common::table::{Backend, FrontendKey, Mode};

/// The agent's node: addresses and pods as in upstream's fixtures.
const NODE: &str = "kind: Node
metadata: {name: node-1}
status:
  addresses:
  - {type: InternalIP, address: 192.168.0.2}
  - {type: InternalIP, address: 192.168.1.2}
  - {type: InternalIP, address: 'fd00:192::2'}
  - {type: InternalIP, address: 'fd00:193::2'}
";
const NODE_IP: &str = "192.168.0.2";

/// An endpoint on this node, and one on another.
const LOCAL: &str = "{addresses: [10.180.0.1], nodeName: node-1}";
const REMOTE: &str = "{addresses: [10.180.1.1], nodeName: node-2}";

/// The origin of a packet.
#[derive(Clone, Copy, Debug)]
enum Client {
    Pod,
    Node,
    External,
}

/// The objects of a file, read as by the agent.
fn world(yaml: &str) -> World {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    std::fs::write(folder.path().join("a.yaml"), yaml).expect("the temporary folder is writable");
    let mut world = World::default();
    for change in Folder::open(folder.path()).expect("it was made").look(&HashSet::new()) {
        world.apply(change);
    }
    assert!(world.is_readable(), "{:?}", world.warnings().collect::<Vec<_>>());
    world
}

/// The desired tables on [`NODE`], with every kind of address served.
fn all(yaml: &str) -> Desired {
    all_at(yaml, NodePortAddresses::Primary)
}

/// The addresses of the interfaces of [`NODE`].
const INTERFACES: [&str; 6] = ["127.0.0.1", "192.168.0.2", "192.168.1.2", "::1", "fd00:192::2", "fd00:193::2"];

/// The same with `--nodeport-addresses`.
fn all_at(yaml: &str, node_ports: NodePortAddresses) -> Desired {
    let policy = Policy {
        node_name: "node-1".to_owned(),
        services: Services::All,
        default_ip_mode: Mode::VIP,
        proxy_annotations: Vec::new(),
        vendor_annotations: VendorAnnotations::Ignored,
        headers_from: HeadersFrom::Annotation,
        external_ips: ExternalIps::Any,
        cluster_ranges: Vec::new(),
        selection: Selection::default(),
        health_checks: HealthCheckPorts::Left,
        node_ports,
        forwarding: Forwarding::Snat,
    };
    let mut world = world(&format!("{NODE}---\n{yaml}"));
    let addresses = INTERFACES.map(|ip| (ip.parse().expect("an address"), Holder::Node));
    world.set_local_addresses(addresses.into());
    desired(&world, &policy, &TableLimits::UNLIMITED, &Incumbents::NONE)
}

/// The slice of a Service whose port is `port`, with these endpoints.
fn slice(service: &str, port: &str, endpoints: &[&str]) -> String {
    format!(
        "---\nkind: EndpointSlice\nmetadata: {{name: {service}-1, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: IPv4\nports: [{port}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    )
}

/// The result of a new connection: `-` if the address has no frontend, a verdict, or the endpoints.
fn flow(desired: &Desired, client: Client, to: &str) -> String {
    let (to, proto) = to.split_once('/').map_or((to, Proto::TCP), |(to, _)| (to, Proto::UDP));
    let (addr, port) = to.rsplit_once(':').expect("ADDRESS:PORT");
    let port = port.parse().expect("a port");
    match address::parse(addr.trim_matches(['[', ']'])).expect("an address") {
        IpAddr::V4(v4) => family_flow(&desired.v4, client, &FrontendKey { addr: v4.octets(), port, proto, pad: 0 }),
        IpAddr::V6(v6) => family_flow(&desired.v6, client, &FrontendKey { addr: v6.octets(), port, proto, pad: 0 }),
    }
}

fn family_flow<A: TableAddr>(rows: &FamilyDesired<A>, client: Client, key: &FrontendKey<A>) -> String {
    let Some(frontend) = rows.frontends.get(key) else { return "-".to_owned() };
    let choice = match client {
        Client::Pod => frontend.scopes.workload,
        Client::Node => frontend.scopes.host,
        Client::External => frontend.scopes.external,
    };
    match choice {
        DesiredScope::Pass => "PASS".to_owned(),
        DesiredScope::Reject => "REJECT".to_owned(),
        DesiredScope::Drop => "DROP".to_owned(),
        DesiredScope::Balance(PoolIndex(index)) => rows.pools[index].iter().map(backend).collect::<Vec<_>>().join(", "),
    }
}

fn backend<A: TableAddr>(backend: &Backend<A>) -> String {
    std::net::SocketAddr::new(backend.addr.into(), backend.port).to_string()
}
