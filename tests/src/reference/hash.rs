//! The slot of a Maglev table that a connection gets: the hash, byte by byte, and a division.

use std::net::IpAddr;

use lb_common::addr::Proto;

use crate::packet::End;

/// The slot, below `slots`.
pub fn slot(client: End, service: End, proto: Proto, slots: usize) -> usize {
    let mut bytes = [octets(client.0), octets(service.0)].concat();
    bytes.extend(client.1.to_le_bytes());
    bytes.extend(service.1.to_le_bytes());
    bytes.extend([proto as u8, 0, 0, 0]);
    // Scales the hash from its range to the range of the slots.
    (u128::from(murmur3(&bytes)) * slots as u128 / (1 << 32)) as usize
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// MurmurHash3_x86_32 with seed 0, for whole blocks only.
fn murmur3(bytes: &[u8]) -> u32 {
    let mut hash = 0_u32;
    for block in bytes.chunks(4) {
        let mut k = u32::from(block[0])
            + (u32::from(block[1]) << 8)
            + (u32::from(block[2]) << 16)
            + (u32::from(block[3]) << 24);
        k = k.wrapping_mul(3_432_918_353);
        k = k.rotate_left(15);
        k = k.wrapping_mul(461_845_907);
        hash ^= k;
        hash = hash.rotate_left(13);
        hash = hash.wrapping_mul(5).wrapping_add(3_864_292_196);
    }
    hash ^= bytes.len() as u32;
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(2_246_822_507);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(3_266_489_909);
    hash ^ (hash >> 16)
}
