//! Frontends: what clients dial, and how each kind of client is served.

use zerocopy::{Immutable, IntoBytes, KnownLayout, TryFromBytes};

use super::addresses::{AddressBit, Role};
use super::pool::MemberSets;
use super::row::{table_enum, table_type};
use crate::addr::{Addr, Proto};
use crate::client::PerClient;

/// The lock of a map value that is changed in place (`BPF_F_LOCK`); the kernel finds it by this name in BTF.
#[allow(non_camel_case_types, reason = "the kernel looks the type up by this name (kernel/bpf/btf.c)")]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, TryFromBytes, Immutable, KnownLayout)]
pub struct bpf_spin_lock {
    pub val: u32,
}

table_type! {
    /// Key of `frontends4` and `frontends6`.
    #[repr(align(4))]
    pub struct FrontendKey<A> {
        pub addr: A,
        /// Host order.
        pub port: u16,
        pub proto: Proto,
        pub pad: u8,
    }

    /// Value of `frontends4` and `frontends6`. The packet path reads only `id`, which never changes during the life of
    /// an element. The other fields are for dumps, and are changed in place under `lock`.
    pub struct Frontend {
        /// Index into `scopes` and `frontend_stats`; from 1.
        pub id: u32,
        /// The mode that the agent decided for this address.
        pub mode: Mode,
        /// The rule that decided the mode.
        pub decided_by: Rule,
        /// The field of the Service that the address comes from.
        pub origin: Origin,
        pub state: FrontendState,
        pub lock: bpf_spin_lock,
    }

    /// Value of `scopes`: what happens to a new flow to a frontend, by the place of its client.
    pub struct Scopes {
        /// Pods on this node.
        pub workload: Scope,
        /// Sockets of the node itself.
        pub host: Scope,
        /// Clients in the network.
        pub external: Scope,
        /// The frontend's Service port, which is the first part of a `members` key; from 1.
        pub service_port: u32,
        /// Session affinity timeout in seconds; 0: none.
        pub affinity_secs: u32,
        /// The set of `source_ranges` to look up if a scope says so; 0: none, and all clients are allowed.
        pub source_ranges: u32,
        /// The owner: a hash of the Service's namespace and name; 0: none. A restarted agent knows the owner of an
        /// address by it.
        pub owner: u32,
    }
}

/// What one kind of client gets at a frontend. Eight aligned bytes: one load reads them, and one store switches them.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Scope {
    /// The pool to choose a backend from; from 1. 0 unless `action` is [`Action::Balance`].
    pub pool: u32,
    /// Slots of the pool: `0..count` exist. A backend has one slot, or many with [`ScopeFlags::MAGLEV`].
    pub count: u16,
    pub action: Action,
    /// [`ScopeFlags`].
    pub flags: u8,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeaderVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl HeaderVersion {
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }

    /// The bit of [`ScopeFlags`].
    pub const fn flag(self) -> u8 {
        match self {
            Self::V1 => ScopeFlags::HEADER_V1,
            Self::V2 => ScopeFlags::HEADER_V2,
        }
    }
}

/// Bits of [`Scope::flags`].
pub struct ScopeFlags;

impl ScopeFlags {
    /// The pool has endpoints on other nodes. What is forwarded to them gets an address of this node as its source.
    pub const MASQUERADE: u8 = 1;
    /// New flows are dropped unless `source_ranges` allows their client.
    pub const SOURCE_RANGES: u8 = 2;
    /// A client keeps its backend: `affinity` is looked up first.
    pub const AFFINITY: u8 = 4;
    /// The pool is [`MemberSets::NEAR`](super::MemberSets::NEAR). Without this flag and the next, it is the cluster's.
    pub const POOL_NEAR: u8 = 8;
    /// The pool is [`MemberSets::LOCAL`](super::MemberSets::LOCAL).
    pub const POOL_LOCAL: u8 = 16;
    /// The pool is a Maglev table: the hash of a flow selects its slot.
    pub const MAGLEV: u8 = 32;
    /// The node adds a PROXY header to new TCP flows: the text of version 1.
    pub const HEADER_V1: u8 = 64;
    /// The same, with the binary header of version 2.
    pub const HEADER_V2: u8 = 128;
}

impl Scope {
    /// Leave the packet alone.
    pub const PASS: Self = Self::without_pool(Action::Pass);
    /// Answer ICMP port unreachable.
    pub const REJECT: Self = Self::without_pool(Action::Reject);
    /// Drop the packet silently.
    pub const DROP: Self = Self::without_pool(Action::Drop);

    const fn without_pool(action: Action) -> Self {
        Self { pool: 0, count: 0, action, flags: 0 }
    }

    /// DNAT to one of the `count` backends of `pool`.
    pub const fn balance(pool: u32, count: u16) -> Self {
        Self { pool, count, action: Action::Balance, flags: 0 }
    }

    /// The same scope with these [`ScopeFlags`].
    #[must_use]
    pub const fn with_flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    /// Whether it has one of these [`ScopeFlags`].
    #[inline(always)]
    pub const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The PROXY header that new flows begin with.
    pub const fn header(self) -> Option<HeaderVersion> {
        if self.has(ScopeFlags::HEADER_V2) {
            Some(HeaderVersion::V2)
        } else if self.has(ScopeFlags::HEADER_V1) {
            Some(HeaderVersion::V1)
        } else {
            None
        }
    }

    /// The one of [`MemberSets`] that its pool is.
    #[inline(always)]
    pub const fn set(self) -> u8 {
        if self.has(ScopeFlags::POOL_LOCAL) {
            MemberSets::LOCAL
        } else if self.has(ScopeFlags::POOL_NEAR) {
            MemberSets::NEAR
        } else {
            MemberSets::CLUSTER
        }
    }

    /// Decodes the eight bytes of one load. An unknown action is [`Action::Pass`]: a byte that this version does not
    /// know must not harm a packet.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let [p0, p1, p2, p3, c0, c1, action, flags] = word.to_ne_bytes();
        let action = match action {
            1 => Action::Balance,
            2 => Action::Reject,
            3 => Action::Drop,
            _ => Action::Pass,
        };
        Self { pool: u32::from_ne_bytes([p0, p1, p2, p3]), count: u16::from_ne_bytes([c0, c1]), action, flags }
    }

    /// Encodes the scope as the eight bytes of one store.
    pub const fn to_word(self) -> u64 {
        let [p0, p1, p2, p3] = self.pool.to_ne_bytes();
        let [c0, c1] = self.count.to_ne_bytes();
        u64::from_ne_bytes([p0, p1, p2, p3, c0, c1, self.action as u8, self.flags])
    }
}

impl Scopes {
    pub const fn per_client(&self) -> PerClient<Scope> {
        PerClient { workload: self.workload, host: self.host, external: self.external }
    }

    /// Pass for all clients: the content of an unused element.
    pub const PASS: Self = Self {
        workload: Scope::PASS,
        host: Scope::PASS,
        external: Scope::PASS,
        service_port: 0,
        affinity_secs: 0,
        source_ranges: 0,
        owner: 0,
    };

    /// Whether a scope balances.
    pub fn balances(&self) -> bool {
        self.begins_to_balance(&Self::PASS)
    }

    /// The PROXY header that new flows begin with.
    pub fn header(&self) -> Option<HeaderVersion> {
        self.per_client().into_array().into_iter().find_map(Scope::header)
    }

    /// Whether a scope balances that did not before. Its clients may have connections that never had a flow.
    pub fn begins_to_balance(&self, before: &Self) -> bool {
        let both = before.per_client().zip(self.per_client()).into_array();
        both.iter().any(|(before, after)| after.action == Action::Balance && before.action != Action::Balance)
    }
}

impl<A: Addr> FrontendKey<A> {
    /// The bit of `addresses4` or `addresses6` that the frontend needs, in a table of `words` words.
    pub fn address_bit(&self, words: u32) -> AddressBit {
        AddressBit::of(&self.addr, Role::Frontend, words)
    }
}

table_enum! {
    /// What happens to a new flow.
    pub enum Action {
        /// Leave it alone: the packet passes as if the agent were absent.
        Pass = 0,
        /// DNAT it to a backend.
        Balance = 1,
        /// Answer ICMP port unreachable.
        Reject = 2,
        /// Drop it silently.
        Drop = 3,
    }

    /// The mode of a load-balancer address: the two of `ipMode` (KEP-1860), and two more.
    pub enum Mode {
        /// Shortcut it to an endpoint.
        VIP = 0,
        /// Leave it to the external balancer.
        Proxy = 1,
        /// Proxy for traffic from this node, VIP for traffic from the network.
        Split = 2,
        /// VIP while endpoints exist, else follow the route (KEP-6272).
        Router = 3,
    }

    /// The rule that decided a frontend's mode, in order of precedence (docs/how-it-decides.md#who-decides-the-mode).
    pub enum Rule {
        /// Annotation `lb-agent.io/ip-mode` on the Service.
        Annotation = 0,
        /// A `--proxy-annotation` of the command line.
        ProxyAnnotation = 1,
        /// The built-in vendor list.
        VendorAnnotation = 2,
        /// `ipMode` of the ingress entry.
        IpMode = 3,
        /// `--default-ip-mode`: the entry has no mode.
        Default = 4,
        /// The address is no load-balancer address: it has no mode.
        NotApplicable = 5,
        /// Annotation `lb-agent.io/proxy-protocol`: the node adds the header that the balancer would add.
        ProxyProtocol = 6,
        /// The same, as an annotation of a known vendor says which header the balancer adds.
        VendorHeader = 7,
    }

    /// The field of the Service that a frontend's address comes from.
    pub enum Origin {
        /// `.status.loadBalancer.ingress[].ip`.
        LoadBalancer = 0,
        /// `.spec.externalIPs[]`.
        ExternalIP = 1,
        /// `.spec.clusterIPs[]`.
        ClusterIP = 2,
        /// `.spec.ports[].nodePort` on a node address.
        NodePort = 3,
    }

    /// The stage of a frontend's life.
    pub enum FrontendState {
        Active = 0,
        /// Its Service is gone: known flows continue, new ones pass.
        Draining = 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_survives_the_word() {
        for action in [Action::Pass, Action::Balance, Action::Reject, Action::Drop] {
            let scope = Scope { pool: 0x1234_5678, count: 0xabcd, action, flags: ScopeFlags::MASQUERADE };
            assert_eq!(Scope::from_word(scope.to_word()), scope);
            assert_eq!(scope.as_bytes(), scope.to_word().to_ne_bytes());
        }
    }

    #[test]
    fn unknown_action_passes() {
        let mut bytes = Scope::balance(1, 1).to_word().to_ne_bytes();
        bytes[6] = 77;
        assert_eq!(Scope::from_word(u64::from_ne_bytes(bytes)).action, Action::Pass);
    }

    #[test]
    fn a_scope_that_balances_anew_is_noticed() {
        let balance = Scope::balance(1, 2);
        let split = Scopes { external: balance, ..Scopes::PASS };
        let vip = Scopes { workload: balance, host: balance, external: balance, ..Scopes::PASS };
        let moved = Scopes { external: Scope::balance(9, 3), ..Scopes::PASS };
        for (before, after, expected) in [
            (Scopes::PASS, vip, true),
            (split, vip, true),
            (vip, split, false),
            (split, moved, false),
            (vip, Scopes::PASS, false),
            (Scopes::PASS, Scopes::PASS, false),
        ] {
            assert_eq!(after.begins_to_balance(&before), expected, "{before:?} -> {after:?}");
        }
    }
}
