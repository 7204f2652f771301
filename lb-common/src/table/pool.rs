//! Pools: the backends that a scope chooses from, and which backends a Service port has at all.

use super::row::table_enum;
use super::row::table_type;

/// Elements that `pools4` and `pools6` may have at most: what the lower bits of a pool's id can name.
pub const POOL_ELEMENTS_MAX: u32 = 1 << 22;

/// A slot of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// The element where the pool begins, from 1, in the lower 22 bits; the others tell it from pools that began there
    /// before. A pool never changes: another membership is another pool.
    pub pool: u32,
    /// From 0, below [`Scope::count`](super::Scope::count).
    pub slot: u32,
}

impl PoolKey {
    /// Index into `pools4` or `pools6`: the slots of a pool stand one after the other.
    #[inline(always)]
    pub const fn element(self) -> u32 {
        (self.pool & (POOL_ELEMENTS_MAX - 1)) + self.slot
    }
}

/// An address and port that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend<A> {
    pub addr: A,
    /// Host order.
    pub port: u16,
}

table_type! {
    /// Element of `pools4` and `pools6`.
    #[repr(align(4))]
    pub struct PoolElement<A> {
        /// The backend's.
        pub addr: A,
        /// Its port, host order.
        pub port: u16,
        /// [`PoolKey::slot`].
        pub slot: u16,
        /// [`PoolKey::pool`]; 0 where the element belongs to none.
        pub pool: u32,
    }

    /// Key of `members4` and `members6`: is this backend still one of this Service port's?
    pub struct MemberKey<A> {
        pub service_port: u32,
        pub addr: A,
        /// Host order.
        pub port: u16,
        pub pad: u16,
    }

    /// Key of `endpoints4` and `endpoints6`: is this an endpoint of any Service? Of whatever protocol: what a protocol too
    /// many costs is a flow. Exact, where [`AddressBits`](super::AddressBits) are not: each answer of a pod's UDP server asks
    /// for its client, and a stranger who is taken for an endpoint would leave a half-open flow.
    #[repr(align(4))]
    pub struct EndpointKey<A> {
        pub addr: A,
        /// Host order.
        pub port: u16,
        pub pad: u16,
    }

    /// Value of `endpoints4` and `endpoints6`; that there is one says it all.
    pub struct Endpoint {
        /// 0.
        pub flags: u32,
    }

    /// Value of `members4` and `members6`.
    pub struct Member {
        pub state: MemberState,
        /// [`MemberSets`] that choose it for new flows.
        pub sets: u8,
        pub pad: [u8; 2],
    }
}

/// Bits of [`Member::sets`]: the sets of endpoints that a scope's pool may be.
pub struct MemberSets;

impl MemberSets {
    pub const CLUSTER: u8 = 1;
    /// Those of the cluster's that are on this node.
    pub const NEAR: u8 = 2;
    /// Those on this node, chosen for themselves.
    pub const LOCAL: u8 = 4;
}

table_enum! {
    /// What a member backend may be used for.
    pub enum MemberState {
        Active = 0,
        /// Terminating: known flows stay, new ones go elsewhere.
        Draining = 1,
    }
}
