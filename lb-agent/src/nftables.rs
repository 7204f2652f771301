//! Talks to nftables by netlink: transactions and dumps in this network namespace. It runs no program, so it works in
//! an image that holds only the agent.

use std::io;

use netlink_bindings::nftables::{ChainedFinal, Nfgenmsg, Request};
use netlink_bindings::traits::{NetlinkChained as _, NetlinkRequest};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use crate::netlink::{self, Answer, FIRST_SEQ, open, receive, send};

/// The family of tables for both IPv4 and IPv6 (include/uapi/linux/netfilter.h).
pub const NFPROTO_INET: u8 = 1;
/// The subsystem of a batch (include/uapi/linux/netfilter/nfnetlink.h).
const NFNL_SUBSYS_NFTABLES: u16 = 10;
/// The header of messages about tables of a family. 0 means all families.
pub fn of_family(family: u8) -> Nfgenmsg {
    let mut header = Nfgenmsg::new();
    header.nfgen_family = family;
    header
}

/// The header of the messages that begin and end a batch.
pub fn of_batch() -> Nfgenmsg {
    let mut header = Nfgenmsg::new();
    header.set_res_id(NFNL_SUBSYS_NFTABLES);
    header
}

/// Performs a batch, all or nothing. Its first message begins the batch, and its last one ends it.
pub fn transact(batch: &ChainedFinal<'_>) -> io::Result<()> {
    // The kernel answers every message between the first and the last.
    let last = FIRST_SEQ + batch.chain_len() as u32 - 2;
    let socket = open(NETLINK_NETFILTER)?;
    send(&socket, batch.payload())?;
    let mut outcome = Ok(());
    loop {
        for (seq, answer) in receive(&socket)? {
            if let Answer::Acknowledged(result) = answer {
                outcome = outcome.and(result.map_err(|error| in_message(&error, seq - FIRST_SEQ)));
                // A failure of the whole batch is reported for its first message only.
                if seq >= last || (seq == FIRST_SEQ && outcome.is_err()) {
                    return outcome;
                }
            }
        }
    }
}

/// Adds which message of a batch was refused. Operators cannot use this, but developers need it.
fn in_message(error: &io::Error, index: u32) -> io::Error {
    io::Error::new(error.kind(), format!("{error}, in message {index} of the batch"))
}

/// Calls `take` for each answer, until the end of the dump or the acknowledgement.
pub fn ask<R: NetlinkRequest>(request: &R, take: impl FnMut(R::ReplyType<'_>)) -> io::Result<()> {
    netlink::ask(NETLINK_NETFILTER, request, take)
}

/// The generation of the rules. Every change of any rule in this network namespace changes it.
pub fn generation() -> io::Result<u32> {
    let mut generation = None;
    ask(&Request::new().op_getgen_do(&of_family(0)), |(_, attributes)| generation = attributes.get_id().ok())?;
    generation.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}
