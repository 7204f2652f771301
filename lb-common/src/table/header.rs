//! PROXY headers that a backend has not acknowledged yet.

use super::row::table_type;

table_type! {
    /// Value of `headers4` and `headers6`: a PROXY header that is due. The key is that of the flow's requests. The row
    /// is deleted when the backend has acknowledged the header.
    ///
    /// The two directions of a flow run on different CPUs. Each field has one of them as its writer.
    pub struct ProxyHeader {
        /// The length of the header. It is fixed by the SYN.
        pub len_bytes: u8,
        /// [`HeaderFlags`], written by requests.
        pub flags: u8,
        /// 1: the backend has answered the SYN with the number `isn`. Written by replies.
        pub answered: u8,
        /// 1: the backend asked for the header again. Set by replies, cleared by requests.
        pub wanted: u8,
        /// The client's initial sequence number of the connection that the backend accepted. Written by replies.
        pub isn: u32,
        /// The number of the client's last SYN. Written by requests.
        pub next_isn: u32,
        /// jiffies of the last injection, the lower half.
        pub sent_jiffies: u32,
        /// The end of the client's data so far. No acknowledgement may be beyond it.
        pub snd_max: u32,
    }
}

/// Bits of [`ProxyHeader::flags`].
pub struct HeaderFlags;

impl HeaderFlags {
    /// The binary header of version 2. Without this flag, the text of version 1.
    pub const V2: u8 = 1;
    /// The header has been sent.
    pub const SENT: u8 = 2;
    /// The flow had a connection before, whose header was acknowledged. Until the backend answers the new SYN, that
    /// connection continues.
    pub const RENEWED: u8 = 4;
}
