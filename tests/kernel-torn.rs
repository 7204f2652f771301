//! Updates are never seen half-applied: while one core rewrites the tables, packets on the other get a backend of the
//! old or the new set of the dialled Service, and of no other. Needs root; attaches nothing.
//!
//! Between the packet's lookup of its pool and that of a backend in it almost no time passes. That the pool stays valid
//! for so long would rarely be tested. So there is a *crowd* as well: packets that try all allowed ports in vain, each
//! for as long as a delete takes, over a pool that every update replaces.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use lb_agent::dataplane::bpf::BpfDataplane;
use lb_agent::dataplane::{
    AttachBy, BpfLog, Dataplane as _, FamilyTables, Monitor, Repair, Settings, Sizes, SocketLb, Tables, Timeouts, Xdp,
    object, removal,
};
use lb_agent::plan::{Drained, plan};
use lb_agent::realised::Realised;
use lb_common::addr::Proto;
use lb_common::table::{
    Backend, Counter, Frontend, FrontendKey, FrontendState, Member, MemberKey, MemberSets, MemberState, Mode, Origin,
    POOL_ELEMENTS_MAX, PoolKey, Rule, Scope, Scopes, bpf_spin_lock,
};
use lb_common::way::SnatPorts;
use lb_tests::packet::{Answer, Described, Transport, read};

/// Services that are dialled. Each has its own backends in each version: `10.service.version.n`.
const SERVICES: usize = 8;
/// The last ones exist in even versions only.
const BLINKING: std::ops::Range<usize> = 5..SERVICES;
/// Versions that a backend's address can distinguish.
const VERSIONS: u32 = 250;
const PORT: u16 = 80;
const UPDATES: u32 = 200;
/// The time limit, on a machine with other work.
const LIMIT: Duration = Duration::from_mins(4);
const SYN: Transport = Transport::Tcp(2);

/// The crowd's destination, and the frontend that blocks it: another frontend with the same backend, where the client's
/// ports are in use. SCTP cannot use another port.
const CROWDED: ([u8; 4], u32) = ([198, 51, 100, 200], 1001);
const IN_THE_WAY: ([u8; 4], u32) = ([198, 51, 100, 201], 1002);
const CROWD: ([u8; 4], u16) = ([10, 200, 0, 2], 40_000);
const CROWD_BACKEND: Backend<[u8; 4]> = Backend { addr: [10, 201, 0, 1], port: PORT };
/// The first pool element of the crowd, beyond those of the Services.
const CROWD_ELEMENT: u32 = 6000;
/// Pools of each kind with elements of their own: many more than exist at once.
const POOLS: u32 = 1000;
/// Backends of a pool.
const BACKENDS_MAX: u32 = 5;
/// Packets of the crowd in one system call, of some microseconds each.
const CROWD_SIZE: u32 = 128;
/// How often the crowd gets another pool between two updates of the Services.
const CROWD_MOVES: u32 = 2;

/// The versions of one Service that a packet may see now.
#[derive(Default)]
struct Window {
    oldest: AtomicU32,
    newest: AtomicU32,
}

/// The desired state of one Service.
#[derive(Clone, Copy, Default)]
struct Service {
    version: u32,
    pool: u32,
    frontend: u32,
}

#[test]
fn answers_belong_to_the_old_or_the_new_set() {
    let pin_path = std::path::PathBuf::from(format!("/sys/fs/bpf/lb-test-torn-{}", std::process::id()));
    let settings = Settings {
        pin_path: pin_path.clone(),
        sizes: Sizes { frontends_max: 1024, backends_max: 4096, flows_max: 1 << 16, ..Sizes::default() },
        timeouts: Timeouts::default(),
        rejects_per_sec: 1000,
        repair: Repair::Off,
        monitor: Monitor::default(),
        bpf_log: BpfLog::Off,
        sockets: SocketLb::Off,
        attach: AttachBy::Auto,
        xdp: Xdp::Off,
        snat_ports: Some(SnatPorts::DEFAULT),
    };
    let mut dataplane = BpfDataplane::open(&settings).expect("loading the programs (root, Linux 6.6 or newer)");
    let program = pin_path.join("asked");
    object::program_mut(dataplane.ebpf(), "workload_ingress").expect("the program").pin(&program).expect("pinning it");
    let asked = SchedClassifier::from_pin(&program).expect("a second handle of the program");
    std::fs::remove_file(&program).expect("removing the pin of the program");
    removal::remove_pins(&pin_path).expect("removing the pins");

    let windows: [Window; SERVICES] = Default::default();
    let is_over = AtomicBool::new(false);
    let mut updates = Updates::new(&windows, dataplane.address_words());
    updates.publish(&mut dataplane);
    let (asked, updated) = std::thread::scope(|threads| {
        let asker = threads.spawn(|| {
            let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ask(&asked, &windows, &is_over)));
            is_over.store(true, Ordering::Relaxed);
            asked
        });
        let started = Instant::now();
        while updates.published < UPDATES && started.elapsed() < LIMIT && !is_over.load(Ordering::Relaxed) {
            updates.advance();
            updates.publish(&mut dataplane);
            updates.move_crowd(&mut dataplane);
        }
        is_over.store(true, Ordering::Relaxed);
        (asker.join().expect("the asking thread"), updates.published)
    });
    let asked = asked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    println!("{} packets, {} of them during an update; {updated} updates", asked.packets, asked.during_update);
    let counters = dataplane.maps().counters().expect("reading counters");
    let [in_vain, lost] = [Counter::DropNoPort, Counter::DropNoBackend]
        .map(|counter| counters.get(&counter).map_or(0, |value| value.packets));
    println!("{in_vain} packets of the crowd, and {lost} that read which pool it is and found nothing in it");
    assert_eq!(lost, 0, "a pool went while packets were reading it");
    assert!(asked.packets > 10_000 && asked.during_update > 1_000 && updated >= UPDATES, "too little happened");
    assert!(in_vain > 100_000, "the crowd was {in_vain} packets");
}

/// The writer's side.
struct Updates<'a> {
    windows: &'a [Window; SERVICES],
    services: [Service; SERVICES],
    /// Incremented with each update.
    crowd_pool: u32,
    realised: Realised,
    pools: u32,
    frontends: u32,
    published: u32,
}

impl<'a> Updates<'a> {
    fn new(windows: &'a [Window; SERVICES], address_words: u32) -> Self {
        let services = std::array::from_fn(|index| {
            let id = u32::try_from(index).expect("few") + 1;
            Service { version: 0, pool: self::id(id, 1, BACKENDS_MAX), frontend: id }
        });
        let first_free = u32::try_from(SERVICES).expect("few") + 1;
        Self {
            windows,
            services,
            crowd_pool: 1,
            realised: Realised::new(Tables::default(), address_words),
            pools: first_free,
            frontends: first_free,
            published: 0,
        }
    }

    /// Advances some Services to their next version: one, two or all of them.
    fn advance(&mut self) {
        self.crowd_pool += 1;
        let first = self.published as usize % SERVICES;
        let count = [1, 2, SERVICES][self.published as usize % 3];
        for index in (first..first + count).map(|index| index % SERVICES) {
            let service = &mut self.services[index];
            service.version += 1;
            self.pools += 1;
            service.pool = id(self.pools, 1, BACKENDS_MAX);
            if BLINKING.contains(&index) && service.version.is_multiple_of(2) {
                // IDs are quarantined before reuse.
                service.frontend = self.frontends;
                self.frontends = if self.frontends > 1000 { 9 } else { self.frontends + 1 };
            }
            self.windows[index].newest.store(service.version, Ordering::SeqCst);
        }
    }

    /// Gives the crowd another pool and changes nothing else: the delete of the old pool follows the switch at once.
    fn move_crowd(&mut self, dataplane: &mut BpfDataplane) {
        for _ in 0..CROWD_MOVES {
            self.crowd_pool += 1;
            let mut wanted = tables(&self.services);
            insert_crowd(&mut wanted, self.crowd_pool);
            let now_jiffies = dataplane.now_jiffies().expect("asking for the time");
            for op in plan(&self.realised, &self.realised, &wanted, Drained::Unknown, now_jiffies).ops {
                dataplane.perform(&op).expect("writing the tables");
                self.realised.record(op);
            }
        }
    }

    /// Writes the desired tables by the agent's plan.
    fn publish(&mut self, dataplane: &mut BpfDataplane) {
        let mut wanted = tables(&self.services);
        insert_crowd(&mut wanted, self.crowd_pool);
        // The first plan drains frontends, the second deletes them: flows do not matter, because the reader only opens
        // new ones.
        for drained in [Drained::Unknown, Drained::Unless(&BTreeSet::new())] {
            let now_jiffies = dataplane.now_jiffies().expect("asking for the time");
            for op in plan(&self.realised, &self.realised, &wanted, drained, now_jiffies).ops {
                dataplane.perform(&op).expect("writing the tables");
            }
            self.realised.renew(dataplane.dump().expect("dumping the tables"));
        }
        wanted.frontend_ages.clone_from(&self.realised.frontend_ages);
        assert_eq!(*self.realised.tables(), wanted.derived(dataplane.address_words()));
        for (window, service) in self.windows.iter().zip(&self.services) {
            window.oldest.store(service.version, Ordering::SeqCst);
        }
        self.published += 1;
    }
}

fn is_present(index: usize, version: u32) -> bool {
    !BLINKING.contains(&index) || version.is_multiple_of(2)
}

/// The ID of a pool by its number. It is never reused, though a thousand pools later another one begins at the same
/// element.
const fn id(number: u32, first_element: u32, rows_max: u32) -> u32 {
    number / POOLS * POOL_ELEMENTS_MAX + first_element + number % POOLS * rows_max
}

fn vip(index: usize) -> [u8; 4] {
    [198, 51, 100, u8::try_from(index).expect("few")]
}

/// A different number of backends in each version.
fn backends(index: usize, version: u32) -> impl Iterator<Item = Backend<[u8; 4]>> {
    let (service, version) = (u8::try_from(index).expect("few"), u8::try_from(version % VERSIONS).expect("below 250"));
    (1..2 + version % BACKENDS_MAX as u8)
        .map(move |n| Backend { addr: [10, service, version, n], port: 8000 + u16::from(n) })
}

fn tables(services: &[Service; SERVICES]) -> Tables {
    let mut tables = Tables::default();
    for (index, service) in services.iter().enumerate().filter(|(index, service)| is_present(*index, service.version)) {
        insert(&mut tables.v4, index, service);
        let count = backends(index, service.version).count();
        let scope = Scope::balance(service.pool, u16::try_from(count).expect("few"));
        let service_port = u32::try_from(index).expect("few") + 1;
        tables.scopes.insert(service.frontend, Scopes { workload: scope, service_port, ..Scopes::PASS });
    }
    tables
}

const fn frontend(id: u32) -> Frontend {
    Frontend {
        id,
        mode: Mode::VIP,
        decided_by: Rule::IpMode,
        origin: Origin::LoadBalancer,
        state: FrontendState::Active,
        lock: bpf_spin_lock { val: 0 },
    }
}

/// Two frontends with the same backend; one gets another pool each time.
fn insert_crowd(tables: &mut Tables, crowd_pool: u32) {
    for ((addr, id), pool) in [(CROWDED, id(crowd_pool, CROWD_ELEMENT + 1, 1)), (IN_THE_WAY, CROWD_ELEMENT)] {
        tables.v4.frontends.insert(FrontendKey { addr, port: PORT, proto: Proto::SCTP, pad: 0 }, frontend(id));
        tables.v4.pools.insert(PoolKey { pool, slot: 0 }, CROWD_BACKEND);
        let scope = Scope::balance(pool, 1);
        tables.scopes.insert(id, Scopes { workload: scope, service_port: id, ..Scopes::PASS });
    }
}

fn insert(tables: &mut FamilyTables<[u8; 4]>, index: usize, service: &Service) {
    let key = FrontendKey { addr: vip(index), port: PORT, proto: Proto::TCP, pad: 0 };
    tables.frontends.insert(key, frontend(service.frontend));
    for (slot, backend) in (0..).zip(backends(index, service.version)) {
        tables.pools.insert(PoolKey { pool: service.pool, slot }, backend);
        let service_port = u32::try_from(index).expect("few") + 1;
        let key = MemberKey { service_port, addr: backend.addr, port: backend.port, pad: 0 };
        tables.members.insert(key, Member { state: MemberState::Active, sets: MemberSets::CLUSTER, pad: [0; 2] });
    }
}

/// The reader's results.
#[derive(Default)]
struct Asked {
    packets: u64,
    /// Packets during which a Service had two versions.
    during_update: u64,
}

/// The reader's side: new connections to every Service in turn.
fn ask(program: &SchedClassifier, windows: &[Window; SERVICES], is_over: &AtomicBool) -> Asked {
    let mut asked = Asked::default();
    let mut out = vec![0; 256];
    while !is_over.load(Ordering::Relaxed) {
        let (index, port) = (asked.packets as usize % SERVICES, (asked.packets / 8 % 60_000) as u16 + 1);
        let client = (IpAddr::from([10, 200, 0, 1]), port);
        let dialled = (IpAddr::from(vip(index)), PORT);
        let packet = Described::new(SYN, client, dialled).bytes();
        let oldest = windows[index].oldest.load(Ordering::SeqCst);
        let options = TestRunOptions { data_in: Some(&packet), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = program.test_run(options).expect("a test run");
        let newest = windows[index].newest.load(Ordering::SeqCst);
        // TCX_NEXT.
        assert_eq!(result.return_value.cast_signed(), -1, "Service {index} between versions {oldest} and {newest}");
        let Answer::Transport { to, .. } = read(&out[..result.data_size_out as usize]).answer else {
            panic!("no packet with ports")
        };
        let is_right = (oldest..=newest).any(|version| {
            let is_backend = |backend: Backend<[u8; 4]>| (IpAddr::from(backend.addr), backend.port) == to;
            if is_present(index, version) { backends(index, version).any(is_backend) } else { to == dialled }
        });
        assert!(is_right, "Service {index} between versions {oldest} and {newest} was answered by {to:?}");
        crowd(program);
        asked.packets += 1;
        asked.during_update += u64::from(oldest != newest);
    }
    asked
}

/// Packets that are dropped, because the client's ports at the only backend are taken by the first packet's flow,
/// through another frontend.
fn crowd(program: &SchedClassifier) {
    let client = (IpAddr::from(CROWD.0), CROWD.1);
    // TCX_NEXT, TCX_DROP.
    for ((addr, _), repeat, expected) in [(IN_THE_WAY, 1, -1), (CROWDED, CROWD_SIZE, 2)] {
        let packet = Described::new(Transport::Sctp, client, (IpAddr::from(addr), PORT)).bytes();
        let options = TestRunOptions { data_in: Some(&packet), repeat, ..TestRunOptions::default() };
        let result = program.test_run(options).expect("a test run");
        assert_eq!(result.return_value.cast_signed(), expected, "{addr:?}");
    }
}
