//! Decides which Services get room if the tables cannot hold everything.
//!
//! First, every Service keeps the rows that it has and still wants: before all others, Services whose rows are
//! unchanged, because they need no further row; then those that want as many rows but different ones. Then the further
//! wishes of each Service are granted as a whole, oldest Service first, while there is room and the namespace has not
//! used up its share. So no working Service is left out because an older one grows.

use super::incumbent::Incumbents;
use super::keep::{is_held, kept};
use super::ledger::{Book, Ledger, Shortage};
use super::of_service::{Notes, OfService};
use super::policy::Limits;
use super::prepare::{PortRows, demand, prepare};
use super::room::{Demand, Neighbour};
use crate::family::TableAddr;

/// How much of its demand a Service gets in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    All,
    /// Only what it has already, for want of room.
    Kept(Shortage),
    Nothing(Shortage),
}

/// The grants of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    pub v4: Grant,
    pub v6: Grant,
}

/// Decides for these Services, sorted by age, beside neighbours that keep what they have. Returns `None` if the
/// neighbours alone do not fit.
pub fn grants<'a>(
    services: &[OfService<'_>],
    neighbours: impl Iterator<Item = &'a Neighbour>,
    limits: &Limits,
    incumbents: &Incumbents<'_>,
) -> Option<Vec<Grants>> {
    let mut ledger = Ledger::new(limits, incumbents);
    for neighbour in neighbours {
        ledger.take(&neighbour.name.namespace, &neighbour.v4);
        ledger.take(&neighbour.name.namespace, &neighbour.v6);
    }
    if ledger.shortage::<[u8; 4]>().is_some() || ledger.shortage::<[u8; 16]>().is_some() {
        return None;
    }
    let (v4, v6) = (keep::<[u8; 4]>(services, incumbents), keep::<[u8; 16]>(services, incumbents));
    let (v4, v6) = (reserve(services, v4, &mut ledger), reserve(services, v6, &mut ledger));
    let grown = services.iter().zip(v4.iter().zip(&v6));
    let grants = grown.map(|(of, (v4, v6))| Grants {
        v4: grow(of, v4.as_ref(), &mut ledger, incumbents),
        v6: grow(of, v6.as_ref(), &mut ledger, incumbents),
    });
    Some(grants.collect())
}

/// The part of a Service's wanted rows that was granted in this family.
pub fn granted<'a, A: TableAddr>(
    of: &OfService<'a>,
    grant: &Grant,
    incumbents: &Incumbents<'_>,
    notes: &mut Notes,
) -> Vec<PortRows<'a, A>> {
    match grant {
        Grant::All => prepare(of, notes),
        Grant::Kept(_) => kept(of, prepare(of, notes), incumbents),
        Grant::Nothing(_) => {
            prepare::<A>(of, notes);
            Vec::new()
        }
    }
}

/// What a Service has and still wants, and whether the tables hold exactly that.
struct Keep<A> {
    demand: Demand<A>,
    is_held: bool,
}

fn keep<A: TableAddr>(services: &[OfService<'_>], incumbents: &Incumbents<'_>) -> Vec<Keep<A>> {
    let keep = |of| {
        let ports = kept(of, prepare::<A>(of, &mut Notes::default()), incumbents);
        Keep { demand: demand(&ports, incumbents), is_held: ports.iter().all(|rows| is_held(of, rows, incumbents)) }
    };
    services.iter().map(keep).collect()
}

/// Reserves the room for what Services keep.
fn reserve<A: Book>(services: &[OfService<'_>], keeps: Vec<Keep<A>>, ledger: &mut Ledger) -> Vec<Option<Demand<A>>> {
    let mut is_there = vec![false; keeps.len()];
    for is_held in [true, false] {
        let turn = keeps.iter().zip(services).zip(&mut is_there);
        for ((keep, of), is_there) in turn.filter(|((keep, _), _)| keep.is_held == is_held) {
            *is_there = keep.demand.frontends > 0 && ledger.keep(&of.name.namespace, &keep.demand);
        }
    }
    keeps.into_iter().zip(is_there).map(|(keep, is_there)| is_there.then_some(keep.demand)).collect()
}

/// Reserves the room for all that the Service wants. If there is none, the Service keeps what it has.
fn grow<A: Book>(
    of: &OfService<'_>,
    kept: Option<&Demand<A>>,
    ledger: &mut Ledger,
    incumbents: &Incumbents<'_>,
) -> Grant {
    let wanted = demand(&prepare::<A>(of, &mut Notes::default()), incumbents);
    if wanted.frontends == 0 || kept == Some(&wanted) {
        return Grant::All;
    }
    let namespace = &of.name.namespace;
    if let Some(kept) = kept {
        ledger.release(namespace, kept);
    }
    match (ledger.admit(namespace, &wanted), kept) {
        (Ok(()), _) => Grant::All,
        (Err(shortage), Some(kept)) => {
            ledger.take(namespace, kept);
            Grant::Kept(shortage)
        }
        (Err(shortage), None) => Grant::Nothing(shortage),
    }
}
