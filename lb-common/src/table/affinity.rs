//! Session affinity: the backend that a client used last.

use super::row::table_type;

table_type! {
    /// Key of `affinity4` and `affinity6`.
    pub struct AffinityKey<A> {
        /// All addresses of a Service port share it.
        pub service_port: u32,
        pub client: A,
    }

    /// Value of `affinity4` and `affinity6`. It is changed in place, so a reader may see half of a change. The reader
    /// checks it against `members`.
    #[repr(align(4))]
    pub struct Affinity<A> {
        pub addr: A,
        /// Host order.
        pub port: u16,
        pub pad: u16,
        /// Seconds since the machine started. Each new flow updates it.
        pub last_seen_secs: u32,
    }
}
