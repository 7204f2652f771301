//! Elements of the sets: `ipv4_addr . inet_proto . inet_service`, each part in network order and padded to four bytes.

use lb_common::addr::{Addr, Family, Proto};
use lb_common::table::FrontendKey;
use netlink_bindings::nftables::PushSetelemListElemAttrs;
use netlink_bindings::traits::Pusher;

/// The name of the set of interfaces.
pub const LINKS: &str = "links";

/// Marks a set's numbers as being in host byte order (NFTNL_UDATA_SET_KEYBYTEORDER 0, four bytes, BYTEORDER_HOST_ENDIAN
/// 1). Without this mark nft prints interface indexes in the wrong byte order.
pub fn host_order() -> Vec<u8> {
    [&[0, 4][..], &1_u32.to_ne_bytes()].concat()
}

/// Key types of nft (its include/datatype.h), so that `nft list` can print the sets.
pub const TYPE_IFACE_INDEX: u32 = 20;
const TYPE_IPV4_ADDR: u32 = 7;
const TYPE_IPV6_ADDR: u32 = 8;
const TYPE_INET_PROTO: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;
/// Bits of each part in a concatenated type.
const TYPE_BITS: u32 = 6;
/// Bytes of a comment: the kernel keeps 256 with a table or rule (NFT_USERDATA_MAXLEN), three of which are not text.
const COMMENT_MAX: usize = 253;
/// Bytes to which a smaller part is padded.
const PART: usize = 4;

/// Bytes of an address.
pub const fn addr_length(family: Family) -> u32 {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

/// Bytes of a key.
pub const fn length(family: Family) -> u32 {
    addr_length(family) + 2 * PART as u32
}

/// The type of a key.
pub const fn type_of(family: Family) -> u32 {
    let addr = match family {
        Family::V4 => TYPE_IPV4_ADDR,
        Family::V6 => TYPE_IPV6_ADDR,
    };
    addr << (2 * TYPE_BITS) | TYPE_INET_PROTO << TYPE_BITS | TYPE_INET_SERVICE
}

/// A frontend as an element.
pub fn bytes<A: Addr>(key: &FrontendKey<A>) -> Vec<u8> {
    let mut bytes = key.addr.as_bytes().to_vec();
    bytes.extend([key.proto as u8, 0, 0, 0]);
    bytes.extend(key.port.to_be_bytes());
    bytes.extend([0, 0]);
    bytes
}

/// Parses an element.
pub fn read<A: Addr>(bytes: &[u8]) -> Option<FrontendKey<A>> {
    let (addr, rest) = A::read_from_prefix(bytes).ok()?;
    let [proto, _, _, _, high, low, _, _] = *rest else { return None };
    Some(FrontendKey { addr, port: u16::from_be_bytes([high, low]), proto: Proto::from_number(proto)?, pad: 0 })
}

/// Writes elements.
pub fn push<P: Pusher>(mut list: PushSetelemListElemAttrs<P>, keys: &[Vec<u8>]) {
    for key in keys {
        list = list.nested_elem().nested_key().push_value(key).end_nested().end_nested();
    }
}

/// A comment as nft stores it with a table or a rule: type 0, length, text, NUL.
pub fn comment(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(COMMENT_MAX)];
    let mut bytes = vec![0, text.len() as u8 + 1];
    bytes.extend(text);
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive() {
        let key = FrontendKey { addr: [192, 0, 2, 1], port: 443, proto: Proto::UDP, pad: 0 };
        assert_eq!(bytes(&key), [192, 0, 2, 1, 17, 0, 0, 0, 1, 187, 0, 0]);
        assert_eq!((bytes(&key).len() as u32, read(&bytes(&key))), (length(Family::V4), Some(key)));
        let key = FrontendKey { addr: [7; 16], port: 1, proto: Proto::SCTP, pad: 0 };
        assert_eq!((bytes(&key).len() as u32, read(&bytes(&key))), (length(Family::V6), Some(key)));
        assert_eq!(read::<[u8; 4]>(&[0; 11]), None);
        assert_eq!(read::<[u8; 4]>(&[0; 12]), None, "no such protocol");
    }

    #[test]
    fn comments_are_cut_off() {
        assert_eq!(comment("ab"), [0, 3, b'a', b'b', 0]);
        assert_eq!(comment(&"x".repeat(300)).len(), 256);
    }
}
