//! Which slot of a Maglev pool a flow goes to. It depends on the flow alone, so that every node chooses the same slot,
//! now and later.
//!
//! The hash is MurmurHash3 (x86, 32 bits; Austin Appleby, public domain) with a constant seed: the kernel's own hash
//! of a packet depends on a secret of each boot. Integers are hashed as on a little-endian machine.

use crate::addr::{Addr, Proto};
use crate::hash::{finish, mix};
use crate::table::Tuple;

/// A change moves flows of all Maglev frontends while a cluster is being upgraded.
const SEED: u32 = 0;

/// Whether two connections of a client may go to different backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    Connections,
    /// Session affinity: all connections of a client go to one backend.
    Clients,
}

/// The hash of a flow as its client sees it.
#[inline(always)]
pub fn flow_hash<A: Addr>(tuple: &Tuple<A>, proto: Proto, spread: Spread) -> u32 {
    let sport = match spread {
        Spread::Connections => tuple.sport,
        Spread::Clients => 0,
    };
    let hash = tuple.dst.mix_into(tuple.src.mix_into(SEED));
    let hash = mix(hash, u32::from(sport) | (u32::from(tuple.dport) << 16));
    finish(mix(hash, proto as u32), 2 * size_of::<A>() as u32 + 8)
}

/// The hash of a backend, for its place in the tables.
pub fn backend_hash<A: Addr>(addr: &A, port: u16, seed: u32) -> u32 {
    finish(mix(addr.mix_into(seed), port.into()), size_of::<A>() as u32 + 4)
}

/// The slot of a hash among `count`: the hash scaled to the count, without a division.
#[inline(always)]
pub const fn slot(hash: u32, count: u16) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of other implementations, of four bytes each.
    #[test]
    fn it_is_murmur3() {
        for (bytes, seed, expected) in [
            ([0xff, 0xff, 0xff, 0xff], 0, 0x7629_3b50),
            ([0x21, 0x43, 0x65, 0x87], 0, 0xf55b_516b),
            ([0x21, 0x43, 0x65, 0x87], 0x5082_edee, 0x2362_f9de),
            ([0, 0, 0, 0], 0, 0x2362_f9de),
            (*b"aaaa", 0x9747_b28c, 0x5a97_808a),
        ] {
            assert_eq!(finish(mix(seed, u32::from_le_bytes(bytes)), 4), expected, "{bytes:02x?}");
        }
    }

    /// Other nodes and other versions choose by these hashes.
    #[test]
    fn hashes_never_change() {
        let v4 = Tuple { src: [10, 0, 0, 2], dst: [192, 0, 2, 10], sport: 40_000, dport: 80 };
        let v6 = Tuple { src: [0xfd; 16], dst: [0x20; 16], sport: 40_000, dport: 80 };
        let hashes = [
            flow_hash(&v4, Proto::TCP, Spread::Connections),
            flow_hash(&v4, Proto::UDP, Spread::Connections),
            flow_hash(&v4, Proto::TCP, Spread::Clients),
            flow_hash(&v6, Proto::TCP, Spread::Connections),
            backend_hash(&[10, 0, 0, 2], 8080, 1),
        ];
        assert_eq!(hashes, [3_688_151_241, 3_437_764_883, 2_328_251_990, 3_795_862_122, 3_057_163_513]);
    }

    #[test]
    fn slots_stand_within_the_count() {
        assert_eq!([slot(0, 251), slot(u32::MAX, 251), slot(u32::MAX, 1), slot(1 << 31, 2)], [0, 250, 0, 1]);
    }
}
