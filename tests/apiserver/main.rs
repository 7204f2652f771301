//! `--source=kube` against an API server that misbehaves: the resulting tables, and the rows that must survive on the
//! way.

mod converge;
#[macro_use]
mod expectations;
mod extremes;
mod faults;
mod filters;
mod requests;
mod shape;
mod stage;
