//! The node agent, as a library: pure core (model, desired, plan), thin shell around it.

pub mod apply;
pub mod assign;
pub mod controller;
pub mod dataplane;
pub mod desired;
pub mod family;
pub mod model;
pub mod plan;
pub mod render;
pub mod source;
