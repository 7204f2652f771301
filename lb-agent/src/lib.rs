//! The node agent, as a library: pure core (model, desired, plan), thin shell around it.

pub mod dataplane;
