//! Harness of the tests: packets, and machines to run them through.

pub mod cases;
pub mod machine;
pub mod packet;
pub mod script;
