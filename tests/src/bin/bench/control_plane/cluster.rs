//! The objects: many Services with an address each, their endpoints spread over a hundred nodes.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use lb_tests::apiserver::{ApiServer, Store};
use lb_tests::manifest::{self, NODE, Service};
use lb_tests::netns::Netns;
use serde_json::{Value, json};

/// Endpoints of each Service.
pub const ENDPOINTS: u32 = 10;

const NODES: u32 = 100;
/// First addresses of balancers, of the cluster, and of endpoints.
const BALANCERS: u32 = 0x6440_0000;
const CLUSTER: u32 = 0xac10_0000;
const PODS: u32 = 0x0a00_0000;

/// The API server, and which endpoints each Service has.
pub struct Cluster {
    server: ApiServer,
    /// By Service: numbers of its endpoints.
    endpoints: Vec<Vec<u32>>,
    next_endpoint: u32,
}

impl Cluster {
    /// Writes so many Services to an API server that listens in the namespace.
    pub fn serve(size: u32, netns: &Netns) -> Self {
        let mut store = Store::default();
        store.put(manifest::node(NODE, &[IpAddr::from([192, 168, 0, 1])]));
        let endpoints: Vec<Vec<u32>> =
            (0..size).map(|service| (service * ENDPOINTS..(service + 1) * ENDPOINTS).collect()).collect();
        for (number, endpoints) in (0..).zip(&endpoints) {
            store.put(service(number));
            store.put(slice(number, endpoints, None));
        }
        let server = netns.inside(|| ApiServer::serving(store));
        Self { server, endpoints, next_endpoint: size * ENDPOINTS }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.server.kubeconfig()
    }

    pub fn put(&self, object: Value) {
        self.server.put(object);
    }

    /// Removes the first endpoint of a Service, and adds a new one.
    pub fn replace_endpoint(&mut self, service: u32) {
        let endpoints = &mut self.endpoints[service as usize];
        endpoints.remove(0);
        endpoints.push(self.next_endpoint);
        self.next_endpoint += 1;
    }

    /// The slice of a Service.
    pub fn slice(&self, service: u32) -> Value {
        slice(service, &self.endpoints[service as usize], None)
    }

    /// The slice of a Service while its first endpoint terminates and no longer serves.
    pub fn slice_without_one(&self, service: u32) -> Value {
        let endpoints = &self.endpoints[service as usize];
        slice(service, endpoints, endpoints.first().copied())
    }

    /// Addresses of the endpoints of a Service.
    pub fn endpoints(&self, service: u32) -> Vec<[u8; 4]> {
        self.endpoints[service as usize].iter().map(|number| (PODS + number).to_be_bytes()).collect()
    }
}

/// The number of the Service whose balancer has this address.
pub fn service_at(addr: [u8; 4]) -> u32 {
    u32::from_be_bytes(addr) - BALANCERS
}

fn named(number: u32) -> Service {
    Service::new(&format!("service-{number}"))
}

fn service(number: u32) -> Value {
    let address = |first: u32| IpAddr::from(Ipv4Addr::from(first + number));
    let service = named(number).cluster_ips(&[address(CLUSTER)]).port("http", "TCP", 80, 8080);
    let labels = json!({"app": format!("service-{number}"), "team": format!("team-{}", number % 50)});
    service.metadata("labels", labels).ingress(manifest::ingress(address(BALANCERS), "VIP")).object()
}

/// A slice as the controller writes it.
fn slice(service: u32, endpoints: &[u32], leaving: Option<u32>) -> Value {
    let slice = named(service).slice("x7k2p").port("http", "TCP", 8080);
    let object = endpoints.iter().fold(slice, |slice, number| {
        let is_ready = leaving != Some(*number);
        slice.raw_endpoint(json!({
            "addresses": [Ipv4Addr::from(PODS + number).to_string()],
            "conditions": {"ready": is_ready, "serving": is_ready, "terminating": !is_ready},
            "nodeName": format!("node-{}", number % NODES),
            "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("service-{service}-{number}")},
            "zone": format!("zone-{}", number % 3),
        }))
    });
    object.object()
}
