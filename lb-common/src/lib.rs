//! The code that the kernel and the host share: the table layouts and the packet path.
//!
//! This source is compiled twice: by `lb-ebpf` for the BPF target, and by the agent (`explain`) and the tests for the
//! host. Clock, randomness and maps are arguments. The feature `host` adds in-memory tables and packets; the BPF
//! programs are built without it.
#![cfg_attr(not(feature = "host"), no_std)]
#![deny(unsafe_code)]

pub mod addr;
mod announce;
pub mod checksum;
pub mod client;
pub mod flow;
pub mod forward;
pub mod fragment;
pub mod garbage;
pub mod hash;
pub mod header;
#[cfg(feature = "host")]
pub mod host;
pub mod icmp;
pub mod packet;
pub mod parse;
pub mod path;
pub mod payload;
pub mod reject;
pub mod rewrite;
pub mod run;
pub mod selection;
pub mod sequence;
pub mod share;
pub mod socket;
pub mod spell;
pub mod straight;
pub mod table;
pub mod transit;
pub mod verdict;
pub mod way;
mod work;
