//! `--source=kube` against an API server that misbehaves: what the tables become, and what they never lose on the way.

mod converge;
mod expectations;
mod faults;
mod filters;
mod requests;
mod shape;
mod stage;
