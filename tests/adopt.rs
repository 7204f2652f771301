//! Restarts at the dataplane: maps of the same shape are adopted, another shape is replaced with its flows kept, pins
//! of others are refused, and unload leaves nothing. Needs root; attaches nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aya::programs::{TestRun as _, TestRunOptions};
use lb_agent::apply::apply;
use lb_agent::dataplane::bpf::BpfDataplane;
use lb_agent::dataplane::maps::Table;
use lb_agent::dataplane::removal::Removal;
use lb_agent::dataplane::{
    AttachBy, BpfLog, Dataplane as _, Error, FamilyOp, Monitor, Op, Repair, Settings, Sizes, SocketLb, Tables,
    Timeouts, Write, Xdp, clsact, object, pins, removal,
};
use lb_agent::plan::{Drained, plan};
use lb_agent::realised::Realised;
use lb_common::addr::Proto;
use lb_common::parse::TcpFlags;
use lb_common::table::maps::{PINNED, SHARED};
use lb_common::table::{
    Affinity, AffinityKey, Backend, Direction, EDGE_UPLINK, Flow, FlowKey, FlowState, FrontendAge, LAYOUT_VERSION,
    Member, MemberKey, MemberSets, MemberState, Owner, POOL_ELEMENTS_MAX, PoolKey, ProxyHeader, Scope, Scopes, Tuple,
    bpf_spin_lock,
};
use lb_common::table::{Frontend, FrontendKey, FrontendState, Mode, Origin, Rule};
use lb_common::way::SnatPorts;
use lb_tests::packet::{Answer, Described, End, Transport, read};

/// A pin directory that is removed with its guard.
struct Pinned(PathBuf);

impl Pinned {
    fn new(name: &str) -> Self {
        Self(format!("/sys/fs/bpf/lb-test-adopt-{name}-{}", std::process::id()).into())
    }

    fn settings(&self, flows_max: u32, frontends_max: u32) -> Settings {
        Settings {
            pin_path: self.0.clone(),
            sizes: Sizes { frontends_max, backends_max: 1024, flows_max, ..Sizes::default() },
            timeouts: Timeouts::default(),
            rejects_per_sec: 1000,
            repair: Repair::Off,
            monitor: Monitor::default(),
            bpf_log: BpfLog::Off,
            sockets: SocketLb::Off,
            attach: AttachBy::Auto,
            xdp: Xdp::Off,
            snat_ports: Some(SnatPorts::DEFAULT),
        }
    }

    fn open(&self, flows_max: u32, frontends_max: u32) -> BpfDataplane {
        BpfDataplane::open(&self.settings(flows_max, frontends_max)).expect("opening the dataplane")
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let removed = removal::remove_pins(&self.0);
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

const VIP: [u8; 4] = [198, 51, 100, 1];

/// One frontend, one backend, one flow of it.
fn fill(dataplane: &mut BpfDataplane) {
    let key = FrontendKey { addr: VIP, port: 80, proto: Proto::TCP, pad: 0 };
    let frontend = Frontend {
        id: 1,
        mode: Mode::VIP,
        decided_by: Rule::IpMode,
        origin: Origin::LoadBalancer,
        state: FrontendState::Active,
        lock: bpf_spin_lock::default(),
    };
    let scopes = Scopes { workload: Scope::balance(1, 1), service_port: 1, ..Scopes::PASS };
    let backend = Backend { addr: [10, 0, 0, 1], port: 8080 };
    for op in [
        Op::V4(FamilyOp::Pools(Write::Upsert(vec![(PoolKey { pool: 1, slot: 0 }, backend)]))),
        Op::Scopes(Write::Upsert(vec![(1, scopes)])),
        Op::V4(FamilyOp::Frontends(Write::Upsert(vec![(key, frontend)]))),
        Op::Settle,
    ] {
        dataplane.perform(&op).expect("writing the tables");
    }
}

fn flow(dataplane: &mut BpfDataplane) -> (FlowKey<[u8; 4]>, Flow<[u8; 4]>) {
    let tuple = Tuple { src: [10, 0, 0, 9], dst: VIP, sport: 40_000, dport: 80 };
    let to = Tuple { dst: [10, 0, 0, 1], dport: 8080, ..tuple };
    let last_seen_jiffies = dataplane.now_jiffies().expect("asking for the time");
    let flow =
        Flow { to, frontend: 1, pool: 1, state: FlowState::Established, marks: 0, seq_high: 0, last_seen_jiffies };
    (FlowKey::new(EDGE_UPLINK, Direction::Request, Proto::TCP, tuple), flow)
}

/// `lb-agent check` tries this, whichever way programs are attached.
#[test]
fn this_kernel_has_what_clsact_needs() {
    assert_eq!(clsact::missing_module().expect("root may make a network namespace"), None);
}

#[test]
fn tables_of_the_same_shape_are_adopted() {
    let pinned = Pinned::new("same");
    let mut first = pinned.open(1024, 64);
    first.activate().expect("activating");
    fill(&mut first);
    let row = flow(&mut first);
    first.maps().v4.flows.upsert(&[row], 0).expect("writing a flow");
    let tables = first.dump().expect("dumping the tables");
    drop(first);
    let mut second = pinned.open(1024, 64);
    assert_eq!(second.dump().expect("dumping the tables"), tables);
    assert_eq!(second.maps().v4.flows.dump().expect("dumping flows"), [row]);
    assert_eq!(second.frontends_in_use().expect("looking for frontends in use"), [1].into());
}

#[test]
fn a_pool_past_the_end_is_refused_and_no_other() {
    let pinned = Pinned::new("end");
    let mut dataplane = pinned.open(1024, 64);
    let row = |pool, slot| (PoolKey { pool, slot }, Backend { addr: [10, 0, 0, 1], port: 8080 });
    // Twice 1024 for both families, and the first element, which is unused.
    let fits = vec![row(POOL_ELEMENTS_MAX + 1, 0), row(2046, 0), row(2046, 1), row(2046, 2)];
    dataplane.perform(&Op::V4(FamilyOp::Pools(Write::Upsert(fits.clone())))).expect("there is room");
    let error =
        dataplane.perform(&Op::V4(FamilyOp::Pools(Write::Upsert(vec![row(2047, 2)])))).expect_err("there is none");
    assert!(matches!(error, Error::Full { map: "pools4", max: 2049, setting: "--backends-max" }), "{error}");
    let pools = |dataplane: &mut BpfDataplane| dataplane.dump().expect("dumping the tables").v4.pools;
    assert_eq!(pools(&mut dataplane), fits.iter().copied().collect());
    // The last key has the element of the first pool, which stays.
    let gone = fits[1..].iter().map(|(key, _)| *key).chain([PoolKey { pool: 1, slot: 0 }]).collect();
    dataplane.perform(&Op::V4(FamilyOp::Pools(Write::Delete(gone)))).expect("they may be deleted");
    assert_eq!(pools(&mut dataplane), fits[..1].iter().copied().collect());
}

#[test]
fn tables_of_another_size_are_replaced_and_keep_the_flows() {
    let pinned = Pinned::new("size");
    let mut first = pinned.open(1024, 64);
    first.activate().expect("activating");
    fill(&mut first);
    let row = flow(&mut first);
    first.maps().v4.flows.upsert(&[row], 0).expect("writing a flow");
    drop(first);

    let mut second = pinned.open(4096, 128);
    assert_eq!(second.maps().v4.flows.max_entries().expect("asking for the size"), 4096);
    assert!(second.dump().expect("dumping the tables").scopes.is_empty(), "new tables are filled anew");
    let before = pins::Pins::open(&pinned.0).expect("opening the pins").tables().expect("dumping the tables");
    assert_eq!(before.scopes.len(), 1, "what is attached goes on with the old tables");
    fill(&mut second);
    second.activate().expect("activating");
    // IDs of pools belong to the old tables.
    let (key, flow) = row;
    let row = (key, Flow { pool: 0, ..flow });
    assert_eq!(second.maps().v4.flows.dump().expect("dumping flows"), [row]);
    assert!(!pinned.0.join("maps-next").exists());
    let tables = second.dump().expect("dumping the tables");
    drop(second);

    let mut third = pinned.open(4096, 128);
    assert_eq!(third.dump().expect("dumping the tables"), tables, "the new shape is adopted");
    assert_eq!(third.maps().v4.flows.dump().expect("dumping flows"), [row]);
    assert_eq!(destination_of_next(&mut third), ([10, 0, 0, 1].into(), 8080), "its packets are translated");
}

/// A client repeats its SYN after the new programs have taken over, and before the rows are copied: the new row has missed
/// the backend's answer.
#[test]
fn a_copied_header_keeps_the_answer_that_a_new_row_missed() {
    let pinned = Pinned::new("header");
    let mut first = pinned.open(1024, 64);
    first.activate().expect("activating");
    let (key, mut flow) = flow(&mut first);
    flow.set_header(true);
    let other = FlowKey { edge: 7, ..key };
    let new = ProxyHeader { next_isn: 1_000, ..ProxyHeader::new(28, true, false) };
    let answered = ProxyHeader { answered: 1, isn: 1_000, snd_max: 1_001, ..new };
    first.maps().v4.flows.upsert(&[(key, flow), (other, flow)], 0).expect("writing flows");
    let headers = |dataplane: &mut BpfDataplane| {
        let mut rows = dataplane.maps().v4.headers.as_ref().expect("a table").dump().expect("dumping headers");
        rows.sort_unstable();
        rows
    };
    let write = |dataplane: &mut BpfDataplane, rows: &[_]| {
        dataplane.maps().v4.headers.as_ref().expect("a table").upsert(rows, 0).expect("writing headers");
    };
    write(&mut first, &[(key, answered), (other, answered)]);
    drop(first);

    let mut second = pinned.open(4096, 128);
    write(&mut second, &[(key, ProxyHeader { next_isn: 5_000, ..new })]);
    second.activate().expect("activating");
    assert_eq!(headers(&mut second), [(key, ProxyHeader { next_isn: 5_000, ..answered }), (other, answered)]);
}

/// Programs of drivers may have been pinned with the maps of another version.
#[test]
fn a_table_with_rows_of_another_size_is_not_read() {
    let pinned = Pinned::new("alike");
    drop(pinned.open(1024, 64));
    let maps = pinned.0.join("maps");
    let found = || Table::find_alike(&maps, SHARED.uplinks).expect("asking for the sizes of rows").is_some();
    assert!(found());
    std::fs::remove_file(maps.join("uplinks")).expect("removing the pin");
    assert!(!found(), "no such table");
    std::fs::rename(maps.join("counters"), maps.join("uplinks")).expect("moving a pin");
    assert!(!found(), "rows of another size");
}

/// A program may write a flow while flows are copied: the copy leaves it, and takes the others.
#[test]
fn a_copy_overwrites_no_flow() {
    let pinned = Pinned::new("copy");
    let mut dataplane = pinned.open(1024, 64);
    let (key, newer) = flow(&mut dataplane);
    let other = FlowKey { edge: 7, ..key };
    let older = Flow { pool: 9, ..newer };
    let flows = &dataplane.maps().v4.flows;
    flows.upsert(&[(key, newer)], 0).expect("writing a flow");
    flows.insert(&[(key, older), (other, older), (key, older)]).expect("copying");
    let mut rows = flows.dump().expect("dumping flows");
    rows.sort_unstable();
    assert_eq!(rows, [(key, newer), (other, older)]);
}

/// What a program returns for a packet, and the packet afterwards.
fn run(dataplane: &mut BpfDataplane, program: &str, packet: &[u8]) -> (i32, Vec<u8>) {
    let mut out = vec![0; packet.len()];
    let options = TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::default() };
    let program = object::program_mut(dataplane.ebpf(), program).expect("a program of the object");
    let result = program.test_run(options).expect("a test run");
    (result.return_value.cast_signed(), out)
}

/// The destination of the flow's next packet.
fn destination_of_next(dataplane: &mut BpfDataplane) -> End {
    let Tuple { src, dst, sport, dport } = flow(dataplane).0.tuple;
    let packet = Described::new(Transport::Tcp(TcpFlags::ACK), (src.into(), sport), (dst.into(), dport)).bytes();
    match read(&run(dataplane, "uplink_ingress", &packet).1).answer {
        Answer::Transport { to, .. } => to,
        answer @ Answer::Icmp { .. } => panic!("not what was sent: {answer:?}"),
    }
}

/// Whether fragments to this address are parked.
fn is_dialled(dataplane: &mut BpfDataplane, addr: [u8; 4]) -> bool {
    waits(dataplane, "uplink_ingress", [192, 0, 2, 9], addr)
}

/// Whether fragments from this address are parked.
fn is_endpoint(dataplane: &mut BpfDataplane, addr: [u8; 4]) -> bool {
    waits(dataplane, "uplink_egress", addr, [192, 0, 2, 9])
}

fn waits(dataplane: &mut BpfDataplane, program: &str, from: [u8; 4], to: [u8; 4]) -> bool {
    let fragment = Described::new(Transport::Udp, (from.into(), 80), (to.into(), 80)).fragment(100, false);
    // include/uapi/linux: TCX_NEXT, TCX_DROP.
    match run(dataplane, program, &fragment.bytes()).0 {
        -1 => false,
        2 => true,
        other => panic!("the program returned {other}"),
    }
}

fn member(number: u32) -> (MemberKey<[u8; 4]>, Member) {
    let key = MemberKey { service_port: 1, addr: (0x0a00_0000 + number).to_be_bytes(), port: 8080, pad: 0 };
    (key, Member { state: MemberState::Active, sets: MemberSets::CLUSTER, pad: [0; 2] })
}

/// Brings the tables to the wanted ones by a plan, and deletes frontends that are not wanted.
fn bring(dataplane: &mut BpfDataplane, wanted: &Tables) {
    let mut realised = Realised::new(dataplane.dump().expect("dumping the tables"), dataplane.address_words());
    let now_jiffies = dataplane.now_jiffies().expect("asking for the time");
    for drained in [Drained::Unknown, Drained::Unless(&BTreeSet::new())] {
        let plan = plan(&realised, &realised, wanted, drained, now_jiffies);
        let report = apply(dataplane, &mut realised, plan);
        assert!(report.is_complete(), "{:?}", report.errors);
    }
    let found = dataplane.dump().expect("dumping the tables");
    let wanted = wanted.clone().derived(dataplane.address_words());
    let balancing = wanted.scopes.iter().filter(|(_, scopes)| scopes.balances()).map(|(id, _)| id);
    assert!(found.frontend_ages.keys().eq(balancing), "{:?}", found.frontend_ages);
    assert_eq!(found, Tables { frontend_ages: found.frontend_ages.clone(), ..wanted });
}

/// The frontend of [`fill`], and these members.
fn with_members(dataplane: &mut BpfDataplane, members: &[(MemberKey<[u8; 4]>, Member)]) -> Tables {
    let mut tables = dataplane.dump().expect("dumping the tables");
    tables.v4.members = members.iter().copied().collect();
    tables
}

/// An address comes and goes with its rows. What an agent that was killed left behind goes with the next plan.
#[test]
fn addresses_follow_their_rows() {
    let pinned = Pinned::new("addresses");
    let mut first = pinned.open(1024, 64);
    first.activate().expect("activating");
    let [stays, goes] = [member(1), member(2)];
    assert!(!is_dialled(&mut first, VIP) && !is_endpoint(&mut first, stays.0.addr));
    fill(&mut first);
    let wanted = with_members(&mut first, &[stays, goes]);
    bring(&mut first, &wanted);
    // Killed between the steps of a plan.
    first.perform(&Op::V4(FamilyOp::Members(Write::Delete(vec![goes.0])))).expect("deleting a member");
    drop(first);

    let mut second = pinned.open(1024, 64);
    let seen = |dataplane: &mut BpfDataplane| {
        let endpoints = [stays, goes].map(|(key, _)| is_endpoint(dataplane, key.addr));
        (is_dialled(dataplane, VIP), endpoints, is_endpoint(dataplane, VIP), is_dialled(dataplane, stays.0.addr))
    };
    assert_eq!(seen(&mut second), (true, [true, true], false, false), "as the first agent left them");
    let wanted = with_members(&mut second, &[stays]);
    bring(&mut second, &wanted);
    second.activate().expect("activating");
    assert_eq!(seen(&mut second), (true, [true, false], false, false), "as the rows are");
    let mut wanted = Tables::default();
    wanted.v4.members.extend([stays]);
    bring(&mut second, &wanted);
    assert_eq!(seen(&mut second), (false, [true, false], false, false));
    bring(&mut second, &Tables::default());
    assert_eq!(seen(&mut second), (false, [false, false], false, false));
}

/// An age outlives the agent. It goes with the last scope that balances, and so does one that a killed agent left.
#[test]
fn a_frontend_keeps_its_age_over_restarts() {
    let pinned = Pinned::new("ages");
    let mut first = pinned.open(1024, 64);
    first.activate().expect("activating");
    fill(&mut first);
    let wanted = with_members(&mut first, &[]);
    let age = |dataplane: &mut BpfDataplane| {
        let ages = dataplane.dump().expect("dumping the tables").frontend_ages;
        ages.into_iter().map(|(id, age)| (id, age.balanced_jiffies)).collect::<Vec<_>>()
    };
    assert_eq!(age(&mut first), [], "written without a plan");
    let before = first.now_jiffies().expect("asking for the time");
    bring(&mut first, &wanted);
    let known = age(&mut first);
    assert!(matches!(known[..], [(1, age)] if age >= before), "{known:?} after {before}");
    let left = FrontendAge { balanced_jiffies: 5 };
    first.perform(&Op::FrontendAges(Write::Upsert(vec![(1, left), (7, left)]))).expect("writing ages");
    drop(first);

    let mut second = pinned.open(1024, 64);
    assert_eq!(age(&mut second), [(1, 5), (7, 5)]);
    bring(&mut second, &wanted);
    assert_eq!(age(&mut second), [(1, 5)]);
    bring(&mut second, &Tables::default());
    assert_eq!(age(&mut second), []);
}

/// Endpoints that are deleted give their room to new ones.
#[test]
fn a_table_full_of_endpoints_is_filled_anew() {
    let pinned = Pinned::new("room");
    let mut dataplane = pinned.open(1024, 64);
    let old: Vec<_> = (1..=1024).map(member).collect();
    let new = member(5_000);
    for members in [&old[..], &[], &[new]] {
        let wanted = with_members(&mut dataplane, members);
        bring(&mut dataplane, &wanted);
    }
    assert!(!is_endpoint(&mut dataplane, member(1).0.addr), "they are deleted");
    assert!(is_endpoint(&mut dataplane, new.0.addr));
}

#[test]
fn a_second_agent_is_refused() {
    let pinned = Pinned::new("lock");
    let _first = pinned.open(1024, 64);
    let Err(Error::Refused(refusal)) = BpfDataplane::open(&pinned.settings(1024, 64)) else {
        panic!("two agents on the same pins");
    };
    let text = refusal.to_string();
    assert!(text.contains("another agent") && text.contains("--pin-path"), "{text}");
    assert!(matches!(removal::unload(&pinned.0), Err(Error::Refused(_))), "unload under a running agent");
    assert!(removal::is_used(&pinned.0).expect("asking"));
    let wait = removal::wait_until_free(&pinned.0, Some(std::time::Duration::ZERO));
    assert!(matches!(wait, Err(Error::Refused(_))), "the time is over");
}

#[test]
fn unload_leaves_nothing() {
    let pinned = Pinned::new("unload");
    drop(pinned.open(1024, 64));
    let unloaded = removal::unload(&pinned.0).expect("unloading");
    assert_eq!((unloaded.links.len(), unloaded.maps.len()), (0, PINNED.len()));
    assert!(!pinned.0.exists());
    assert_eq!(removal::unload(&pinned.0).expect("unloading again"), Removal::default());
}

/// Tables of another version, which had more of them: none stays when the new ones are in use, prevents the start, or
/// outlives `unload`.
#[test]
fn tables_of_unknown_names_are_removed() {
    let pinned = Pinned::new("names");
    let (maps, next) = (pinned.0.join("maps"), pinned.0.join("maps-next"));
    let pin = |directory: &Path| {
        std::fs::hard_link(maps.join("members4"), directory.join("retired4")).expect("a second pin of a map");
    };
    pinned.open(1024, 64).activate().expect("activating");
    pin(&maps);
    // From an agent that ended before its tables were in use.
    std::fs::create_dir(&next).expect("a directory for pins");
    pin(&next);
    pinned.open(4096, 64).activate().expect("activating");
    assert!(!maps.join("retired4").exists() && !next.exists());
    pin(&maps);
    let listed = Removal::of(&pinned.0).expect("listing");
    assert_eq!((listed.maps.len(), listed.links.len(), listed.left.len()), (PINNED.len() + 1, 0, 0));
    // What was listed is what is removed.
    assert_eq!(removal::unload(&pinned.0).expect("unloading"), listed);
    assert!(!pinned.0.exists());
}

/// An agent of a later version was killed before its tables were in use. One of them has a name that this version does
/// not know, so it stays, and prevents nothing.
#[test]
fn tables_of_a_later_version_prevent_no_start() {
    let pinned = Pinned::new("later");
    pinned.open(1024, 64).activate().expect("activating");
    let next = pinned.0.join("maps-next");
    std::fs::create_dir(&next).expect("a directory for pins");
    let created = std::process::Command::new("bpftool")
        .args(["map", "create", &next.join("later4").display().to_string()])
        .args(["type", "array", "key", "4", "value", "4", "entries", "1", "name", "later4"])
        .status();
    assert!(created.is_ok_and(|status| status.success()), "bpftool makes a map");
    for _ in 0..2 {
        pinned.open(1024, 64).activate().expect("activating over the pinned maps");
    }
    pinned.open(4096, 64).activate().expect("activating other sizes");
    assert_eq!(std::fs::read_dir(&next).expect("the directory").count(), 1);
    std::fs::remove_file(next.join("later4")).expect("removing the map");
}

/// The pins of an older version lack a map that only the programs write: the others are used as they are.
#[test]
fn an_older_version_without_a_map_of_the_programs_is_adopted() {
    let pinned = Pinned::new("older");
    let mut first = pinned.open(1024, 64);
    first.activate().expect("activating");
    first.maps().v4.affinity.upsert(&[client()], 0).expect("writing a client");
    drop(first);
    for name in ["drops4", "drops6"] {
        std::fs::remove_file(pinned.0.join("maps").join(name)).expect("removing a pin");
    }
    let second = pinned.open(1024, 64);
    assert!(!pinned.0.join("maps-next").exists(), "the maps are not replaced");
    assert_eq!(second.maps().v4.affinity.dump().expect("reading clients"), [client()]);
    assert!(pinned.0.join("maps/drops4").exists());
}

/// The pins of a version that claims to keep connections as this one does, with rows of another size: they are replaced,
/// and nothing is read from them.
#[test]
fn rows_of_connections_with_another_size_are_not_read() {
    let pinned = Pinned::new("rows");
    let first = pinned.open(1024, 64);
    first.maps().set_owner(&Owner { layout_version: LAYOUT_VERSION + 1, ..owner(&first) }).expect("writing the owner");
    drop(first);
    let flows = pinned.0.join("maps/flows4");
    std::fs::remove_file(&flows).expect("removing a pin");
    let created = std::process::Command::new("bpftool")
        .args(["map", "create", &flows.display().to_string()])
        .args(["type", "lru_hash", "key", "20", "value", "400", "entries", "64", "name", "flows4"])
        .status();
    assert!(created.is_ok_and(|status| status.success()), "bpftool makes a map");
    let mut second = pinned.open(1024, 64);
    second.activate().expect("activating");
    assert_eq!(second.maps().v4.flows.dump().expect("dumping flows"), []);
    assert_eq!(owner(&second).layout_version, LAYOUT_VERSION);
}

fn owner(dataplane: &BpfDataplane) -> Owner {
    dataplane.maps().owner().expect("reading the owner")
}

/// The pins of an older version lack a table that the agent writes: the tables are replaced, and flows stay.
#[test]
fn an_older_version_without_a_table_of_the_agent_is_replaced_and_keeps_the_flows() {
    let pinned = Pinned::new("nouplinks");
    let mut dataplane = pinned.open(1024, 64);
    fill(&mut dataplane);
    dataplane.activate().expect("activating");
    let (key, kept) = flow(&mut dataplane);
    dataplane.maps().v4.flows.upsert(&[(key, kept)], 0).expect("writing a flow");
    drop(dataplane);
    std::fs::remove_file(pinned.0.join("maps/uplinks")).expect("removing a pin");
    let mut dataplane = pinned.open(1024, 64);
    fill(&mut dataplane);
    dataplane.activate().expect("the tables are complete");
    let rows = dataplane.maps().v4.flows.dump().expect("dumping flows");
    assert!(rows.iter().any(|(known, flow)| (*known, flow.to) == (key, kept.to)), "{rows:?}");
    dataplane.set_uplinks(&[(2, lb_common::table::Uplink::UNNUMBERED)].into()).expect("the table is there again");
}

/// An agent was killed while it moved its new maps to the place of the old ones. The programs use the new ones by then.
#[test]
fn a_move_that_was_interrupted_is_finished() {
    let pinned = Pinned::new("moved");
    let (maps, next) = (pinned.0.join("maps"), pinned.0.join("maps-next"));
    pinned.open(1024, 64).activate().expect("activating");
    let second = pinned.open(4096, 64);
    second.maps().v4.affinity.upsert(&[client()], 0).expect("writing a client");
    for name in ["frontends4", "frontends6", "pools4"] {
        std::fs::rename(next.join(name), maps.join(name)).expect("moving a pin");
    }
    drop(second);
    let third = pinned.open(4096, 64);
    assert!(!next.exists(), "all have moved");
    assert_eq!(third.maps().v4.affinity.dump().expect("reading clients"), [client()]);
}

/// An agent was killed while it replaced maps, after programs had made flows in the new ones.
#[test]
fn a_replacement_that_was_interrupted_is_resumed() {
    let pinned = Pinned::new("resumed");
    let mut first = pinned.open(1024, 64);
    first.activate().expect("activating");
    let (old, row) = flow(&mut first);
    let mut new = old;
    new.tuple.sport += 1;
    first.maps().v4.flows.upsert(&[(old, row)], 0).expect("writing a flow");
    drop(first);
    let second = pinned.open(4096, 64);
    second.maps().v4.flows.upsert(&[(new, row)], 0).expect("writing a flow");
    drop(second);
    let mut third = pinned.open(4096, 64);
    third.activate().expect("activating");
    let flows = third.maps().v4.flows.dump().expect("reading flows");
    assert_eq!(flows.into_iter().map(|(key, _)| key).collect::<BTreeSet<_>>(), [old, new].into());
    assert!(!pinned.0.join("maps-next").exists());
}

/// What session affinity remembers of a client.
fn client() -> (AffinityKey<[u8; 4]>, Affinity<[u8; 4]>) {
    let key = AffinityKey { service_port: 1, client: [10, 0, 0, 9] };
    (key, Affinity { addr: [10, 0, 0, 1], port: 8080, pad: 0, last_seen_secs: 1 })
}

#[test]
fn a_path_that_is_no_bpffs_is_refused() {
    let mut settings = Pinned::new("elsewhere").settings(1024, 64);
    settings.pin_path = Path::new("/tmp/lb-test-adopt-no-bpffs").into();
    let Err(Error::Refused(refusal)) = BpfDataplane::open(&settings) else { panic!("pins in an ordinary folder") };
    let text = refusal.to_string();
    assert!(text.contains("no BPF file system"), "{text}");
    assert!(!settings.pin_path.exists());
}
