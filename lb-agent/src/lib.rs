//! The node agent as a library: a pure core (model, desired, assign, plan) in a thin shell of effects.

pub mod apply;
pub mod args;
pub mod ask;
pub mod assign;
pub mod check;
pub mod config;
pub mod controller;
pub mod dataplane;
pub mod desired;
pub mod explain;
pub mod family;
pub mod guard;
pub mod http;
pub mod interfaces;
pub mod metrics;
pub mod model;
pub mod nftables;
pub mod plan;
pub mod print;
pub mod printable;
pub mod render;
pub mod run;
pub mod show;
pub mod source;
pub mod status;
pub mod unload;
