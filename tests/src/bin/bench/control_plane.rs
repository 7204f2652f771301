//! `cargo xtask bench control-plane`: the agent on the Kubernetes API, from objects to the kernel's tables.
//!
//! The agent is the release build with its real maps, in a network namespace of its own. The API server is that of the
//! tests, over TLS, in this process. A change counts as done when the mapped table `scopes` shows the frontend's new
//! scope: from then on packets follow it.

mod cluster;
mod floor;
mod observed;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lb_agent::dataplane::Sizes;
use lb_agent::dataplane::maps::Maps;
use lb_tests::agent::Agent;
use lb_tests::netns::Netns;

use crate::figures::{Figure, Target, Unit};
use cluster::{Cluster, ENDPOINTS};
use observed::{Log, Usage};

/// What is measured, and how often.
#[derive(Clone, clap::Args)]
pub struct Args {
    /// Numbers of Services, each with 10 endpoints
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 50_000])]
    sizes: Vec<u32>,
    /// Single changes at each size
    #[arg(long, default_value_t = 100)]
    changes: u32,
    /// Turns at each size up to 10,000, the agent and its API server new each time; the figures are their medians.
    /// Larger sizes have one
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    turns: u16,
}

/// The size to which the targets apply.
const TARGET_SIZE: u32 = 10_000;
/// How long the agent may take to become ready.
const START_PATIENCE: Duration = Duration::from_mins(2);
/// How long a change may take.
const CHANGE_PATIENCE: Duration = Duration::from_secs(30);
/// The pause between single changes: afterwards the agent is idle again, its grace periods included.
const PAUSE: Duration = Duration::from_millis(150);
/// The interval of looking at the tables: short compared with the measured times, and it leaves the processor to the
/// agent.
const LOOK: Duration = Duration::from_micros(50);
/// Time for draining, audits and other later work; afterwards memory use is stable.
const REST: Duration = Duration::from_secs(2);

/// All figures, size by size.
pub fn measure(args: &Args) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for size in &args.sizes {
        let turns = if *size > TARGET_SIZE { 1 } else { args.turns };
        let mut of_size: Option<Vec<Figure>> = None;
        for turn in 1..=turns {
            let name = format!("{size} Services, turn {turn} of {turns}");
            let found = at_size(*size, args.changes, &name).with_context(|| name.clone())?;
            of_size = Some(match of_size {
                None => found,
                Some(known) => known.into_iter().zip(found).map(|(known, found)| known.with(found)).collect(),
            });
        }
        figures.extend(of_size.unwrap_or_default());
    }
    Ok(figures)
}

fn at_size(size: u32, changes: u32, name: &str) -> Result<Vec<Figure>> {
    println!("{name}: making the objects, {} endpoints", size * ENDPOINTS);
    let node = Netns::create(&format!("bench{size}"), "node");
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::serve(size, &node);
    let backends_max = (size * ENDPOINTS).max(1 << 15).next_power_of_two() * 2;
    let sizes = Sizes { frontends_max: (size * 2).max(1024), backends_max, ..Sizes::default() };
    let (frontends, backends) = (sizes.frontends_max.to_string(), sizes.backends_max.to_string());
    let flags = ["--frontends-max", &frontends, "--backends-max", &backends];
    let mut agent = Agent::new(&node, folder.path(), folder.path()).following(cluster.kubeconfig()).flags(&flags);

    println!("{name}: the agent starts");
    let started = Instant::now();
    agent.spawn();
    let is_ready = || matches!(agent.page("/readyz"), Some((200, _)));
    wait(START_PATIENCE, Duration::from_millis(2), is_ready).with_context(|| agent.log())?;
    let ready = started.elapsed();
    let first = Log::of(&agent).first_apply().context("the log says when it was listed and programmed")?;
    let maps = Maps::open(&agent.maps())?;
    let mut tables = Tables::find(&maps, size)?;
    let usage_ready = Usage::of(agent.pid())?;
    let floor = floor::write_again(&maps, sizes)?;

    println!("{name}: {changes} single changes");
    let mut single = Vec::new();
    for number in 0..changes {
        thread::sleep(PAUSE);
        let service = number * 7_919 % size;
        single.push(ms(one_change(&mut cluster, &tables, service)?));
    }
    thread::sleep(PAUSE);
    let usage_changed = Usage::of(agent.pid())?;

    println!("{name}: a rolling restart of {} endpoints", size * ENDPOINTS / 100);
    let written = Log::of(&agent).rows();
    let restart = rolling_restart(&mut cluster, &mut tables, size)?;
    thread::sleep(REST);
    let written = Log::of(&agent).rows() - written;
    let usage = Usage::of(agent.pid())?;
    let memlock = observed::memlock(&agent.maps())?;
    ensure!(
        agent.page("/readyz").is_some_and(|(_, text)| text == "ok\n"),
        "the agent is not in step:\n{}",
        agent.log()
    );
    agent.terminate();
    agent.unload();

    let at_target = |bound| if size == TARGET_SIZE { Target::AtMost(bound) } else { Target::None };
    let one = |what: &str, unit, target, value: f64| {
        Figure::new(format!("{size} Services: {what}"), unit, target, vec![value])
    };
    single.sort_by(f64::total_cmp);
    let p99 = single[(single.len() * 99).div_ceil(100) - 1];
    let cpu_change = (usage_changed.cpu_secs - usage_ready.cpu_secs) * 1e3 / f64::from(changes);
    Ok(vec![
        one("first list complete -> programmed", Unit::Millis, at_target(300.0), ms(first)),
        one("floor of that: the same rows written again", Unit::Millis, Target::None, ms(floor)),
        one("first list / floor", Unit::Ratio, at_target(1.3), ms(first) / ms(floor)),
        one("start of the process -> ready", Unit::Millis, Target::None, ms(ready)),
        Figure::new(format!("{size} Services: one slice changes -> maps, p50"), Unit::Millis, Target::None, single),
        one("one slice changes -> maps, p99", Unit::Millis, at_target(20.0), p99),
        one("1 % of endpoints restart -> all in maps", Unit::Millis, Target::None, ms(restart)),
        one("rows written by that", Unit::Count, Target::None, written as f64),
        one("processor time until ready", Unit::Millis, Target::None, usage_ready.cpu_secs * 1e3),
        one("processor time of one change", Unit::Millis, Target::None, cpu_change),
        one("memory at the end (VmRSS)", Unit::Mebibytes, at_target(64.0), usage.rss_mib),
        one("most memory ever (VmHWM)", Unit::Mebibytes, Target::None, usage.peak_mib),
        one("maps (memlock)", Unit::Mebibytes, Target::None, memlock),
    ])
}

/// Replaces an endpoint in one slice: from the write to the API until packets follow it.
fn one_change(cluster: &mut Cluster, tables: &Tables<'_>, service: u32) -> Result<Duration> {
    let before = tables.pool(service);
    cluster.replace_endpoint(service);
    let slice = cluster.slice(service);
    let started = Instant::now();
    cluster.put(slice);
    wait(CHANGE_PATIENCE, LOOK, || tables.pool(service) != before)?;
    Ok(started.elapsed())
}

/// Replaces one endpoint in each of a tenth of the Services, as a rollout does: first the old one terminates, then the
/// new one is ready. All writes are as fast as the API takes them.
fn rolling_restart(cluster: &mut Cluster, tables: &mut Tables<'_>, size: u32) -> Result<Duration> {
    let services: Vec<u32> = (0..size).step_by(100 / ENDPOINTS as usize).collect();
    let before: Vec<u32> = services.iter().map(|service| tables.pool(*service).0).collect();
    let slices = services.iter().flat_map(|service| {
        let leaving = cluster.slice_without_one(*service);
        cluster.replace_endpoint(*service);
        [leaving, cluster.slice(*service)]
    });
    let slices: Vec<_> = slices.collect();
    let (leaving, ready): (Vec<_>, Vec<_>) = slices.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    let started = Instant::now();
    for (_, slice) in leaving.into_iter().chain(ready) {
        cluster.put(slice);
    }
    let is_done = || {
        let mut all = services.iter().zip(&before);
        all.all(|(service, before)| matches!(tables.pool(*service), (pool, 10) if pool != *before))
    };
    wait(CHANGE_PATIENCE, LOOK * 20, is_done)?;
    let took = started.elapsed();
    tables.verify(cluster, &services)?;
    Ok(took)
}

/// The frontends of the Services, in the kernel.
struct Tables<'a> {
    maps: &'a Maps,
    /// IDs, by number of the Service.
    ids: Vec<u32>,
}

impl<'a> Tables<'a> {
    fn find(maps: &'a Maps, size: u32) -> Result<Self> {
        let mut ids = vec![0; size as usize];
        let frontends = maps.v4.frontends.dump()?;
        ensure!(frontends.len() == ids.len(), "{} frontends", frontends.len());
        for (key, frontend) in frontends {
            ids[cluster::service_at(key.addr) as usize] = frontend.id;
        }
        Ok(Self { maps, ids })
    }

    /// The pool of the Service for pods, and its size.
    fn pool(&self, service: u32) -> (u32, u16) {
        let scopes = self.maps.scopes.get(self.ids[service as usize]);
        scopes.map_or((0, 0), |scopes| (scopes.workload.pool, scopes.workload.count))
    }

    /// Checks that the pools hold the desired endpoints.
    fn verify(&self, cluster: &Cluster, services: &[u32]) -> Result<()> {
        let mut rows = self.maps.v4.pools.dump()?;
        rows.sort_unstable_by_key(|(key, _)| *key);
        for service in services {
            let (pool, _) = self.pool(*service);
            let first = rows.partition_point(|(key, _)| key.pool < pool);
            let found = rows[first..].iter().take_while(|(key, _)| key.pool == pool).map(|(_, backend)| backend.addr);
            let (mut found, mut wanted): (Vec<_>, Vec<_>) = (found.collect(), cluster.endpoints(*service));
            found.sort_unstable();
            wanted.sort_unstable();
            ensure!(found == wanted, "Service {service} is on {found:?} and should be on {wanted:?}");
        }
        Ok(())
    }
}

fn wait(patience: Duration, pause: Duration, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + patience;
    while !is_so() {
        if Instant::now() > end {
            bail!("waited {} s in vain", patience.as_secs());
        }
        thread::sleep(pause);
    }
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
