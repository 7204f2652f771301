//! Property: after any changes of objects, watches, server and agent, in any order, the tables equal those of the final
//! objects, and a Service that does not change always works.

use std::time::Duration;

use lb_tests::apiserver::{ApiServer, Resource, WatchFault};
use lb_tests::manifest;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::stage::{Stage, put, slice, vip, web};

/// Services that change, by the last number of their addresses: `s2` to `s6`.
const NUMBERS: std::ops::Range<u8> = 2..7;

/// A step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// The Service exists, in this mode.
    Serve {
        number: u8,
        mode: &'static str,
    },
    Withdraw {
        number: u8,
    },
    /// One of its two slices has these endpoints; without endpoints the slice is deleted.
    Endpoints {
        number: u8,
        suffix: &'static str,
        endpoints: Vec<u8>,
    },
    /// These happen without a watch, and are compacted: only a list shows them.
    Unseen(Vec<Step>),
    Watches(WatchFault),
    Compact,
    Duplicates(bool),
    /// Watches end after so many events, or do not.
    ShortWatches(Option<usize>),
    /// Watches are refused, so that changes are not seen.
    Blind(bool),
    /// Lists show the state of so many versions ago, or the current one.
    Lag(Option<u64>),
    HeldLists(Vec<Resource>),
    ServerStops,
    ServerResumes,
    AgentRestarts,
    /// The agent waits so many milliseconds for changes, and then programs those that have arrived. Without waiting it
    /// would see only the end of all.
    Turn(u64),
}

/// A change of objects.
fn edit() -> impl Strategy<Value = Step> {
    let endpoints = proptest::collection::vec(10_u8..20, 0..4);
    let suffix = prop_oneof![Just("a"), Just("b")];
    prop_oneof![
        6 => (NUMBERS, prop_oneof![Just("VIP"), Just("Proxy")]).prop_map(|(number, mode)| Step::Serve { number, mode }),
        3 => NUMBERS.prop_map(|number| Step::Withdraw { number }),
        6 => (NUMBERS, suffix, endpoints)
            .prop_map(|(number, suffix, endpoints)| Step::Endpoints { number, suffix, endpoints }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let faults = [WatchFault::Cut, WatchFault::Expired, WatchFault::Ended];
    prop_oneof![
        15 => edit(),
        3 => proptest::collection::vec(edit(), 1..4).prop_map(Step::Unseen),
        4 => proptest::sample::select(faults.to_vec()).prop_map(Step::Watches),
        2 => Just(Step::Compact),
        1 => any::<bool>().prop_map(Step::Duplicates),
        1 => proptest::option::of(1_usize..4).prop_map(Step::ShortWatches),
        2 => any::<bool>().prop_map(Step::Blind),
        1 => proptest::option::of(1_u64..5).prop_map(Step::Lag),
        1 => proptest::sample::subsequence(Resource::ALL.to_vec(), 0..3).prop_map(Step::HeldLists),
        1 => Just(Step::ServerStops),
        2 => Just(Step::ServerResumes),
        2 => Just(Step::AgentRestarts),
        8 => (0_u64..12).prop_map(Step::Turn),
    ]
}

fn perform(step: &Step, server: &mut ApiServer, stage: &mut Stage, steady_since: u64) {
    match step {
        Step::Serve { number, mode } => {
            let service = web(&format!("s{number}"), *number).ingress(manifest::ingress(vip(*number), mode));
            server.put(service.object());
        }
        Step::Withdraw { number } => {
            server.delete(Resource::Services, "default", &format!("s{number}"));
        }
        Step::Endpoints { number, suffix, endpoints } => {
            let service = format!("s{number}");
            if endpoints.is_empty() {
                server.delete(Resource::EndpointSlices, "default", &format!("{service}-{suffix}"));
            } else {
                server.put(slice(&service, suffix, endpoints).object());
            }
        }
        Step::Unseen(edits) => {
            let mut refused = Resource::ALL.map(|resource| (resource, 500)).into();
            server.misbehave(|faults| std::mem::swap(&mut faults.refused_watches, &mut refused));
            server.afflict_watches(WatchFault::Cut);
            for edit in edits {
                perform(edit, server, stage, steady_since);
            }
            server.compact();
            server.misbehave(|faults| faults.refused_watches = refused);
        }
        Step::Watches(fault) => server.afflict_watches(*fault),
        Step::Compact => server.compact(),
        Step::Duplicates(on) => server.misbehave(|faults| faults.duplicates = *on),
        Step::ShortWatches(max) => server.misbehave(|faults| faults.watch_events_max = *max),
        Step::Blind(on) => server.misbehave(|faults| {
            let all = Resource::ALL.map(|resource| (resource, 500));
            faults.refused_watches = if *on { all.into() } else { [].into() };
        }),
        Step::Lag(by) => {
            // For an agent that has just started, a list from before the steady Service would delete it.
            let version = by.map(|by| server.version().saturating_sub(by).max(steady_since));
            server.misbehave(|faults| faults.outdated = version);
        }
        Step::HeldLists(resources) => {
            server.misbehave(|faults| faults.held_lists = resources.iter().copied().collect());
        }
        Step::ServerStops => server.stop(),
        Step::ServerResumes => server.resume(),
        Step::AgentRestarts => stage.restart(),
        Step::Turn(ms) => {
            std::thread::sleep(Duration::from_millis(*ms));
            stage.turn();
        }
    }
}

/// Ends all faults. Faults of open watches stay.
fn behave(server: &mut ApiServer) {
    server.resume();
    server.misbehave(|faults| {
        faults.duplicates = false;
        faults.watch_events_max = None;
        faults.refused_watches.clear();
        faults.outdated = None;
        faults.held_lists.clear();
    });
}

#[test]
fn any_history_ends_in_what_the_objects_ask_for() {
    let config = Config { max_shrink_iters: 64, ..lb_tests::random::config(48) };
    let result = TestRunner::new(config).run(&proptest::collection::vec(step(), 1..40), |steps| {
        let mut server = ApiServer::start();
        put(&server, crate::stage::service("steady", 1));
        let mut stage = Stage::follow(&server);
        stage.until_in_step_with(&server);
        stage.keep(&["192.0.2.1:80"]);
        let steady_since = server.version();
        for step in &steps {
            perform(step, &mut server, &mut stage, steady_since);
        }
        behave(&mut server);
        stage.until_in_step_with(&server);
        Ok(())
    });
    result.expect("the tables follow the objects");
}
