//! `--source=kube` against an API server that misbehaves: what the tables become, and what they never lose on the way.

mod converge;
#[macro_use]
mod expectations;
mod extremes;
mod faults;
mod filters;
mod requests;
mod shape;
mod stage;
