//! The packet cases: tables, packets in, what becomes of them. Each runs in both families, on the host and in the
//! kernel (`tests/path.rs`, `tests/progrun.rs`).

mod affinity;
mod direct;
mod flows;
mod fragments;
mod frames;
mod hairpins;
mod icmp;
mod lookup;
mod maglev;
mod scene;
mod wire;

pub use scene::{ACK, FIN, Net, RST, SYN, SYN_ACK, Scene, UDP};

/// A case by name.
pub type Case = (&'static str, fn(&mut Scene<'_>));

/// All cases.
pub fn all() -> Vec<Case> {
    [
        lookup::CASES,
        affinity::CASES,
        maglev::CASES,
        flows::CASES,
        hairpins::CASES,
        direct::CASES,
        wire::CASES,
        fragments::CASES,
        frames::CASES,
        icmp::CASES,
    ]
    .concat()
}
