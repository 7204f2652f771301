//! Decides which Services get room if the tables cannot hold everything.
//!
//! First, every Service keeps the rows that it has and still wants: before all others, Services whose rows are
//! unchanged, because they need no further row; then those that want as many rows but different ones. Then the further
//! wishes of each Service are granted as a whole, oldest Service first, while there is room and the namespace has not
//! used up its share. So no working Service is left out because an older one grows.

use std::borrow::Cow;

use super::applicant::Applicant;
use super::demand::Demand;
use super::incumbent::Incumbents;
use super::keep::{is_held, kept};
use super::ledger::{Book, Ledger, Shortage, TABLE_SLOTS, Take};
use super::policy::TableLimits;
use super::service_rows::{FamilyRows, ServiceRows};
use crate::model::{ObjectName, Warning, WarningKind};

const SMALLER_TABLES: &str =
    "raise --backends-max, lower --maglev-table-size, or annotate Services with lb-agent.io/lb-algorithm: random";

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

impl Grants {
    pub const ALL: Self = Self { v4: Grant::All, v6: Grant::All };

    /// The part of the wanted rows that is granted.
    pub fn of(&self, rows: &ServiceRows, incumbents: &Incumbents<'_>) -> ServiceRows {
        let (v4, v6) = (granted(rows, &self.v4, incumbents), granted(rows, &self.v6, incumbents));
        rows.with(v4, v6, Vec::new())
    }

    /// A warning for each family that is not granted as a whole.
    pub fn warnings(&self, service: &ObjectName) -> impl Iterator<Item = Warning> {
        [&self.v4, &self.v6].into_iter().filter_map(move |grant| match grant {
            Grant::All => None,
            Grant::Kept(shortage) => Some(no_room(service, shortage, true)),
            Grant::Nothing(shortage) => Some(no_room(service, shortage, false)),
        })
    }
}

fn granted<A: Book>(rows: &ServiceRows, grant: &Grant, incumbents: &Incumbents<'_>) -> FamilyRows<A> {
    match grant {
        Grant::All => A::rows(rows).clone(),
        Grant::Kept(_) => kept(rows, incumbents),
        Grant::Nothing(_) => FamilyRows::default(),
    }
}

/// The grants of these Services, which are sorted by age.
pub fn grants(applicants: &[Applicant<'_>], limits: &TableLimits, incumbents: &Incumbents<'_>) -> Vec<Grants> {
    if all_fit(applicants, limits, incumbents) {
        return vec![Grants::ALL; applicants.len()];
    }
    let mut ledger = Ledger::new(limits, incumbents);
    let (v4, v6) = (keep::<[u8; 4]>(applicants, incumbents), keep::<[u8; 16]>(applicants, incumbents));
    let (v4, v6) = (reserve(applicants, v4, &mut ledger), reserve(applicants, v6, &mut ledger));
    let grown = applicants.iter().zip(v4.iter().zip(&v6));
    let grants = grown.map(|(of, (v4, v6))| Grants {
        v4: grow(of, v4.as_deref(), &mut ledger, incumbents),
        v6: grow(of, v6.as_deref(), &mut ledger, incumbents),
    });
    grants.collect()
}

/// Whether everything fits, even in the share of a single namespace.
fn all_fit(applicants: &[Applicant<'_>], limits: &TableLimits, incumbents: &Incumbents<'_>) -> bool {
    let mut ledger = Ledger::new(&limits.of_namespace(), incumbents);
    applicants.iter().all(|of| {
        let namespace = &of.rows.name.namespace;
        ledger.keep(namespace, wish::<[u8; 4]>(of, incumbents))
            && ledger.keep(namespace, wish::<[u8; 16]>(of, incumbents))
    })
}

/// All that the Service wants.
fn wish<'a, A: Book>(of: &'a Applicant<'_>, incumbents: &Incumbents<'_>) -> Take<'a, A> {
    let is_new = |key: &&_| !incumbents.has_row(*key);
    let new_frontends = if of.is_settled { 0 } else { A::rows(of.rows).keys().filter(is_new).count() };
    Take { demand: A::demand(of), new_frontends }
}

/// What the Service has needs no new frontend.
const fn known<A>(demand: &Demand<A>) -> Take<'_, A> {
    Take { demand, new_frontends: 0 }
}

/// What a Service has and still wants, and whether the tables hold exactly that.
struct Keep<'a, A: Clone> {
    demand: Cow<'a, Demand<A>>,
    is_held: bool,
}

fn keep<'a, A: Book>(applicants: &'a [Applicant<'_>], incumbents: &Incumbents<'_>) -> Vec<Keep<'a, A>> {
    let keep = |of: &'a Applicant<'_>| {
        if of.is_settled {
            return Keep { demand: Cow::Borrowed(A::demand(of)), is_held: true };
        }
        let kept = kept::<A>(of.rows, incumbents);
        let is_held = kept.ports.iter().all(|rows| is_held(&of.rows.name, rows, incumbents));
        Keep { demand: Cow::Owned(kept.demand()), is_held }
    };
    applicants.iter().map(keep).collect()
}

/// Reserves the room for what Services keep.
fn reserve<'a, A: Book>(
    applicants: &[Applicant<'_>],
    keeps: Vec<Keep<'a, A>>,
    ledger: &mut Ledger,
) -> Vec<Option<Cow<'a, Demand<A>>>> {
    let mut is_there = vec![false; keeps.len()];
    for is_held in [true, false] {
        let turn = keeps.iter().zip(applicants).zip(&mut is_there);
        for ((keep, of), is_there) in turn.filter(|((keep, _), _)| keep.is_held == is_held) {
            *is_there = keep.demand.frontends > 0 && ledger.keep(&of.rows.name.namespace, known(&keep.demand));
        }
    }
    keeps.into_iter().zip(is_there).map(|(keep, is_there)| is_there.then_some(keep.demand)).collect()
}

/// Reserves the room for all that the Service wants. If there is none, the Service keeps what it has.
fn grow<A: Book>(
    of: &Applicant<'_>,
    kept: Option<&Demand<A>>,
    ledger: &mut Ledger,
    incumbents: &Incumbents<'_>,
) -> Grant {
    let wanted = wish::<A>(of, incumbents);
    if wanted.demand.frontends == 0 || kept == Some(wanted.demand) {
        return Grant::All;
    }
    let namespace = &of.rows.name.namespace;
    if let Some(kept) = kept {
        ledger.release(namespace, known(kept));
    }
    match (ledger.admit(namespace, wanted), kept) {
        (Ok(()), _) => Grant::All,
        (Err(shortage), Some(kept)) => {
            ledger.take(namespace, known(kept));
            Grant::Kept(shortage)
        }
        (Err(shortage), None) => Grant::Nothing(shortage),
    }
}

/// A Service, or its growth, is left out.
fn no_room(service: &ObjectName, shortage: &Shortage, is_known: bool) -> Warning {
    let Shortage { what, wanted, max, setting, namespace } = shortage;
    let what_happens = if is_known {
        "has grown by more than fits: its rows so far stay while they are wanted, and the rest is left out"
    } else {
        "does not fit and is left out"
    };
    let (problem, remedy) = match namespace {
        Some(namespace) => (
            format!("{what_happens}: {wanted} {what} of namespace {namespace}, its share is {max}"),
            format!("raise --namespace-share or {setting}, or remove Services of the namespace"),
        ),
        None => (
            format!("{what_happens}: {wanted} {what}, the limit is {max}"),
            if *what == TABLE_SLOTS { SMALLER_TABLES.into() } else { format!("raise {setting}, or remove Services") },
        ),
    };
    Warning::new(WarningKind::Capacity, problem, remedy).of(format_args!("Service {service}"))
}
