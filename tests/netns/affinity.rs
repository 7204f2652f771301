//! Session affinity with real sockets.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lb_tests::address::{BALANCERS, FAMILIES, vip};
use lb_tests::lab::Setup;
use lb_tests::manifest::ingress;
use lb_tests::scene::Scene;
use serde_json::json;

/// The last part of the balancer's address.
const NUMBER: u8 = 87;

fn publish(scene: &Scene, affinity: &str, algorithm: &str) {
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, NUMBER), "VIP"));
    let service = scene.service("shop", NUMBER, &entries).spec("sessionAffinity", json!(affinity));
    let service = service.metadata("annotations", json!({"lb-agent.io/lb-algorithm": algorithm}));
    let mut objects = vec![service.object()];
    objects.extend(scene.slices(&service, &["a", "b"]));
    scene.apply("shop", &objects);
}

/// SA-01, SA-03, SA-06: None, ClientIP and None again, each for new connections, with both kinds of selection.
#[test]
fn sa_03_affinity_is_switched_while_clients_dial() {
    let scene = Scene::with_flags(Setup::new("affinity"), &["--maglev-table-size", "251"]);
    let steps = ["random", "maglev"]
        .into_iter()
        .flat_map(|algorithm| ["None", "ClientIP", "None"].map(|affinity| (affinity, algorithm)));
    // A datagram from a port that was used before belongs to a known flow, which keeps its backend (CT-01).
    let mut unused_ports = 20_000_u16..;
    for (affinity, algorithm) in steps {
        publish(&scene, affinity, algorithm);
        for family in FAMILIES {
            let to = vip(family, NUMBER, 80);
            let dials = if affinity == "None" { 64 } else { 20 };
            let tcp: BTreeSet<String> =
                (0..dials).filter_map(|_| scene.dial().tcp(to).who().map(str::to_owned)).collect();
            let client = scene.lab.pod("client").address(family);
            let ports = unused_ports.by_ref().take(dials);
            let dial = |port| scene.dial().bound_to(SocketAddr::new(client, port)).udp(to);
            let udp: BTreeSet<String> = ports.filter_map(|port| dial(port).who().map(str::to_owned)).collect();
            let wanted = if affinity == "None" { 2 } else { 1 };
            assert_eq!((tcp.len(), udp.len()), (wanted, wanted), "{affinity} {algorithm} {family:?}: {tcp:?}, {udp:?}");
        }
    }
}
