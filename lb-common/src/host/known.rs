//! What packets of known flows ask, over ordinary maps.

use super::entry::Entry;
use super::{Host, HostFamily};
use crate::forward::{HandOver, Known, Part, Path, Work};
use crate::packet::Packet;
use crate::parse::TcpFlags;
use crate::table::{AddressBit, EDGE_UPLINK, EdgeState, FlowKey, Role, Tuple};

impl<A: HostFamily> Known<A> for Host {
    type Flow = Entry<A>;

    fn edge_state(&self, edge: u32) -> EdgeState {
        let client_ports = self.client_ports.borrow().get(&edge).copied().unwrap_or(0);
        let hairpins = if edge == EDGE_UPLINK { self.node_ports.get() } else { self.hairpins.get().into() };
        EdgeState { hairpins, client_ports }
    }
    fn flow(&self, key: &FlowKey<A>) -> Option<Entry<A>> {
        A::state(self).flows.borrow().get(key).map(|entry| Entry(entry))
    }
    fn may_be_ours(&self, addr: &A, role: Role) -> bool {
        let AddressBit { word, mask } = AddressBit::of(addr, role, self.settings.address_words);
        A::tables(&self.tables).addresses.get(&word).is_some_and(|found| found.bits & mask != 0)
    }
    fn may_forward(&self) -> bool {
        self.routes.snat_ports.is_some() && !self.routes.is_tagged
    }
    fn is_forwarded(&self) -> bool {
        self.routes.is_forwarded
    }
    fn hand_over(&self, _: &impl Packet, key: &FlowKey<A>, to: &Tuple<A>, HandOver { l4, .. }: HandOver) -> bool {
        let mut work = A::state(self).work.get().unwrap_or_else(Work::new);
        work.take_transit(key, to, l4);
        A::state(self).work.set(Some(work));
        true
    }
    fn settle(&self, key: &FlowKey<A>, _: Entry<A>, _: &Tuple<A>, tcp: TcpFlags) -> bool {
        let mut work = Work::new();
        work.begin(key, tcp);
        Path::resumed(self, &mut work).run(Part::Settle)
    }
}
