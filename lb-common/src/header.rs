//! The PROXY header that the node adds to a connection, in place of the balancer that the connection does not pass.
//!
//! The client's numbers are lowered by the length of the header until the backend has acknowledged the header: by its
//! SYN the backend expects that many bytes before the client's first one. From then on both ends agree on all numbers,
//! and the flow costs no more than others. `docs/design.md` has the table of rules.

pub mod located;
pub mod rules;
