//! Harness of the tests: packets and machines that run them; and, for real sockets, network namespaces shaped like a
//! node, its pods and the networks outside, real programs in them, and captures of their traffic.
//!
//! Everything that the harness makes is removed when its guard is dropped, also if a test panics. The harness panics if
//! the system refuses something: a test that cannot be set up has failed.

pub mod address;
pub mod agent;
pub mod answer;
pub mod api;
pub mod apiserver;
pub mod capture;
pub mod cases;
pub mod control;
pub mod deadline;
pub mod demo;
pub mod dial;
pub mod document;
pub mod dump;
pub mod fuzz;
pub mod haproxy;
pub mod http;
#[cfg(test)]
mod ids;
pub mod kubernetes;
pub mod lab;
pub mod leftovers;
pub mod machine;
pub mod manifest;
mod marker;
pub mod netns;
pub mod nginx;
pub mod nodes;
pub mod packet;
pub mod printed;
pub mod process;
pub mod random;
pub mod raw;
pub mod reference;
#[cfg(test)]
mod repository;
pub mod scene;
pub mod script;
pub mod serve;
pub mod side;
pub mod tools;
