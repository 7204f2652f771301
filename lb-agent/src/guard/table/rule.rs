//! The guard's rules as nftables expressions, one for each kind of client and family.

use std::ffi::CStr;

use lb_common::addr::Family;
use lb_common::client::Client;
use netlink_bindings::nftables::{
    CmpOps, FibFlags, LookupFlags, MetaKeys, PayloadBase, PushExprListAttrs, PushRuleAttrs, Registers,
};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::push_header;

use super::key;

/// Just before kube-proxy, whose chains use NF_IP_PRI_NAT_DST (-100) in both hooks, with iptables and with nftables.
pub const PRIORITY: i32 = -101;
// include/uapi/linux/netfilter.h and netfilter/nf_tables.h.
const NF_INET_PRE_ROUTING: u32 = 0;
const NF_INET_LOCAL_OUT: u32 = 3;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const NFT_NAT_DNAT: u32 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
/// The library counts from 0 here, the kernel from 1.
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
// include/uapi/linux/rtnetlink.h.
const RTN_LOCAL: u32 = 2;

/// A base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    Prerouting,
    Output,
}

impl Chain {
    pub const ALL: [Self; 2] = [Self::Prerouting, Self::Output];

    pub const fn name(self) -> &'static CStr {
        match self {
            Self::Prerouting => c"prerouting",
            Self::Output => c"output",
        }
    }

    pub const fn hook(self) -> u32 {
        match self {
            Self::Prerouting => NF_INET_PRE_ROUTING,
            Self::Output => NF_INET_LOCAL_OUT,
        }
    }
}

/// The name of the set of addresses that are guarded for a kind of client.
pub const fn set(client: Client, family: Family) -> &'static str {
    match (client, family) {
        (Client::Workload, Family::V4) => "workload4",
        (Client::Workload, Family::V6) => "workload6",
        (Client::Host, Family::V4) => "host4",
        (Client::Host, Family::V6) => "host6",
        (Client::External, Family::V4) => "external4",
        (Client::External, Family::V6) => "external6",
    }
}

/// The comment that identifies the rule of a kind of client.
pub fn comment(client: Client, family: Family) -> String {
    format!("leave {} to the balancer", set(client, family))
}

/// All rules, in the order in which the kernel lists them.
pub fn all() -> impl Iterator<Item = (Chain, Client, Family)> {
    let both = |chain, client| [Family::V4, Family::V6].map(|family| (chain, client, family));
    [(Chain::Prerouting, Client::Workload), (Chain::Prerouting, Client::External), (Chain::Output, Client::Host)]
        .into_iter()
        .flat_map(move |(chain, client)| both(chain, client))
}

/// Matches client and address, and translates the destination to itself. An address of the node is excluded: the
/// balancer's own traffic arrives there, for the hostPort of a pod or a proxy on the node.
pub fn expressions<P: Pusher>(rule: PushRuleAttrs<P>, client: Client, family: Family) -> PushRuleAttrs<P> {
    let (nfproto, offset) = match family {
        // The offset of the destination address in the header.
        Family::V4 => (NFPROTO_IPV4, 16),
        Family::V6 => (NFPROTO_IPV6, 24),
    };
    let first = Registers::Reg3200 as u32;
    let after_addr = first + key::addr_length(family) / 4;
    let list = rule.nested_expressions();
    let list = meta(list, MetaKeys::Nfproto, first);
    let list = compare(list, first, CmpOps::Eq, &[nfproto]);
    let list = match client {
        Client::Host => list,
        Client::Workload => lookup(meta(list, MetaKeys::Iif, first), key::LINKS, first, 0),
        Client::External => lookup(meta(list, MetaKeys::Iif, first), key::LINKS, first, LookupFlags::Invert as u32),
    };
    let list = payload(list, PayloadBase::NetworkHeader, offset, key::addr_length(family), first);
    let list = meta(list, MetaKeys::L4Proto, after_addr);
    // The destination port has the same offset in TCP, UDP and SCTP.
    let list = payload(list, PayloadBase::TransportHeader, 2, 2, after_addr + 1);
    let list = lookup(list, set(client, family), first, 0);
    let list = list
        .nested_elem()
        .nested_data_fib()
        .push_dreg(after_addr)
        .push_result(NFT_FIB_RESULT_ADDRTYPE)
        .push_flags(FibFlags::Daddr as u32)
        .end_nested()
        .end_nested();
    let list = compare(list, after_addr, CmpOps::Neq, &RTN_LOCAL.to_ne_bytes());
    // The first register still holds the address.
    list.nested_elem()
        .nested_data_nat()
        .push_type(NFT_NAT_DNAT)
        .push_family(nfproto.into())
        .push_reg_addr_min(first)
        .end_nested()
        .end_nested()
        .end_nested()
}

fn meta<P: Pusher>(list: PushExprListAttrs<P>, key: MetaKeys, register: u32) -> PushExprListAttrs<P> {
    list.nested_elem().nested_data_meta().push_key(key as u32).push_dreg(register).end_nested().end_nested()
}

fn compare<P: Pusher>(list: PushExprListAttrs<P>, register: u32, op: CmpOps, with: &[u8]) -> PushExprListAttrs<P> {
    list.nested_elem()
        .nested_data_cmp()
        .push_sreg(register)
        .push_op(op as u32)
        .nested_data()
        .push_value(with)
        .end_nested()
        .end_nested()
        .end_nested()
}

fn payload<P: Pusher>(
    list: PushExprListAttrs<P>,
    base: PayloadBase,
    offset: u32,
    length: u32,
    register: u32,
) -> PushExprListAttrs<P> {
    list.nested_elem()
        .nested_data_payload()
        .push_dreg(register)
        .push_base(base as u32)
        .push_offset(offset)
        .push_len(length)
        .end_nested()
        .end_nested()
}

fn lookup<P: Pusher>(list: PushExprListAttrs<P>, set: &str, register: u32, flags: u32) -> PushExprListAttrs<P> {
    let mut lookup = list.nested_elem().nested_data_lookup().push_set_bytes(set.as_bytes());
    // The library's numbers come from the kernel's specification, which is wrong about this one.
    push_header(lookup.as_vec_mut(), NFTA_LOOKUP_SREG, 4);
    lookup.as_vec_mut().extend(register.to_be_bytes());
    lookup.push_flags(flags).end_nested().end_nested()
}
