//! Flows in the kernel's own tables as time passes. Needs root.

use lb_agent::dataplane::garbage::Garbage;
use lb_agent::dataplane::{Dataplane as _, Monitor};
use lb_common::addr::Proto;
use lb_common::garbage::Due;
use lb_common::share;
use lb_common::table::{Counter, Scope};
use lb_common::verdict::HookAction;
use lb_tests::cases::{ACK, FIN, Net, RST, SYN, SYN_ACK, Scene, UDP};
use lb_tests::machine::{EDGE, HostMachine, KernelMachine, Machine as _, Program};
use lb_tests::packet::{Described, Transport};

/// Walks over all flows.
fn walk(machine: &mut KernelMachine) -> Garbage {
    loop {
        if let Some(garbage) = machine.dataplane().collect().expect("walking over the flows") {
            return garbage;
        }
    }
}

/// A flow of each kind, each from its own client port.
fn one_of_each(scene: &mut Scene<'_>) {
    let (net, backend) = (scene.net, scene.net.backend());
    let mut flow = |port: u16, packets: &[(Program, Transport)]| {
        for (program, transport) in packets {
            let client = (net.client().0, port);
            let (from, to) = if *program == Program::WorkloadIngress { (client, net.vip()) } else { (backend, client) };
            scene.through(*program, *transport, from, to);
        }
    };
    let (request, reply) = (Program::WorkloadIngress, Program::WorkloadEgress);
    flow(1001, &[(request, SYN)]);
    flow(1002, &[(request, SYN), (reply, SYN_ACK), (request, ACK)]);
    flow(1003, &[(request, SYN), (reply, SYN_ACK), (request, FIN), (reply, FIN)]);
    flow(1004, &[(request, SYN), (reply, RST)]);
    flow(1005, &[(request, UDP), (reply, UDP)]);
}

#[test]
fn flows_are_deleted_when_their_time_is_over() {
    let mut machine = KernelMachine::load("garbage");
    for net in [Net::V4, Net::V6] {
        machine.reset();
        let mut scene = Scene::new(net, &mut machine);
        for transport in [SYN, UDP] {
            scene.service(transport, &[net.backend()]);
        }
        one_of_each(&mut scene);
        let mut left = 5;
        // Seconds between two walks, and how many flows have timed out by then: closed after 10, half-open 60, UDP 120,
        // established 1 day.
        for (secs, over) in [(0, 0), (9, 0), (2, 2), (48, 0), (2, 1), (58, 0), (2, 1), (86_000, 0), (300, 1)] {
            machine.age_flows(secs);
            let garbage = walk(&mut machine);
            left -= over;
            assert_eq!(garbage.collected, over as u64, "{net:?} after {secs} s more");
            assert_eq!(garbage.flows4 + garbage.flows6, left);
            assert_eq!(machine.flows().len(), 2 * left, "both halves go");
        }
    }
}

/// The agent's copy may be stale: the kernel checks the current time stamps.
#[test]
fn a_flow_that_was_touched_since_is_kept() {
    let mut machine = KernelMachine::load("touched");
    let mut scene = Scene::new(Net::V4, &mut machine);
    scene.service(UDP, &[Net::V4.backend()]);
    scene.request(UDP);
    let keys: Vec<_> = machine.flows().v4.into_keys().collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(machine.dataplane().collect_keys(Due::TimedOut, &keys).expect("asking"), 0);
    machine.age_flows(121);
    // One packet in one direction: it refreshes its own half only.
    let packet = Described::new(UDP, Net::V4.backend(), Net::V4.client());
    machine.run(Program::WorkloadEgress, &packet.bytes());
    assert_eq!(machine.dataplane().collect_keys(Due::TimedOut, &keys).expect("asking"), 0);
    assert_eq!(machine.flows().len(), 2);
    machine.age_flows(121);
    assert_eq!(
        machine.dataplane().collect_keys(Due::TimedOut, &keys).expect("asking"),
        1,
        "one flow, named by both halves"
    );
    assert!(machine.flows().is_empty());
}

/// CT-08: flows of an edge that has too many are deleted according to a copy of the table. Since then a client that
/// closed its connection may have opened another one from the same port.
#[test]
fn a_tuple_that_was_used_again_since_is_kept() {
    let mut machine = KernelMachine::load("reused");
    for net in [Net::V4, Net::V6] {
        machine.reset();
        let mut scene = Scene::new(net, &mut machine);
        scene.service(SYN, &[net.backend()]);
        scene.request(SYN);
        scene.reply(RST, net.backend());
        machine.age_flows(2);
        let before = machine.dataplane().now_jiffies().expect("the time is told");
        let flows = machine.flows();
        let collect = |machine: &mut KernelMachine| {
            let (keys4, keys6): (Vec<_>, Vec<_>) =
                (flows.v4.keys().copied().collect(), flows.v6.keys().copied().collect());
            let due = Due::QuietSince(before);
            let collected = machine.dataplane().collect_keys(due, &keys4).expect("asking");
            collected + machine.dataplane().collect_keys(due, &keys6).expect("asking")
        };
        machine.run(Program::WorkloadIngress, &Described::new(SYN, net.client(), net.vip()).bytes());
        assert_eq!(collect(&mut machine), 0, "{net:?}: it is a new connection's");
        assert_eq!(machine.flows().len(), 2);
        machine.age_flows(2);
        assert_eq!(collect(&mut machine), 1, "{net:?}: one flow, named by both halves");
        assert!(machine.flows().is_empty());
    }
}

/// More flows than one run of the program deletes, and than one step of a walk reads.
#[test]
fn many_flows_are_deleted() {
    let mut machine = KernelMachine::load("many");
    let mut scene = Scene::new(Net::V4, &mut machine);
    scene.service(UDP, &[Net::V4.backend()]);
    for port in 1..=10_000 {
        let client = (Net::V4.client().0, port);
        scene.through(Program::WorkloadIngress, UDP, client, Net::V4.vip());
        scene.through(Program::WorkloadEgress, UDP, Net::V4.backend(), client);
    }
    assert_eq!(walk(&mut machine), Garbage { flows4: 10_000, entries4: 20_000, ..Garbage::default() });
    machine.age_flows(121);
    let garbage = walk(&mut machine);
    assert_eq!((garbage.flows4, garbage.collected), (0, 10_000));
    // The walk reaches either half of a flow first. It then deletes the other only if it has copied both before.
    assert!((10_000..=20_000).contains(&garbage.entries4), "{garbage:?}");
    assert!(machine.flows().is_empty());
}

/// The packets of a flood after its SYNs.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// The backend does not answer.
    Silence,
    /// The backend answers, but no client receives the answer.
    SynAck,
    /// The backend answers with a reset.
    Reset,
    /// The backend does not answer, and the attacker also sends FINs.
    SynFin,
}

impl Flood {
    /// The packets of one spoofed client.
    fn packets(self, net: Net) -> Vec<(Program, Vec<u8>)> {
        let nobody = (net.host(250), 1);
        let request = |transport| (Program::WorkloadIngress, Described::new(transport, nobody, net.vip()).bytes());
        let reply = |transport| (Program::WorkloadEgress, Described::new(transport, net.backend(), nobody).bytes());
        match self {
            Self::Silence => vec![request(SYN)],
            Self::SynAck => vec![request(SYN), reply(SYN_ACK)],
            Self::Reset => vec![request(SYN), reply(RST)],
            Self::SynFin => vec![request(SYN), request(Transport::Tcp(0x03)), request(FIN)],
        }
    }
}

/// Gives the packets another client: another port for each of 60,000 numbers, then another host. No one checks the
/// checksums on the way.
fn renumber(packets: &mut [(Program, Vec<u8>)], net: Net, number: u32) {
    let (host, port) = ((number / 60_000) as u8, (1 + number % 60_000) as u16);
    let (source, destination, ports) = match net {
        Net::V4 => (28, 32, 34),
        Net::V6 => (36, 52, 54),
    };
    for (program, bytes) in packets {
        let (at, port_at) =
            if *program == Program::WorkloadIngress { (source, ports) } else { (destination, ports + 2) };
        bytes[at] = host;
        bytes[port_at..port_at + 2].copy_from_slice(&port.to_be_bytes());
    }
}

/// Opens a connection as an honest client does.
fn connect(scene: &mut Scene<'_>, port: u16) {
    let (client, vip, backend) = ((scene.net.client().0, port), scene.net.vip(), scene.net.backend());
    for (program, transport) in
        [(Program::WorkloadIngress, SYN), (Program::WorkloadEgress, SYN_ACK), (Program::WorkloadIngress, ACK)]
    {
        let (from, to) = if program == Program::WorkloadIngress { (client, vip) } else { (backend, client) };
        let translated = scene.through(program, transport, from, to);
        let expected = if program == Program::WorkloadIngress { (client, backend) } else { (vip, client) };
        assert_eq!(translated, expected, "{transport:?} of port {port}");
    }
}

/// Whether both directions of an established connection are translated.
fn is_open(scene: &mut Scene<'_>, port: u16) -> bool {
    let (client, vip, backend) = ((scene.net.client().0, port), scene.net.vip(), scene.net.backend());
    scene.through(Program::WorkloadIngress, ACK, client, vip) == (client, backend)
        && scene.through(Program::WorkloadEgress, ACK, backend, client) == (vip, client)
}

/// A thousand idle connections, a flood, and as many new connections during the flood.
fn withstand(machine: &mut KernelMachine, net: Net, flood: Flood, tuples: u32) {
    machine.reset();
    let mut scene = Scene::new(net, machine);
    scene.service(SYN, &[net.backend()]);
    for port in 1..=1_000 {
        connect(&mut scene, port);
    }
    let mut spoofed = flood.packets(net);
    for number in 0..tuples {
        renumber(&mut spoofed, net, number);
        for (program, packet) in &spoofed {
            scene.machine().run(*program, packet);
        }
        if number % (tuples / 1_000) == 0 {
            connect(&mut scene, 10_000 + (number / (tuples / 1_000)) as u16);
        }
    }
    let alive = |scene: &mut Scene<'_>, from: u16| (from..from + 1_000).filter(|port| is_open(scene, *port)).count();
    assert_eq!(alive(&mut scene, 1), 1_000, "{net:?} {flood:?}: connections that idled through the flood");
    assert_eq!(alive(&mut scene, 10_000), 1_000, "{net:?} {flood:?}: connections that were opened in it");
    let flows = scene.machine().flows().len() / 2;
    assert!(flows < 2_000 + 2 * 4_096 + 100, "{net:?} {flood:?}: {flows} flows");
}

/// A million spoofed clients, in a table of 32,768 flows.
#[test]
fn open_connections_withstand_a_syn_flood() {
    let mut machine = KernelMachine::load("flood");
    withstand(&mut machine, Net::V4, Flood::Silence, 1_000_000);
    withstand(&mut machine, Net::V6, Flood::Silence, 200_000);
}

/// A client that has received no answer may still send a FIN.
#[test]
fn open_connections_withstand_a_flood_that_closes() {
    let mut machine = KernelMachine::load("closing");
    withstand(&mut machine, Net::V4, Flood::SynFin, 200_000);
    withstand(&mut machine, Net::V6, Flood::SynFin, 50_000);
}

/// The backend answers each of them; that proves nothing about the client.
#[test]
fn open_connections_withstand_a_flood_that_is_answered() {
    let mut machine = KernelMachine::load("answered");
    withstand(&mut machine, Net::V4, Flood::SynAck, 200_000);
    withstand(&mut machine, Net::V4, Flood::Reset, 200_000);
}

/// A reset with a guessed sequence number does not affect a connection, however idle it is afterwards. A reset with a
/// plausible one shortens the time-out only while both ends are idle.
#[test]
fn a_reset_counts_while_both_ends_are_quiet() {
    let mut machine = KernelMachine::load("reset");
    for net in [Net::V4, Net::V6] {
        machine.reset();
        let mut scene = Scene::new(net, &mut machine);
        scene.service(SYN, &[net.backend()]);
        let mut open = |port: u16, goes_on: &[Described]| {
            let client = (net.client().0, port);
            scene.through(Program::WorkloadIngress, SYN, client, net.vip());
            scene.through(Program::WorkloadEgress, SYN_ACK, net.backend(), client);
            scene.through(Program::WorkloadIngress, ACK, client, net.vip());
            for packet in goes_on {
                let is_reply = packet.from == net.backend();
                scene.run(if is_reply { Program::WorkloadEgress } else { Program::WorkloadIngress }, packet);
            }
        };
        let (by_client, by_backend) = (
            |transport, port| Described::new(transport, (net.client().0, port), net.vip()),
            |transport, port| Described::new(transport, net.backend(), (net.client().0, port)),
        );
        open(1001, &[by_client(RST, 1001).seq(0x8000_0000), by_backend(RST, 1001).seq(0x8000_0000)]);
        open(1002, &[by_client(RST, 1002), by_backend(ACK, 1002)]);
        open(1003, &[by_backend(RST, 1003), by_client(ACK, 1003)]);
        open(1004, &[by_client(RST, 1004)]);
        open(1005, &[by_backend(RST, 1005)]);
        // A packet in flight when the client left, and the answer to it.
        open(1006, &[by_client(RST, 1006), by_backend(ACK, 1006), by_client(RST, 1006)]);
        machine.age_flows(11);
        assert_eq!(walk(&mut machine).collected, 3, "{net:?}");
        machine.age_flows(86_000);
        assert_eq!(walk(&mut machine).collected, 0, "{net:?}");
        let flows = machine.flows();
        let ports = flows.v4.keys().map(|key| key.tuple.sport).chain(flows.v6.keys().map(|key| key.tuple.sport));
        let mut ports: Vec<_> = ports.filter(|port| (1001..1010).contains(port)).collect();
        ports.sort_unstable();
        assert_eq!(ports, [1001, 1002, 1003], "{net:?}");
    }
}

/// An edge without tokens gets no answers; another edge does, in both families.
#[test]
fn each_edge_has_its_own_right_to_be_answered() {
    const PER_SEC: u32 = 50;
    KernelMachine::stay_on_one_cpu();
    let mut machine = KernelMachine::load_with("rejects", |settings| settings.rejects_per_sec = PER_SEC);
    for net in [Net::V4, Net::V6] {
        let mut scene = Scene::new(net, &mut machine);
        scene.frontend(1, net.vip(), Proto::UDP, Scope::REJECT);
        let packet = Described::new(UDP, net.client(), net.vip());
        let mut answered = |program, count: u32| -> Vec<bool> {
            (0..count).map(|_| scene.run(program, &packet).0 == HookAction::SendBack).collect()
        };
        let flood = answered(Program::WorkloadIngress, 20 * PER_SEC);
        assert!(flood.iter().any(|is_answered| !is_answered), "{net:?}: there is no limit");
        assert_eq!(answered(Program::UplinkIngress, PER_SEC / 2), [true; PER_SEC as usize / 2], "{net:?}");
    }
}

/// Opens connections by `open` until one is dropped; returns how many there were.
fn fill(scene: &mut Scene<'_>, most: u16, open: impl Fn(&mut Scene<'_>, u16) -> bool) -> u16 {
    (1..=most).find(|port| !open(scene, *port)).map_or(most, |port| port - 1)
}

/// Whether a pod's connection can be opened, or its SYN is dropped.
fn opens(scene: &mut Scene<'_>, port: u16) -> bool {
    let syn = Described::new(SYN, (scene.net.client().0, port), scene.net.vip());
    let is_taken = scene.run(Program::WorkloadIngress, &syn).0 == HookAction::Next;
    if is_taken {
        connect(scene, port);
    }
    is_taken
}

/// A client in the network opens or continues a connection. Returns whether it is translated.
fn from_network(scene: &mut Scene<'_>, transport: Transport, port: u16) -> bool {
    let (client, backend) = ((scene.net.host(200), port), scene.net.backend());
    scene.through(Program::UplinkIngress, transport, client, scene.net.vip()) == (client, backend)
}

/// A table with 3,584 guaranteed entries. Whatever a pod does, the flows of others stay, and they get new ones.
#[test]
fn a_pod_gets_its_share_of_the_flow_table() {
    const IDLE: u16 = 100;
    let mut machine = KernelMachine::load_with("share", |settings| {
        (settings.sizes.flows_max, settings.sizes.pod_flows_percent) = (4_096, 50);
    });
    for net in [Net::V4, Net::V6] {
        machine.reset();
        walk(&mut machine);
        let usable = share::usable(4_096, machine.dataplane().maps().cpus);
        let mut scene = Scene::new(net, &mut machine);
        scene.service(SYN, &[net.backend()]);
        assert!((1..=IDLE).all(|port| from_network(&mut scene, SYN, port)));
        let fits = ((usable - u64::from(2 * IDLE)) / 2 / 2) as u16;
        assert_eq!(fill(&mut scene, 5_000, opens), fits, "{net:?}: half of what the others leave");
        assert!(scene.counters()[&Counter::DropEdgeFlows] > 0);
        assert!((1..=IDLE).all(|port| from_network(&mut scene, ACK, port)), "{net:?}: flows of others stay");
        assert!(from_network(&mut scene, SYN, IDLE + 1), "{net:?}: and there is room for more");
        // Flows that the pod closes make room for new ones, many times over.
        for (port, new) in (1..=fits).zip(10_000..) {
            let client = (net.client().0, port);
            for (program, from, to) in
                [(Program::WorkloadIngress, client, net.vip()), (Program::WorkloadEgress, net.backend(), client)]
            {
                scene.through(program, FIN, from, to);
            }
            assert!(opens(&mut scene, new), "{net:?}: {port} was closed, {new} is new");
        }
        assert!(!opens(&mut scene, 60_000), "{net:?}");
        // The walk makes room by deleting the pod's own longest idle flows.
        machine.age_flows(5);
        let mut scene = Scene::new(net, &mut machine);
        assert!((10_000..10_010).all(|port| is_open(&mut scene, port)));
        let garbage = walk(&mut machine);
        assert_eq!(garbage.crowded, [EDGE].into(), "{net:?}");
        assert!(garbage.trimmed > u64::from(fits) / 5, "{net:?}: {garbage:?}");
        let mut scene = Scene::new(net, &mut machine);
        scene.service(SYN, &[net.backend()]);
        assert!((10_000..10_010).all(|port| is_open(&mut scene, port)), "{net:?}: they were not quiet");
        assert!((1..=IDLE).all(|port| from_network(&mut scene, ACK, port)), "{net:?}: flows of others stay");
        assert!(opens(&mut scene, 60_001), "{net:?}");
    }
}

/// A client that uses its ports for two frontends of one backend port leaves stale ring entries of deleted flows.
/// However many there are, ended flows make room for new ones.
#[test]
fn short_connections_are_never_refused() {
    let mut machine = KernelMachine::load_with("short", |settings| {
        (settings.sizes.flows_max, settings.sizes.pod_flows_percent) = (4_096, 50);
    });
    for net in [Net::V4, Net::V6] {
        machine.reset();
        walk(&mut machine);
        let mut scene = Scene::new(net, &mut machine);
        scene.service(SYN, &[net.backend()]);
        let scope = scene.pool(2, &[net.backend()]);
        scene.frontend(2, net.other_vip(), Proto::TCP, scope);
        for first in (1..=8_000).step_by(8) {
            for vip in [net.vip(), net.other_vip()] {
                for client in (first..first + 8).map(|port| (net.client().0, port)) {
                    let taken = scene.through(Program::WorkloadIngress, SYN, client, vip);
                    assert_eq!(taken, (client, net.backend()), "{vip:?} is dialled");
                    scene.through(Program::WorkloadEgress, SYN_ACK, net.backend(), client);
                    scene.through(Program::WorkloadIngress, ACK, client, vip);
                    scene.through(Program::WorkloadIngress, RST, client, vip);
                }
            }
        }
        assert!(scene.counters()[&Counter::EdgeFlowEvicted] > 1_000, "{net:?}: the share was spent");
    }
}

/// A pod that queries a name server from changing ports is never refused: its own oldest flows are deleted.
#[test]
fn answered_datagrams_make_room_for_others() {
    let mut machine = KernelMachine::load_with("datagrams", |settings| {
        (settings.sizes.flows_max, settings.sizes.pod_flows_percent) = (4_096, 50);
    });
    for net in [Net::V4, Net::V6] {
        machine.reset();
        walk(&mut machine);
        let mut scene = Scene::new(net, &mut machine);
        scene.service(UDP, &[net.backend()]);
        assert!((1..=100).all(|port| from_network(&mut scene, UDP, port)));
        for port in 1..=20_000 {
            let client = (net.client().0, port);
            assert_eq!(scene.through(Program::WorkloadIngress, UDP, client, net.vip()), (client, net.backend()));
            assert_eq!(scene.through(Program::WorkloadEgress, UDP, net.backend(), client), (net.vip(), client));
        }
        let entries = scene.machine().flows().len();
        assert!(entries < 3_584, "{net:?}: {entries} entries");
        assert!((1..=100).all(|port| from_network(&mut scene, UDP, port)), "{net:?}");
    }
}

/// A packet of each kind of event. The datagram that is left alone is of another client in each round.
fn happen(scene: &mut Scene<'_>, round: u16) {
    let net = scene.net;
    let balance = scene.pool(1, &[net.backend()]);
    scene.frontend(1, net.vip(), Proto::TCP, balance);
    scene.frontend(2, net.vip(), Proto::UDP, Scope::PASS);
    scene.frontend(3, net.other_vip(), Proto::TCP, Scope::REJECT);
    scene.frontend(4, net.other_vip(), Proto::UDP, Scope::DROP);
    scene.request(SYN);
    scene.request(ACK);
    let (addr, port) = net.client();
    scene.run(Program::WorkloadIngress, &Described::new(UDP, (addr, port + round), net.vip()));
    scene.run(Program::WorkloadIngress, &Described::new(SYN, net.client(), net.other_vip()));
    scene.run(Program::UplinkIngress, &Described::new(UDP, net.client(), net.other_vip()));
}

/// The programs and the path on the host tell the same of the same packets. The programs do it only while a command listens,
/// and not more often than is wanted.
#[test]
fn what_happens_is_told_to_who_listens() {
    let mut kernel = KernelMachine::load_with("told", |settings| settings.monitor = Monitor::On);
    for net in [Net::V4, Net::V6] {
        let mut host = HostMachine::default();
        happen(&mut Scene::new(net, &mut host), 0);
        assert_eq!(host.take_told(), [], "{net:?}: nothing listens");
        host.forget();
        host.listen();
        happen(&mut Scene::new(net, &mut host), 0);
        let wanted = host.take_told();
        let reasons: Vec<_> = wanted.iter().map(|told| (told.frontend, told.reason)).collect();
        let told = [
            (1, Counter::FlowCreated),
            (2, Counter::PassedProxy),
            (3, Counter::Rejected),
            (4, Counter::DropNoLocalEndpoint),
        ];
        assert_eq!(reasons, told.map(|(frontend, counter)| (frontend, counter as u32)), "{net:?}");
        assert_eq!(wanted[0].backend_port, net.backend().1);

        kernel.reset();
        kernel.listen(1_000);
        happen(&mut Scene::new(net, &mut kernel), 0);
        let mut heard = kernel.take_told();
        for told in &mut heard {
            assert!(told.at_ns > 0 && told.bytes > 0, "{told:?}");
            (told.at_ns, told.bytes) = (0, 0);
        }
        assert_eq!(heard, wanted, "{net:?}");
    }
    let mut scene = Scene::new(Net::V4, &mut kernel);
    let net = scene.net;
    scene.frontend(2, net.vip(), Proto::UDP, Scope::PASS);
    let (addr, port) = net.client();
    let [busy, another] = [port + 3, port + 4];
    for client in [[busy; 50].as_slice(), &[another]].concat() {
        scene.run(Program::WorkloadIngress, &Described::new(UDP, (addr, client), net.vip()));
    }
    let told: Vec<_> = kernel.take_told().iter().map(|told| told.sport).collect();
    let repeated = told.iter().filter(|client| **client == busy).count();
    // A second may end meanwhile.
    assert!(told.contains(&another) && (1..=2).contains(&repeated), "one of a second: {told:?}");
    let lost = kernel.lost();
    kernel.listen(0);
    kernel.reset();
    happen(&mut Scene::new(Net::V4, &mut kernel), 1);
    // The tokens of the second that began above may be left.
    let told = kernel.take_told().len() as u64;
    assert_eq!(kernel.lost() - lost + told, 4, "each is told or counted as lost");
    kernel.dataplane().maps().lease.as_ref().expect("a lease").end().expect("ending it");
    let lost = kernel.lost();
    kernel.reset();
    happen(&mut Scene::new(Net::V4, &mut kernel), 2);
    assert_eq!((kernel.take_told().len(), kernel.lost() - lost), (0, 0), "nothing listens");
}

/// IDs of frontends are used again. The next frontend begins with nothing.
#[test]
fn a_frontend_does_not_inherit_what_was_counted() {
    let mut machine = KernelMachine::load("inherit");
    let net = Net::V4;
    let mut scene = Scene::new(net, &mut machine);
    scene.frontend(7, net.vip(), Proto::TCP, Scope::REJECT);
    scene.run(Program::WorkloadIngress, &Described::new(SYN, net.client(), net.vip()));
    scene.frontend(7, net.vip(), Proto::TCP, Scope::PASS);
    scene.run(Program::WorkloadIngress, &Described::new(SYN, net.client(), net.vip()));
    let counted = |machine: &mut KernelMachine| {
        let drops = machine.drop_counts().into_iter().filter(|(key, _)| key.frontend == 7).count();
        (drops, machine.dataplane().maps().frontend_stats(7).expect("reading").passed_packets)
    };
    assert_eq!(counted(&mut machine).1, 1);
    let mut scene = Scene::new(net, &mut machine);
    scene.frontend(7, net.other_vip(), Proto::TCP, Scope::REJECT);
    assert_eq!(counted(&mut machine), (0, 0), "another frontend with the same ID");
    let mut scene = Scene::new(net, &mut machine);
    scene.frontend(7, net.other_vip(), Proto::TCP, Scope::REJECT);
    scene.run(Program::WorkloadIngress, &Described::new(SYN, net.client(), net.other_vip()));
    assert_eq!(counted(&mut machine), (1, 0));
}
