//! What the kernel and the host share: table layouts, and the packet path over them.
//!
//! Compiled twice from this source: for the BPF target by `lb-ebpf`, for the host by the agent (`explain`) and the
//! tests. It knows no clock, no randomness and no map; those are arguments. The feature `host` adds tables and packets in
//! memory; the programs are built without it.
#![cfg_attr(not(feature = "host"), no_std)]
#![deny(unsafe_code)]

pub mod addr;
pub mod checksum;
pub mod flow;
pub mod forward;
pub mod fragment;
pub mod garbage;
pub mod hash;
#[cfg(feature = "host")]
pub mod host;
pub mod icmp;
pub mod packet;
pub mod parse;
pub mod path;
pub mod reject;
pub mod rewrite;
pub mod selection;
pub mod sequence;
pub mod share;
pub mod table;
pub mod verdict;
mod work;
