//! Pools: the backends that a scope chooses from. Members and endpoints: the backends of one Service port, and of all
//! Services.

use core::hash::{Hash, Hasher};

use super::addresses::{AddressBit, Role};
use super::row::table_enum;
use super::row::table_type;
use crate::addr::Addr;

/// Most elements of `pools4` and `pools6`: what the lower bits of a pool ID can name.
pub const POOL_ELEMENTS_MAX: u32 = 1 << 22;

/// A slot of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// The lower 22 bits are the pool's first element, from 1. The upper bits tell the pool from earlier ones that
    /// began there. A pool never changes: a new membership is a new pool.
    pub pool: u32,
    /// From 0, below [`Scope::count`](super::Scope::count).
    pub slot: u32,
}

impl PoolKey {
    /// Index into `pools4` or `pools6`. The slots of a pool are consecutive.
    #[inline(always)]
    pub const fn element(self) -> u32 {
        (self.pool & (POOL_ELEMENTS_MAX - 1)) + self.slot
    }
}

/// An address and port that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend<A> {
    pub addr: A,
    /// Host order.
    pub port: u16,
}

impl<A: Addr> Hash for Backend<A> {
    /// In one piece: the control plane finds pools by their backends, and a hash of every field takes six times as long.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [0; size_of::<u128>() + size_of::<u16>()];
        let len = size_of::<A>();
        bytes[..len].copy_from_slice(self.addr.as_bytes());
        bytes[len..len + size_of::<u16>()].copy_from_slice(&self.port.to_ne_bytes());
        state.write(&bytes[..len + size_of::<u16>()]);
    }
}

table_type! {
    /// Element of `pools4` and `pools6`.
    #[repr(align(4))]
    pub struct PoolElement<A> {
        /// The backend's address.
        pub addr: A,
        /// The backend's port, host order.
        pub port: u16,
        /// [`PoolKey::slot`].
        pub slot: u16,
        /// [`PoolKey::pool`]; 0 if the element belongs to no pool.
        pub pool: u32,
    }

    /// Key of `members4` and `members6`: a backend of a Service port.
    pub struct MemberKey<A> {
        pub service_port: u32,
        pub addr: A,
        /// Host order.
        pub port: u16,
        pub pad: u16,
    }

    /// Key of `endpoints4` and `endpoints6`: an endpoint of any Service, for any protocol. A match of the wrong
    /// protocol costs a flow, no more. The table is exact, unlike [`AddressBits`](super::AddressBits): each answer of
    /// a pod's UDP server looks up its client, and a stranger that is taken for an endpoint would leave a half-open
    /// flow.
    #[repr(align(4))]
    pub struct EndpointKey<A> {
        pub addr: A,
        /// Host order.
        pub port: u16,
        pub pad: u16,
    }

    /// Value of `endpoints4` and `endpoints6`. The lookup asks only whether the key exists.
    pub struct Endpoint {
        /// 0.
        pub flags: u32,
    }

    /// Value of `members4` and `members6`.
    pub struct Member {
        pub state: MemberState,
        /// [`MemberSets`] from which new flows choose it.
        pub sets: u8,
        pub pad: [u8; 2],
    }
}

impl<A: Addr> MemberKey<A> {
    /// The row of `endpoints4` or `endpoints6` that the member needs.
    pub const fn endpoint(&self) -> EndpointKey<A> {
        EndpointKey { addr: self.addr, port: self.port, pad: 0 }
    }

    /// The bit of `addresses4` or `addresses6` that the member needs, in a table of `words` words.
    pub fn address_bit(&self, words: u32) -> AddressBit {
        AddressBit::of(&self.addr, Role::Endpoint, words)
    }
}

/// Bits of [`Member::sets`]: the sets of endpoints that a scope's pool may hold.
pub struct MemberSets;

impl MemberSets {
    pub const CLUSTER: u8 = 1;
    /// The endpoints of [`MemberSets::CLUSTER`] that are on this node.
    pub const NEAR: u8 = 2;
    /// The endpoints on this node for policy Local.
    pub const LOCAL: u8 = 4;
}

table_enum! {
    /// How a member may be used.
    pub enum MemberState {
        Active = 0,
        /// Terminating: known flows stay, new flows use other backends.
        Draining = 1,
    }
}
