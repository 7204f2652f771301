//! Talks to nftables by netlink: transactions and dumps in this network namespace. It runs no program, so it works in
//! an image that holds only the agent.

use std::convert::Infallible;
use std::io;

use netlink_bindings::nftables::{ChainedFinal, Nfgenmsg, Request};
use netlink_bindings::traits::{NetlinkChained as _, NetlinkRequest, Protocol};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

/// The family of tables for both IPv4 and IPv6 (include/uapi/linux/netfilter.h).
pub const NFPROTO_INET: u8 = 1;
/// The subsystem of a batch (include/uapi/linux/netfilter/nfnetlink.h).
const NFNL_SUBSYS_NFTABLES: u16 = 10;
/// Both flags are from include/uapi/linux/netlink.h.
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const HEADER_LEN: usize = 16;
/// The first sequence number. Each socket serves one request.
pub const FIRST_SEQ: u32 = 1;
/// Bytes of send buffer that a request needs besides its own.
const SEND_BUFFER_SPARE: usize = 4096;

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
    let socket = open()?;
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
pub fn ask<R: NetlinkRequest>(request: &R, mut take: impl FnMut(R::ReplyType<'_>)) -> io::Result<()> {
    let Protocol::Raw { request_type, .. } = request.protocol() else { return Err(io::ErrorKind::Unsupported.into()) };
    let mut bytes = Vec::with_capacity(HEADER_LEN + request.payload().len());
    bytes.extend(((HEADER_LEN + request.payload().len()) as u32).to_ne_bytes());
    bytes.extend(request_type.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_ACK | request.flags()).to_ne_bytes());
    bytes.extend(FIRST_SEQ.to_ne_bytes());
    // The port ID 0 is the kernel.
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(request.payload());
    let socket = open()?;
    send(&socket, &bytes)?;
    loop {
        for (_, answer) in receive(&socket)? {
            match answer {
                Answer::Message(payload) => take(R::decode_reply(&payload)),
                Answer::Acknowledged(result) => return result,
                Answer::Complete => return Ok(()),
            }
        }
    }
}

/// The generation of the rules. Every change of any rule in this network namespace changes it.
pub fn generation() -> io::Result<u32> {
    let mut generation = None;
    ask(&Request::new().op_getgen_do(&of_family(0)), |(_, attributes)| generation = attributes.get_id().ok())?;
    generation.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// One answer of the kernel.
enum Answer {
    Message(Vec<u8>),
    Acknowledged(io::Result<()>),
    /// The end of a dump.
    Complete,
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends a request as one datagram, whatever its size.
fn send(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    // Exceeds the limit of ordinary processes. Without the right to do so, the default size must do.
    let _ = setsockopt(socket, sockopt::SndBufForce, &(bytes.len() + SEND_BUFFER_SPARE));
    socket.send(bytes, 0).map(drop)
}

fn receive(socket: &Socket) -> io::Result<Vec<(u32, Answer)>> {
    let (datagram, _) = socket.recv_from_full()?;
    let mut answers = Vec::new();
    let mut bytes = datagram.as_slice();
    while !bytes.is_empty() {
        let message = NetlinkMessage::<Payload>::deserialize(bytes).map_err(io::Error::other)?;
        let answer = match message.payload {
            NetlinkPayload::InnerMessage(Payload(payload)) => Some(Answer::Message(payload)),
            NetlinkPayload::Error(error) => Some(Answer::Acknowledged(match error.code {
                None => Ok(()),
                Some(_) => Err(error.to_io()),
            })),
            NetlinkPayload::Done(_) => Some(Answer::Complete),
            _ => None,
        };
        answers.extend(answer.map(|answer| (message.header.sequence_number, answer)));
        // Messages are aligned to four bytes.
        let length = (message.header.length as usize).next_multiple_of(4).max(HEADER_LEN);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(answers)
}

/// The bytes of a message after its netlink header.
#[derive(Debug)]
struct Payload(Vec<u8>);

impl NetlinkDeserializable for Payload {
    type Error = Infallible;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self(payload.to_owned()))
    }
}
