//! Session affinity: which backend a client had last.

use super::row::table_type;

table_type! {
    /// Key of `affinity4` and `affinity6`.
    pub struct AffinityKey<A> {
        /// All addresses of a Service port share it.
        pub service_port: u32,
        pub client: A,
    }

    /// Value of `affinity4` and `affinity6`. Changed in place, and so possibly seen in part: whoever reads it asks `members`
    /// before it believes it.
    #[repr(align(4))]
    pub struct Affinity<A> {
        pub addr: A,
        /// Host order.
        pub port: u16,
        pub pad: u16,
        /// Seconds since the machine started. Each new flow moves it on.
        pub last_seen_secs: u32,
    }
}
