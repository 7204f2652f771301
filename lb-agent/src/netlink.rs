//! Requests to the kernel by netlink, for protocols that rtnetlink does not speak.

use std::convert::Infallible;
use std::io;

use netlink_bindings::traits::{NetlinkRequest, Protocol};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::{Socket, SocketAddr};

/// Both flags are from include/uapi/linux/netlink.h.
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const HEADER_LEN: usize = 16;
/// The first sequence number. Each socket serves one request.
pub const FIRST_SEQ: u32 = 1;
/// Bytes of send buffer that a request needs besides its own.
const SEND_BUFFER_SPARE: usize = 4096;

/// Calls `take` for each answer, until the end of the dump or the acknowledgement.
pub fn ask<R: NetlinkRequest>(protocol: isize, request: &R, mut take: impl FnMut(R::ReplyType<'_>)) -> io::Result<()> {
    let Protocol::Raw { request_type, .. } = request.protocol() else { return Err(io::ErrorKind::Unsupported.into()) };
    exchange(protocol, request_type, request.flags(), request.payload(), |payload| take(R::decode_reply(payload)))
}

/// As [`ask`], with bytes for the request and for each answer.
pub fn exchange(
    protocol: isize,
    request_type: u16,
    flags: u16,
    payload: &[u8],
    mut take: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    bytes.extend(((HEADER_LEN + payload.len()) as u32).to_ne_bytes());
    bytes.extend(request_type.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    bytes.extend(FIRST_SEQ.to_ne_bytes());
    // The port ID 0 is the kernel.
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(payload);
    let socket = open(protocol)?;
    send(&socket, &bytes)?;
    loop {
        for (_, answer) in receive(&socket)? {
            match answer {
                Answer::Message(payload) => take(&payload),
                Answer::Acknowledged(result) => return result,
                Answer::Complete => return Ok(()),
            }
        }
    }
}

/// One answer of the kernel.
pub enum Answer {
    Message(Vec<u8>),
    Acknowledged(io::Result<()>),
    /// The end of a dump.
    Complete,
}

/// A socket of a netlink protocol.
pub fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends a request as one datagram, whatever its size.
pub fn send(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    // Exceeds the limit of ordinary processes. Without the right to do so, the default size must do.
    let _ = setsockopt(socket, sockopt::SndBufForce, &(bytes.len() + SEND_BUFFER_SPARE));
    socket.send(bytes, 0).map(drop)
}

/// The answers in the next datagram, with their sequence numbers.
pub fn receive(socket: &Socket) -> io::Result<Vec<(u32, Answer)>> {
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
