//! The decision: which packets are translated, what they become, and which flows are created.
//!
//! It depends only on [`Maps`] and [`Env`], writes flows through `Maps`, returns a [`Verdict`], and never reads
//! packet bytes.

mod affinity;
mod embryo;
mod frame;
mod header;
mod home;
mod known;
mod maglev;
mod note;
mod pair;
mod part;
mod place;
mod run;
mod services;
mod share;

use crate::addr::{Addr, Proto};
use crate::client::Client;
use crate::flow::{self};
use crate::parse::TcpFlags;
use crate::sequence::Sequence;
use crate::table::{Action, Counter, DIRECT, Direction, FlowKey, FlowState, MemberSets, Scope, ScopeFlags};
use crate::verdict::{DropReason, Verdict};
pub(crate) use crate::work::HeaderWish;
use crate::work::Pin;
pub use crate::work::Work;
pub(crate) use frame::{is_heard, whose};
pub use known::{FlowRef, HandOver, Known};
pub use note::Repeated;
pub(crate) use pair::Partner;
pub use pair::keep;
pub use run::{Edge, HeaderRef, Hook, InsertError, Maps, Part, Path, Whose};
pub use services::{Env, Event, Services, Sighting};

// Rare cases are functions of their own (`inline(never)`), so that the verifier walks them apart from the hot path.
impl<A: Addr, K: Maps<A>> Path<'_, A, K> {
    /// Decides a packet that enters the node.
    #[inline(always)]
    pub fn request(&mut self) -> Verdict {
        let (transport, kernel) = (self.transport, self.kernel);
        if matches!(self.edge.client, Client::Workload)
            && kernel.edge_state(self.edge.id).has_hairpins()
            && self.is_own_reply()
        {
            return Verdict::Hairpin;
        }
        if self.may_be_answer() {
            match self.answer() {
                Verdict::Pass => {}
                verdict => return verdict,
            }
        }
        if !transport.opens() {
            if !self.may_be_of_flow(self.work.key.tuple.sport) {
                return Verdict::Pass;
            }
            // A segment in mid-flow needs one lookup. Known flows continue, whatever happened to their frontend. An
            // unknown segment may belong to a connection that is older than the agent.
            self.set_key(Direction::Request);
            let Some(entry) = kernel.flow(&self.work.key) else { return self.unknown_segment() };
            if !self.is_heard(entry.frontend()) || !self.may_follow(entry) {
                return Verdict::Pass;
            }
            self.follow(entry);
            return self.translated(entry.frontend());
        }
        let Work { key: FlowKey { tuple, .. }, frontend_key, .. } = &mut *self.work;
        (frontend_key.addr, frontend_key.port) = (tuple.dst, tuple.dport);
        (frontend_key.proto, frontend_key.pad) = (transport.proto, 0);
        let Some(frontend) = kernel.frontend(frontend_key) else { return self.request_without_frontend() };
        if !self.is_heard(frontend) {
            return Verdict::Pass;
        }
        self.set_key(Direction::Request);
        if let Some(entry) = kernel.flow(&self.work.key) {
            let may_follow = self.may_follow(entry);
            if !may_follow && kernel.forwards() {
                return Verdict::Pass;
            }
            if may_follow && self.is_wanted(frontend, entry) {
                self.follow(entry);
                if self.transport.proto == Proto::TCP {
                    self.renew_header(frontend, entry);
                }
                return self.translated(frontend);
            }
            self.forget(entry);
        }
        self.first_packet(frontend)
    }

    /// Decides a packet that may open a connection but is for no frontend. If a pod dials an endpoint directly, its
    /// flow is noted, so that no frontend's flow takes the tuple. If another flow already has the tuple, this one gets
    /// another source port.
    #[inline(always)]
    fn request_without_frontend(&mut self) -> Verdict {
        let client = self.edge.client;
        let is_of_interest =
            matches!(client, Client::Workload) || (matches!(client, Client::External) && self.gives_way());
        if is_of_interest { self.direct() } else { Verdict::Pass }
    }

    /// Whether a client in the network dials an endpoint from a port by which the endpoint knows a frontend's flow of
    /// the same client, or gave way to such a flow before. Others are not noted: pods of other nodes are such clients.
    /// On a bridge or a VLAN the SYN of that flow itself is seen again, translated: it has the number that was noted.
    #[inline(never)]
    fn gives_way(&mut self) -> bool {
        let is_tcp = self.transport.proto == Proto::TCP;
        if !is_tcp || !self.kernel.forwards() || !self.may_be_of_flow(self.work.key.tuple.sport) {
            return false;
        }
        self.set_key(Direction::Request);
        let (kernel, work) = (self.kernel, &mut *self.work);
        if kernel.flow(&work.key).is_some() {
            return true;
        }
        work.partner_key.set_partner(&work.key, &work.key.tuple);
        let Some(entry) = kernel.flow(&work.partner_key) else { return false };
        entry.read_to(&mut work.flow.to);
        work.other_key.set_partner(&work.partner_key, &work.flow.to);
        match kernel.flow(&work.other_key) {
            Some(request) => request.sequence() != self.transport.tcp.sequence(),
            None => true,
        }
    }

    /// Decides the first packet of a connection to an endpoint itself.
    #[inline(always)]
    fn direct(&mut self) -> Verdict {
        let Work { key: FlowKey { tuple, .. }, endpoint_key, .. } = &mut *self.work;
        (endpoint_key.addr, endpoint_key.port, endpoint_key.pad) = (tuple.dst, tuple.dport, 0);
        if !self.kernel.is_endpoint(endpoint_key) || !self.is_heard(DIRECT) {
            return Verdict::Pass;
        }
        self.set_key(Direction::Request);
        let is_known = self.apart(Part::FollowDirect);
        let frontend = self.work.frontend;
        (self.work.pin, self.work.masquerades) = (Pin::Nothing, 0);
        // Passes unchanged if no tuple is free, or if a frontend's flow has the tuple and the frame is for a
        // neighbour.
        if is_known || (frontend == DIRECT && self.place(DIRECT, 0, 1).is_ok()) {
            self.translated(frontend)
        } else {
            Verdict::Pass
        }
    }

    /// Whether a known flow takes a packet that may open a connection to an endpoint. Sets `work.frontend` to the
    /// frontend of the flow that has the tuple, or to [`DIRECT`] if no flow has it.
    #[inline(always)]
    fn follow_direct(&mut self) -> bool {
        self.work.frontend = DIRECT;
        let Some(entry) = self.kernel.flow(&self.work.key) else { return false };
        if self.is_over(entry) {
            self.forget(entry);
            return false;
        }
        self.work.frontend = entry.frontend();
        if !self.is_heard(entry.frontend()) {
            return false;
        }
        self.follow(entry);
        true
    }

    /// Whether the packet is a hairpin reply: a pod answers itself. If so, `work.to` holds its new tuple.
    #[inline(never)]
    fn is_own_reply(&mut self) -> bool {
        self.is_for_node() && self.reply() == Verdict::Translate
    }

    /// Whether a packet of the network may be an answer of another node's endpoint, by the port that it is for.
    #[inline(always)]
    fn may_be_answer(&self) -> bool {
        matches!(self.edge.client, Client::External)
            && self.kernel.edge_state(self.edge.id).may_have_node_port(self.work.key.tuple.dport)
    }

    /// Decides an answer of another node's endpoint: to a client, or to the node itself if its connection got another
    /// port. The answer of an endpoint on this node keeps its destination, and cannot come from the network.
    #[inline(never)]
    fn answer(&mut self) -> Verdict {
        self.set_key(Direction::Reply);
        let Some(entry) = self.kernel.flow(&self.work.key) else { return Verdict::Pass };
        entry.read_to(&mut self.work.to);
        let is_own = entry.frontend() == DIRECT;
        let is_transit = !self.work.to.dst.is(&self.work.key.tuple.dst) && self.kernel.may_forward();
        if !(is_own || is_transit) || !self.is_for_node() {
            return Verdict::Pass;
        }
        match self.follow_reply(entry) {
            Verdict::Translate if !is_own => Verdict::Forward,
            verdict => verdict,
        }
    }

    /// Whether a packet that leaves by an uplink may want the tuple of a forwarded flow: it is the node's own, or
    /// masqueraded by others, and has one of the ports that the node uses for forwarding.
    #[inline(always)]
    fn may_be_own_request(&self) -> bool {
        matches!(self.edge.client, Client::External)
            && self.kernel.forwards()
            && self.kernel.snat_ports().contains(self.work.key.tuple.sport)
            && !self.kernel.is_forwarded()
    }

    /// Decides a packet of the node itself to an endpoint. Its flow is noted, so that no forwarded flow takes its tuple.
    #[inline(never)]
    fn own_request(&mut self) -> Verdict {
        // Other sources have tuples of their own.
        if !self.kernel.is_source_of_uplink(&self.work.key.tuple.src) {
            return Verdict::Pass;
        }
        self.set_key(Direction::Request);
        match self.kernel.flow(&self.work.key) {
            Some(entry) if entry.frontend() == DIRECT && !(self.transport.opens() && self.is_over(entry)) => {
                self.follow(entry);
                self.translated(DIRECT)
            }
            _ if self.transport.opens() => self.direct(),
            _ => Verdict::Pass,
        }
    }

    /// Decides a packet that leaves the node, or a hairpin reply.
    #[inline(always)]
    pub fn reply(&mut self) -> Verdict {
        if self.may_be_of_flow(self.work.key.tuple.dport) { self.known_reply() } else { Verdict::Pass }
    }

    /// Decides a packet that may be a reply of a known flow.
    #[inline(always)]
    fn known_reply(&mut self) -> Verdict {
        self.set_key(Direction::Reply);
        match self.kernel.flow(&self.work.key) {
            Some(entry) => self.follow_reply(entry),
            None => Verdict::Pass,
        }
    }

    /// Decides a reply of a known flow.
    #[inline(always)]
    fn follow_reply(&mut self, entry: K::Flow) -> Verdict {
        if self.transport.tcp.has(TcpFlags::SYN) && self.is_of_another(entry.state()) {
            self.forget(entry);
            return Verdict::Pass;
        }
        self.follow(entry);
        if self.work.is_untouched(entry.frontend()) {
            return Verdict::Pass;
        }
        self.kernel.count(Counter::ReplyTranslated);
        self.kernel.count_frontend(entry.frontend(), Event::Translated);
        Verdict::Translate
    }

    /// Whether a backend's SYN opens a direct connection that reuses the tuple of an ended flow. A SYN-ACK after a
    /// reset of the client's SYN still belongs to the flow: the backend does not know of that reset.
    #[inline(always)]
    fn is_of_another(&self, state: FlowState) -> bool {
        let is_answer = matches!(state, FlowState::ResetNew) && self.transport.tcp.has(TcpFlags::ACK);
        state.has_ended() && !is_answer
    }

    /// Whether any flow of this edge may have this client port. One word rules out most packets that belong to no
    /// flow, such as those of servers in pods. A lookup in the flow table would cost ten times as much.
    #[inline(always)]
    fn may_be_of_flow(&self, client_port: u16) -> bool {
        self.kernel.edge_state(self.edge.id).may_have_client_port(client_port)
    }

    /// Completes the flow key of the packet. The parser has already written the tuple.
    #[inline(always)]
    fn set_key(&mut self, direction: Direction) {
        let key = &mut self.work.key;
        key.edge = self.edge.id;
        key.proto = self.transport.proto;
        key.direction = direction;
        key.pad = 0;
    }

    /// Counts a translated request. If its source changes with its destination, the verdict sends it back to its pod, or
    /// on to another node.
    #[inline(always)]
    fn translated(&mut self, frontend: u32) -> Verdict {
        if self.work.is_untouched(frontend) {
            return Verdict::Pass;
        }
        if self.work.wish == HeaderWish::NOTHING {
            self.count_request(frontend);
        } else {
            // It may become two segments, of which one is counted: the client sent one.
            self.work.frontend = frontend;
        }
        if self.work.to.src.is(&self.work.key.tuple.src) {
            Verdict::Translate
        } else if matches!(self.edge.client, Client::External) {
            Verdict::Forward
        } else {
            Verdict::Hairpin
        }
    }

    #[inline(always)]
    pub(crate) fn count_request(&self, frontend: u32) {
        self.kernel.count(Counter::RequestTranslated);
        self.kernel.count_frontend(frontend, Event::Translated);
    }

    /// Whether the packet may follow this flow where it is seen: what leads to another node may not leave from everywhere.
    #[inline(always)]
    fn may_follow(&mut self, entry: K::Flow) -> bool {
        if !matches!(self.edge.client, Client::External) || self.kernel.may_forward() {
            return true;
        }
        entry.read_to(&mut self.work.to);
        self.work.to.src.is(&self.work.key.tuple.src)
    }

    /// Whether a packet that may open a flow (a TCP SYN, any UDP or SCTP packet) continues this known one.
    #[inline(always)]
    fn is_wanted(&mut self, frontend: u32, entry: K::Flow) -> bool {
        if self.is_over(entry) {
            return false;
        }
        let scope = self.kernel.scope(frontend, self.edge.client);
        match scope.action {
            Action::Balance if scope.pool == entry.pool() && entry.frontend() == frontend => true,
            Action::Balance => self.is_still_member(frontend, scope, entry),
            // VIP became Proxy, or the frontend is gone: datagrams keep their flow, a new connection does not.
            Action::Pass => self.transport.proto != Proto::TCP,
            Action::Drop => self.transport.proto != Proto::TCP && self.still_serves(frontend, entry),
            Action::Reject => false,
        }
    }

    /// Whether the backend of a flow that another pool chose still belongs to the Service. If the backend is in the
    /// scope's set, the flow notes the new pool. A terminating backend is in no pool, and may be removed while the
    /// pool stays, so each packet asks again.
    #[inline(never)]
    fn is_still_member(&mut self, frontend: u32, scope: Scope, entry: K::Flow) -> bool {
        if self.member_sets_of(frontend, entry) & scope.set() != 0 {
            entry.set_pool(scope.pool);
            return true;
        }
        self.kernel.is_member(&self.work.member_key)
    }

    /// Whether the backend of a flow still serves, although a policy leaves no endpoint for new ones: datagrams keep it, as
    /// with conntrack.
    #[inline(never)]
    fn still_serves(&mut self, frontend: u32, entry: K::Flow) -> bool {
        self.member_sets_of(frontend, entry) & MemberSets::CLUSTER != 0
    }

    /// The sets that have the backend of a flow. Leaves its key in the records.
    #[inline(always)]
    fn member_sets_of(&mut self, frontend: u32, entry: K::Flow) -> u8 {
        let (kernel, work) = (self.kernel, &mut *self.work);
        entry.read_to(&mut work.to);
        work.member_key.service_port = kernel.service_port(frontend);
        (work.member_key.addr, work.member_key.port, work.member_key.pad) = (work.to.dst, work.to.dport, 0);
        kernel.member_sets(&work.member_key)
    }

    /// Whether a flow has ended, or has been quiet for longer than its timeout.
    #[inline(always)]
    fn is_over(&self, entry: K::Flow) -> bool {
        let quiet_jiffies = flow::quiet_jiffies(entry.last_seen_jiffies(), self.kernel.now_jiffies());
        flow::is_over(self.transport.proto, entry.state(), quiet_jiffies, &self.kernel.timeouts())
    }

    /// Lets the packet of a known flow change the flow's state. False if the flow is gone.
    #[inline(always)]
    fn settle(&mut self) -> bool {
        let entry = self.kernel.flow(&self.work.key);
        if let Some(entry) = entry {
            self.follow(entry);
        }
        entry.is_some()
    }

    /// Takes the packet's new tuple from a flow. Writes the flow's state and time stamp only if a second has passed or
    /// the state changes. Notes the sequence number every 64 KiB.
    #[inline(always)]
    fn follow(&mut self, entry: K::Flow) {
        entry.read_to(&mut self.work.to);
        if entry.has_header() {
            self.work.wish = HeaderWish::DUE;
        }
        let now_jiffies = self.kernel.now_jiffies();
        let (before, noted) = (entry.state(), entry.sequence());
        let state = flow::follow(before, self.work.key.direction, self.transport.tcp, noted);
        if self.transport.tcp.sequence() != noted && flow::is_noted(before, self.transport.tcp, noted) {
            entry.set_sequence(self.transport.tcp.sequence());
        }
        let last_seen_jiffies = entry.last_seen_jiffies();
        let second_jiffies = self.kernel.second_jiffies();
        if state == before && flow::quiet_jiffies(last_seen_jiffies, now_jiffies) < second_jiffies {
            return;
        }
        entry.touch(now_jiffies);
        entry.set_state(state);
        if flow::is_proved(before, state) {
            self.kernel.give_embryo();
        }
        // The other entry is refreshed as often as this one. Waiting for a longer quiet would leave a busy flow
        // without it.
        self.refresh_partner(entry);
        // Last: a noted flow may be deleted at once, and its elements reused for another flow.
        self.note_spent(before, state);
    }

    /// Makes the other entry of a flow agree with this one, and restores the other entry if it was evicted.
    #[inline(always)]
    fn refresh_partner(&mut self, entry: K::Flow) {
        let flow = &mut self.work.flow;
        flow.frontend = entry.frontend();
        flow.pool = entry.pool();
        flow.state = entry.state();
        flow.last_seen_jiffies = entry.last_seen_jiffies();
        flow.set_header(entry.has_header());
        self.apart(Part::RefreshPartner);
    }

    /// Makes the other entry of the packet's flow agree with `work.flow`, except for its tuple.
    #[inline(always)]
    fn write_partner(&mut self) {
        let (kernel, work) = (self.kernel, &mut *self.work);
        match Partner::of_packet(kernel, work) {
            Partner::Own(partner) => {
                partner.touch(work.flow.last_seen_jiffies);
                partner.set_state(work.flow.state);
            }
            // The entry was evicted, and its tuple has gone to another flow since.
            Partner::Another => {}
            Partner::Lost => {
                work.flow.to.set_reversed(&work.key.tuple);
                work.flow.set_sequence(Sequence::NONE);
                // Refused: the next refresh tries again.
                let _ = kernel.insert_flow(&work.partner_key, &work.flow);
            }
        }
    }

    /// Removes both entries of the packet's flow.
    #[inline(never)]
    fn forget(&mut self, entry: K::Flow) {
        entry.read_to(&mut self.work.to);
        Partner::forget_both(self.kernel, self.work);
    }

    /// Decides the first packet of a flow to a frontend.
    #[inline(always)]
    fn first_packet(&mut self, frontend: u32) -> Verdict {
        let kernel = self.kernel;
        let scope = kernel.scope(frontend, self.edge.client);
        if scope.has(ScopeFlags::SOURCE_RANGES) && !self.is_source_allowed(frontend) {
            return Verdict::Drop(DropReason::SourceRange);
        }
        match scope.action {
            Action::Pass => {
                kernel.count(Counter::PassedProxy);
                kernel.count_frontend(frontend, Event::Passed);
                self.tell(Counter::PassedProxy, frontend);
                Verdict::Pass
            }
            Action::Reject => Verdict::Reject,
            Action::Drop => Verdict::Drop(DropReason::NoLocalEndpoint),
            Action::Balance => {
                self.work.pin = Pin::Nothing;
                self.work.masquerades = u32::from(scope.has(ScopeFlags::MASQUERADE));
                if self.transport.proto == Proto::TCP {
                    self.work.wish = HeaderWish::of_new(scope);
                }
                if self.work.masquerades != 0 && matches!(self.edge.client, Client::External) && !kernel.may_forward() {
                    return Verdict::Pass;
                }
                if scope.has(ScopeFlags::AFFINITY | ScopeFlags::MAGLEV) && !self.pin(frontend, scope) {
                    return Verdict::Drop(DropReason::NoBackend);
                }
                match self.place(frontend, scope.pool, scope.count) {
                    Ok(()) => {}
                    // Without a way to any endpoint, the packet is the stack's, as without forwarding.
                    Err(DropReason::NoRoute) => {
                        kernel.count(Counter::PassedNoRoute);
                        self.tell(Counter::PassedNoRoute, frontend);
                        return Verdict::Pass;
                    }
                    Err(reason) => return Verdict::Drop(reason),
                }
                if scope.has(ScopeFlags::AFFINITY) {
                    self.remember();
                }
                self.tell(Counter::FlowCreated, frontend);
                self.translated(frontend)
            }
        }
    }

    /// A SYN on a known flow without a row of its header: if the frontend wants one, the SYN may open a connection that
    /// needs it. The row goes before the mark: a mark alone drops all packets, and a spoofed SYN must not leave one.
    #[inline(never)]
    fn renew_header(&mut self, frontend: u32, entry: K::Flow) {
        let (kernel, work) = (self.kernel, &mut *self.work);
        let is_marked = entry.has_header();
        if is_marked && kernel.header(&work.key).is_some() {
            return;
        }
        let wish = HeaderWish::of_new(kernel.scope(frontend, self.edge.client));
        if wish != HeaderWish::NOTHING {
            // With a mark, the row was lost: nothing may pass until the backend answers.
            work.wish = if is_marked { wish } else { wish | HeaderWish::RENEWS };
        }
    }

    /// Whether the source ranges let the client open a flow. As in netfilter, this is asked with the client's original
    /// address, before the packet is balanced, rejected or dropped. Known flows are not asked again.
    #[inline(never)]
    fn is_source_allowed(&mut self, frontend: u32) -> bool {
        let set = self.kernel.source_ranges(frontend);
        if set == 0 {
            // The restriction was lifted after the scope was read.
            return true;
        }
        let Work { key, source_key, .. } = &mut *self.work;
        source_key.set_client(set, key.tuple.src);
        self.kernel.is_source_allowed(source_key)
    }
}
