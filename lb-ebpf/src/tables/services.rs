//! [`Services`] over the maps, for packets and for sockets.

use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::btf_maps::lpm_trie::Key;
use lb_common::client::Client;
use lb_common::forward::{Env as _, Event, Services, Sighting};
use lb_common::table::{
    Affinity, AffinityKey, Counter, DropKey, FrontendKey, MemberKey, PoolKey, Scope, Scopes, SourceRangeKey,
};

use super::parts::FamilyTables;
use super::told;
use crate::kernel::{Kernel, Subject};
use crate::linear::copy_words;
use crate::maps::{self, Source};

impl<S> Kernel<S> {
    #[inline(always)]
    fn scopes(frontend: u32) -> Option<*const Scopes> {
        maps::scopes.get_ptr(frontend)
    }
}

impl<A: FamilyTables, S: Subject> Services<A> for Kernel<S> {
    #[inline(always)]
    fn frontend(&self, key: &FrontendKey<A>) -> Option<u32> {
        let element = A::frontends().get_ptr(key)?;
        // SAFETY: the pointer comes from a lookup in this program run; `id` never changes during the element's life.
        Some(unsafe { addr_of!((*element).id).read() })
    }

    #[inline(always)]
    fn scope(&self, frontend: u32, client: Client) -> Scope {
        let Some(scopes) = Self::scopes(frontend) else { return Scope::PASS };
        // SAFETY: array elements live as long as the map; a scope is eight aligned bytes, read by one load.
        let word = unsafe {
            let scope = match client {
                Client::Workload => addr_of!((*scopes).workload),
                Client::Host => addr_of!((*scopes).host),
                Client::External => addr_of!((*scopes).external),
            };
            scope.cast::<u64>().read_volatile()
        };
        Scope::from_word(word)
    }

    #[inline(always)]
    fn service_port(&self, frontend: u32) -> u32 {
        // SAFETY: array elements live as long as the map.
        Self::scopes(frontend).map_or(0, |scopes| unsafe { addr_of!((*scopes).service_port).read_volatile() })
    }

    #[inline(always)]
    fn read_backend(&self, key: &PoolKey, addr: &mut A) -> Option<u16> {
        let element = A::pools().get_ptr(key.element())?;
        // SAFETY: array elements live as long as the map. A pool that a scope names is not changed; it is freed an RCU
        // period after no scope names it.
        unsafe {
            if (*element).pool != key.pool {
                return None;
            }
            copy_words::<A>(addr_of!((*element).addr).cast(), addr_of_mut!(*addr).cast());
            Some((*element).port)
        }
    }

    #[inline(always)]
    fn is_member(&self, key: &MemberKey<A>) -> bool {
        A::members().get_ptr(key).is_some()
    }

    #[inline(always)]
    fn member_sets(&self, key: &MemberKey<A>) -> u8 {
        // SAFETY: the pointer comes from a lookup in this program run; one byte is read.
        A::members().get_ptr(key).map_or(0, |member| unsafe { addr_of!((*member).sets).read_volatile() })
    }

    #[inline(always)]
    fn affinity_secs(&self, frontend: u32) -> u32 {
        // SAFETY: array elements live as long as the map.
        Self::scopes(frontend).map_or(0, |scopes| unsafe { addr_of!((*scopes).affinity_secs).read_volatile() })
    }

    #[inline(always)]
    fn source_ranges(&self, frontend: u32) -> u32 {
        // SAFETY: array elements live as long as the map.
        Self::scopes(frontend).map_or(0, |scopes| unsafe { addr_of!((*scopes).source_ranges).read_volatile() })
    }

    #[inline(always)]
    fn read_affinity(&self, key: &AffinityKey<A>, to: &mut Affinity<A>) -> bool {
        let Some(known) = A::affinity().get_ptr(key) else { return false };
        // SAFETY: the pointer comes from a lookup in this program run. Another CPU may write it meanwhile: the path
        // verifies what it reads.
        unsafe { copy_words::<Affinity<A>>(known.cast(), addr_of_mut!(*to).cast()) };
        true
    }

    #[inline(always)]
    fn write_affinity(&self, key: &AffinityKey<A>, affinity: &Affinity<A>) {
        match A::affinity().get_ptr_mut(key) {
            // SAFETY: as above.
            Some(known) => unsafe { copy_words::<Affinity<A>>(addr_of!(*affinity).cast(), known.cast()) },
            // If refused, the client is not remembered this time.
            None => drop(A::affinity().insert(key, affinity, 0)),
        }
    }

    #[inline(always)]
    fn is_source_allowed(&self, key: &SourceRangeKey<A>) -> bool {
        // SAFETY: both are a prefix length, a set and an address, without padding; the map's own is packed.
        let key = unsafe { &*core::ptr::from_ref(key).cast::<Key<Source<A>>>() };
        A::source_ranges().get(key).is_some()
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        if let Some(value) = maps::counters.get_ptr_mut(counter as u32) {
            // SAFETY: the element of this CPU; the program runs without migration.
            unsafe {
                S::add(addr_of_mut!((*value).packets), 1);
                S::add(addr_of_mut!((*value).bytes), self.subject.bytes());
            }
        }
    }

    #[inline(always)]
    fn count_drop(&self, key: &DropKey) {
        told::count_drop(key, self.subject.bytes(), self.now_jiffies());
    }

    #[inline(always)]
    fn tell(&self, sighting: &Sighting<'_, A>) {
        told::tell(sighting, self.subject.bytes(), self);
    }

    #[inline(always)]
    fn count_frontend(&self, frontend: u32, event: Event) {
        let Some(stats) = maps::frontend_stats.get_ptr_mut(frontend) else { return };
        // SAFETY: the element of this CPU; the program runs without migration.
        unsafe {
            match event {
                Event::FlowCreated => S::add(addr_of_mut!((*stats).flows), 1),
                Event::Translated => {
                    S::add(addr_of_mut!((*stats).packets), 1);
                    S::add(addr_of_mut!((*stats).bytes), self.subject.bytes());
                }
                Event::Passed => {
                    S::add(addr_of_mut!((*stats).passed_packets), 1);
                    S::add(addr_of_mut!((*stats).passed_bytes), self.subject.bytes());
                }
            }
        }
    }
}
