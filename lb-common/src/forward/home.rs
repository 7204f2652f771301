//! Hairpin of a pod with several addresses: it dials its own frontend from another address than the backend's. The
//! addresses do not show this, but the request returns to the interface that it came from.

use super::FlowRef as _;
use super::place::{PLACE_ATTEMPTS, PORT_BASE};
use super::run::{InsertError, Maps, Path};
use crate::addr::{Addr, Proto};
use crate::client::Client;
use crate::sequence::Sequence;
use crate::table::{DIRECT, Direction, EdgeState, FlowState};
use crate::verdict::{DropReason, Verdict};

impl<A: Addr, K: Maps<A>> Path<'_, A, K> {
    /// Decides a packet that leaves the node.
    #[inline(always)]
    pub fn leave(&mut self) -> Verdict {
        // An endpoint of this node may have one of those ports.
        let verdict = self.reply();
        if verdict == Verdict::Pass && self.may_be_own_request() {
            return self.own_request();
        }
        if verdict == Verdict::Pass && self.may_have_come_home() { self.come_home() } else { verdict }
    }

    /// Whether a packet to a pod may be a request of that same pod. Hardly any is, and what has already been read
    /// rules out nearly all others.
    #[inline(always)]
    fn may_have_come_home(&self) -> bool {
        let may_be_first = self.transport.opens() || self.kernel.repairs_evicted_flows();
        let may_be_request = may_be_first && matches!(self.edge.client, Client::Workload);
        may_be_request && self.may_be_of_flow(self.work.key.tuple.sport) && self.kernel.has_come_back(self.edge.id)
    }

    /// If the packet is a request of the pod that is about to receive it, gives it the frontend's address as its
    /// source, and moves the flow, so that its next requests get that source at once. An answer to the pod's other
    /// address would never leave the pod.
    #[inline(never)]
    fn come_home(&mut self) -> Verdict {
        let (kernel, work) = (self.kernel, &mut *self.work);
        let key = &mut work.key;
        (key.edge, key.proto, key.direction, key.pad) = (self.edge.id, self.transport.proto, Direction::Request, 0);
        // Both entries of the flow as it is now.
        work.other_key.set_partner(&work.key, &work.key.tuple);
        let Some(entry) = kernel.flow(&work.other_key) else { return Verdict::Pass };
        if entry.frontend() == DIRECT || !matches!(entry.state(), FlowState::New) {
            return Verdict::Pass;
        }
        entry.read_to(&mut work.to);
        if work.to.src.is(&work.key.tuple.src) {
            // The source is the frontend's address already: the request was sent back at ingress.
            return Verdict::Pass;
        }
        work.partner_key.set_partner(&work.other_key, &work.to);
        work.flow.frontend = entry.frontend();
        work.flow.pool = entry.pool();
        work.flow.set_header(entry.has_header());
        work.flow.state = FlowState::New;
        work.flow.set_sequence(Sequence::NONE);
        work.flow.last_seen_jiffies = self.kernel.now_jiffies();
        // `to.src` is the frontend's address already.
        let from = &work.key.tuple;
        (work.to.dst, work.to.sport, work.to.dport) = (from.dst, from.sport, from.dport);
        match self.move_flow() {
            Ok(()) => Verdict::Translate,
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Moves the flow of `partner_key` and `other_key`, so that its packets become `to`. As with a new flow, the reply
    /// entry goes first. Returns the reason if this fails.
    #[inline(never)]
    fn move_flow(&mut self) -> Result<(), DropReason> {
        let kernel = self.kernel;
        let mut moved = self.reserve_home();
        if moved.is_ok() {
            let work = &mut *self.work;
            kernel.note_hairpin(self.edge.id);
            kernel.remove_flow(&work.partner_key);
            work.flow.to.set(&work.to);
            work.flow.set_sequence(self.transport.tcp.sequence());
            if kernel.insert_flow(&work.partner_key, &work.flow).is_ok() {
                kernel.remove_flow(&work.other_key);
                self.reserve_alias();
            } else {
                kernel.remove_flow(&work.key);
                moved = Err(DropReason::FlowTable);
            }
        }
        let work = &mut *self.work;
        // `key` is the packet's own key again.
        work.key.set_partner(&work.other_key, &work.other_key.tuple);
        moved
    }

    /// UDP: also translates answers from the address that the client dialled from. An unbound server socket picks the
    /// same source address as an unbound client. If another flow has that tuple, such answers are not translated.
    #[inline(always)]
    fn reserve_alias(&mut self) {
        if self.transport.proto == Proto::UDP {
            let work = &mut *self.work;
            work.key.tuple.src = work.partner_key.tuple.src;
            work.flow.to.set_reversed(&work.partner_key.tuple);
            let _ = self.kernel.insert_flow(&work.key, &work.flow);
        }
    }

    /// Inserts the reply entry and leaves its key in `key`.
    #[inline(always)]
    fn reserve_home(&mut self) -> Result<(), DropReason> {
        let (kernel, work) = (self.kernel, &mut *self.work);
        work.flow.to.set_reversed(&work.partner_key.tuple);
        for _ in 0..PLACE_ATTEMPTS {
            let bit = EdgeState::client_port_bit(work.to.sport);
            if kernel.edge_state(self.edge.id).client_ports & bit == 0 {
                kernel.note_client_ports(self.edge.id, bit);
            }
            work.key.set_partner(&work.partner_key, &work.to);
            match kernel.insert_flow(&work.key, &work.flow) {
                Ok(()) => return Ok(()),
                Err(InsertError::Refused) => return Err(DropReason::FlowTable),
                Err(InsertError::Exists) if self.transport.proto == Proto::SCTP => break,
                Err(InsertError::Exists) => work.to.sport = PORT_BASE | self.kernel.random() as u16,
            }
        }
        Err(DropReason::NoPort)
    }
}
