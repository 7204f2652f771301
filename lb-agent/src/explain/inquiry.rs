//! Everything that an answer depends on, read once: the pins, routes and rules of this node, and the running agent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use lb_common::addr::{Addr, Family};
use lb_common::table::{PoolKey, ScopeFlags, Uplink};
use lb_common::way::OnUplink;

use super::answer::Frozen;
use super::decision::Facts;
use super::rival::Rival;
use super::sender::{Around, Located, locate};
use super::target;
use super::trial::Ways;
use super::{Destination, Sender};
use crate::args::ExplainArgs;
use crate::ask;
use crate::dataplane::pins::{AffinityRows, FlowRows, Pins};
use crate::dataplane::{Tables, UplinkRows};
use crate::family::TableAddr;
use crate::guard::{Door as _, Found, Table};
use crate::interfaces::survey::{Survey, Way, survey};
use crate::interfaces::{Globs, InterfaceRules};
use crate::known::{Asked, Known, Target};
use crate::kube_proxy;
use crate::model::ObjectName;
use crate::question::Dialled;

/// The most endpoints whose routes are looked up. Beyond that, each is taken to have a way.
const ENDPOINTS_MAX: usize = 4_096;

/// The input of all answers of one command.
pub struct Inquiry {
    pub facts: Facts,
    pub located: Located,
    pub around: Around,
    pub rival: Rival,
    pub frozen: Option<Frozen>,
    /// The destinations that were asked for; the frontends of a Service.
    pub targets: target::Targets,
}

impl Inquiry {
    pub fn read(args: &ExplainArgs) -> anyhow::Result<Self> {
        target::of_one_family(&args.to, args.from.addr())?;
        let pins = Pins::open(&args.pins.pin_path)?;
        let (agent, pin_path) = (args.http.http, &args.pins.pin_path);
        let known = ask::known(agent, pin_path, &asked(args));
        let targets = target::targets(&args.to, args.from.addr(), known.as_ref())
            .with_context(|| format!("--to {} (the agent is asked at {agent})", args.to))?;
        let tables = Arc::new(pins.tables()?);
        let remote = remote_backends(&targets.to, &tables);
        let named = args.from.addr().into_iter().chain(targets.addresses()).chain(remote.iter().copied());
        let survey = block_on(survey(named.collect()))??;
        let judgements = ask::judgements(agent, pin_path).unwrap_or_default();
        let ways = ways(&remote, &survey, &pins.uplinks()?);
        let around = around(&pins, survey, judgements.why, known)?;
        let located = locate(&args.from, &around);
        let mut facts = facts(&pins, tables, &located, args)?;
        (facts.ways, facts.refused) = (ways, judgements.refused);
        let guard = match Table::of_pins(pin_path).read() {
            Ok(Found::Rows(rows)) => rows,
            Ok(Found::Absent | Found::Foreign) | Err(_) => crate::guard::GuardRows::default(),
        };
        let rival = Rival { rules: kube_proxy::rules().unwrap_or_default(), guard };
        let frozen = if around.known.is_some() { None } else { Some(frozen(&pins, agent)?) };
        Ok(Self { facts, located, around, rival, frozen, targets })
    }
}

/// The question to the agent.
fn asked(args: &ExplainArgs) -> Asked {
    let target = match &args.to {
        Dialled::Port(to) => Target::Address(to.addr, Some(to.port)),
        Dialled::Echo(addr) => Target::Address(*addr, None),
        Dialled::Service(service) => Target::Service(ObjectName::new(&service.namespace, &service.name)),
    };
    Asked { client: args.from.addr(), target: Some(target) }
}

fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(future))
}

fn around(pins: &Pins, survey: Survey, told: BTreeMap<u32, String>, known: Option<Known>) -> anyhow::Result<Around> {
    let rules = InterfaceRules { workload: Globs::Auto, uplink: Globs::Auto };
    let judged = survey.interfaces.judged(&rules, &BTreeSet::new());
    let by_itself = judged.iter().filter_map(|(ifindex, judgement)| Some((*ifindex, judgement.class?))).collect();
    // Without an agent, what its flags would have said is not known.
    let why = if known.is_some() { told } else { BTreeMap::new() };
    let attached = pins.attachments()?.iter().map(|attachment| (attachment.ifindex, attachment.class)).collect();
    Ok(Around { survey, attached, by_itself, why, known })
}

fn facts(pins: &Pins, tables: Arc<Tables>, located: &Located, args: &ExplainArgs) -> anyhow::Result<Facts> {
    let agent = args.http.http;
    // What the path itself wrote is read only if the question names a client.
    let names = |family: Family| {
        let is_of = |addr: IpAddr| addr.is_ipv4() == (family == Family::V4);
        located.sender.addr().or(located.bound).is_some_and(is_of)
    };
    let (is_v4, is_v6, is_host) = (names(Family::V4), names(Family::V6), located.sender == Sender::Host);
    Ok(Facts {
        tables,
        address_words: pins.address_words(),
        now_secs: (pins.now_jiffies()? / u64::from(pins.owner()?.jiffies_per_sec)) as u32,
        services: ask::services(agent, &args.pins.pin_path),
        warnings: ask::warnings(agent).unwrap_or_default(),
        flows4: if is_v4 { pins.flows4()? } else { FlowRows::new() },
        flows6: if is_v6 { pins.flows6()? } else { FlowRows::new() },
        affinity4: if is_v4 || is_host { pins.affinity4()? } else { AffinityRows::new() },
        affinity6: if is_v6 || is_host { pins.affinity6()? } else { AffinityRows::new() },
        seen: pins.seen()?,
        is_client_found: located.sending.interface.is_some(),
        unseen: located.unseen.clone(),
        ..Facts::default()
    })
}

/// The endpoints to which packets from the network are forwarded, for these frontends.
fn remote_backends(to: &[Destination], tables: &Tables) -> BTreeSet<IpAddr> {
    fn of<A: TableAddr>(to: &Destination, tables: &Tables) -> Vec<IpAddr> {
        let rows = A::tables(tables);
        let dialled = |addr: A| rows.frontends.iter().filter(move |(key, _)| key.addr == addr && key.port == to.port);
        let found = A::from_ip(to.addr).into_iter().flat_map(dialled);
        let scopes = found.filter_map(|(_, frontend)| tables.scopes.get(&frontend.id)).map(|scopes| scopes.external);
        let forwarding = scopes.filter(|scope| scope.has(ScopeFlags::MASQUERADE));
        let keys = forwarding
            .flat_map(|scope| (0..u32::from(scope.count)).map(move |slot| PoolKey { pool: scope.pool, slot }));
        keys.filter_map(|key| rows.pools.get(&key)).map(|backend| backend.addr.into()).collect()
    }
    to.iter()
        .flat_map(|to| if to.addr.is_ipv4() { of::<[u8; 4]>(to, tables) } else { of::<[u8; 16]>(to, tables) })
        .collect()
}

/// As `reach` of the programs: the route must leave by an uplink, which has an address of the family.
fn ways(remote: &BTreeSet<IpAddr>, survey: &Survey, uplinks: &UplinkRows) -> Ways {
    if remote.len() > ENDPOINTS_MAX {
        return Ways::Assumed;
    }
    let way = |addr: &IpAddr| {
        let Some(Way::By(hop)) = survey.ways.get(addr) else { return None };
        let uplink = uplinks.get(&hop.ifindex).filter(|_| !hop.has_encap)?;
        let source = if addr.is_ipv4() { source::<[u8; 4]>(uplink) } else { source::<[u8; 16]>(uplink) };
        Some((*addr, source?))
    };
    Ways::Known(remote.iter().filter_map(way).collect())
}

fn source<A: Addr + OnUplink>(uplink: &Uplink) -> Option<IpAddr> {
    let source = A::on_uplink(uplink);
    (*source != A::new_zeroed()).then(|| (*source).into())
}

/// No agent answers: the tables have not changed since the last one ran.
fn frozen(pins: &Pins, agent: std::net::SocketAddr) -> anyhow::Result<Frozen> {
    let (now, walked) = (pins.now_jiffies()?, pins.walked_jiffies()?);
    let per_sec = u64::from(pins.owner()?.jiffies_per_sec).max(1);
    let age_secs = (walked != 0).then(|| now.saturating_sub(walked) / per_sec);
    let time = |age_secs: u64| {
        let age = SignedDuration::from_secs(age_secs.try_into().ok()?);
        Timestamp::now().checked_sub(age).ok().map(|time| format!("{time:.0}"))
    };
    let since = age_secs.and_then(time);
    let last = match (&since, age_secs) {
        (Some(since), Some(secs)) => format!("it last looked after them {secs} s ago, at {since}"),
        _ => "it did not run for long enough to walk over the flows once".into(),
    };
    let sentence = format!(
        "no agent of these pins answers at {agent}: the tables stay as the last one left them; {last} (start `lb-agent \
         run`, or name its --http)"
    );
    Ok(Frozen { age_secs, since, sentence })
}
