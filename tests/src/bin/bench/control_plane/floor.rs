//! The floor of the first list: the rows that the agent wrote, written again to empty tables.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_agent::dataplane::Sizes;
use lb_agent::dataplane::maps::{FamilyMaps, Maps};
use lb_common::addr::Addr;
use lb_common::table::{Backend, Endpoint, EndpointKey, Frontend, FrontendKey, Member, MemberKey, PoolKey, Scopes};

use crate::ring::PinFolder;

/// The rows of one family, in the order of their keys, as the agent writes them.
struct FamilyRows<A> {
    frontends: Vec<(FrontendKey<A>, Frontend)>,
    pools: Vec<(PoolKey, Backend<A>)>,
    members: Vec<(MemberKey<A>, Member)>,
    endpoints: Vec<(EndpointKey<A>, Endpoint)>,
}

impl<A: Addr> FamilyRows<A> {
    fn of(maps: &FamilyMaps<A>) -> Result<Self> {
        Ok(Self {
            frontends: sorted(maps.frontends.dump()?),
            pools: sorted(maps.pools.dump()?),
            members: sorted(maps.members.dump()?),
            endpoints: sorted(maps.endpoints.dump()?),
        })
    }

    fn write(&self, maps: &FamilyMaps<A>) -> Result<()> {
        maps.pools.upsert(&self.pools)?;
        maps.endpoints.upsert(&self.endpoints, 0)?;
        maps.members.upsert(&self.members, 0)?;
        Ok(maps.frontends.upsert(&self.frontends, 0)?)
    }
}

/// Writes the rows of `written` to new tables of these sizes, by the calls that the agent uses. The bits of the address
/// index are left out: few stores to mapped memory.
pub fn write_again(written: &Maps, sizes: Sizes) -> Result<Duration> {
    let (v4, v6) = (FamilyRows::of(&written.v4)?, FamilyRows::of(&written.v6)?);
    let scopes = (0..written.scopes.len()).filter_map(|id| Some((id, written.scopes.get(id)?)));
    let scopes: Vec<_> = scopes.filter(|(_, scopes)| *scopes != Scopes::PASS).collect();
    let pins = PinFolder::new("first-list");
    let _dataplane = pins.open(sizes)?;
    let mut maps = Maps::open(&pins.maps())?;
    let started = Instant::now();
    v4.write(&maps.v4)?;
    v6.write(&maps.v6)?;
    let are_stored = scopes.iter().all(|(id, scopes)| maps.scopes.store(*id, scopes));
    let took = started.elapsed();
    ensure!(are_stored, "the tables have as many scopes as those of the agent");
    Ok(took)
}

fn sorted<K: Ord, V>(mut rows: Vec<(K, V)>) -> Vec<(K, V)> {
    rows.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    rows
}
