//! The path of a packet through one hook: parse, decide, perform. The entry points of `lb-ebpf` call
//! [`Run::handle`].

use crate::addr::{Family, Proto};
use crate::forward::{HeaderWish, Hook, Path, Whose, whose};
use crate::fragment::{Datagram, First, Fragments};
use crate::packet::{Addressee, Packet, PacketMut, Refused};
use crate::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Headers, Parse, Parsed};
use crate::reject::{Answer, Message, answer};
use crate::rewrite::{translate, turn_round};
use crate::run::Run;
use crate::table::{Counter, Direction, Tuple};
use crate::verdict::{Course, HookAction, Verdict};

/// The IP family of a packet. None if the packet is neither IPv4 nor IPv6.
#[inline(always)]
pub fn family(packet: &impl Packet) -> Option<Family> {
    match packet.ethertype() {
        ETHERTYPE_IPV4 => Some(Family::V4),
        ETHERTYPE_IPV6 => Some(Family::V6),
        _ => None,
    }
}

impl<A: Answer, P: PacketMut, K: Fragments<A>> Run<'_, A, P, K> {
    /// Handles the packet.
    #[inline(always)]
    pub fn handle(&mut self) -> HookAction {
        self.work.stray = match self.hook.direction {
            Direction::Reply => 0,
            // The bridge of the interface is looked up later and only if needed: most frames belong to no flow.
            Direction::Request => match self.packet.addressee() {
                Addressee::Interface => 0,
                Addressee::Another => 1,
                Addressee::Group => return HookAction::Next,
            },
        };
        let headers = match parse(self.packet, &mut self.work.key.tuple) {
            Parsed::Transport(headers) => headers,
            Parsed::Short(proto, first_of) if first_of.is_some() => Headers::without_ports(proto, first_of),
            Parsed::Icmp(l4) => return self.message(l4),
            Parsed::Fragment(proto, id) => return self.follow_first(Datagram::new(proto, id, self.hook)),
            Parsed::Short(..) | Parsed::Other => return HookAction::Next,
        };
        // In one place: the verifier walks every inlined copy.
        self.transport(headers)
    }

    /// Decides and performs a packet with ports. If later fragments wait for a first fragment, all of them are
    /// re-injected, the first fragment ahead; it is decided on that second pass, and the others find its note. A first
    /// fragment without ports (too short, RFC 1858, or of another protocol) passes, and so does the rest of its
    /// datagram.
    #[inline(always)]
    fn transport(&mut self, mut headers: Headers) -> HookAction {
        if headers.first_of.is_some() && whose(self.kernel, self.work) != Whose::Node {
            // A datagram between neighbours on the bridge. A flow changes only its ports, and later fragments have
            // none.
            if !headers.has_ports {
                return HookAction::Next;
            }
            headers.first_of = None;
        }
        if let Some(id) = headers.first_of {
            let datagram = Datagram::new(headers.proto, id.get(), self.hook);
            if self.reinject_awaited(datagram) == First::Reinjected {
                return HookAction::Drop;
            }
            if !headers.has_ports {
                return self.pass_datagram();
            }
        }
        headers.first_of = self.packet.forget_datagram(headers.first_of);
        self.work.wish = HeaderWish::NOTHING;
        let Hook { edge, direction } = self.hook;
        let mut path = Path { transport: headers.transport(), edge, kernel: self.kernel, work: self.work };
        let verdict = match direction {
            Direction::Request => path.request(),
            Direction::Reply => path.leave(),
        };
        if matches!(direction, Direction::Request) && self.packet.take_copy() {
            // Its header went before it.
            self.work.wish = HeaderWish::NOTHING;
        }
        if headers.first_of.is_some() && self.note_verdict(verdict) == First::Reinjected {
            return HookAction::Drop;
        }
        self.perform(&headers, verdict)
    }

    #[inline(always)]
    fn perform(&mut self, headers: &Headers, verdict: Verdict) -> HookAction {
        let course = match verdict {
            Verdict::Pass => return HookAction::Next,
            Verdict::Translate => Course::Stack,
            Verdict::Hairpin => Course::Back,
            Verdict::Forward => Course::On,
            Verdict::Reject => return self.reject(headers),
            Verdict::Drop(reason) => return self.refuse(reason.counter(), headers.proto),
        };
        if self.work.wish != HeaderWish::NOTHING {
            return self.leave_to_header(headers, course);
        }
        self.translate(headers, course)
    }

    /// Gives the packet its new tuple.
    #[inline(always)]
    pub(crate) fn translate(&mut self, headers: &Headers, course: Course) -> HookAction {
        let (packet, work) = (&mut *self.packet, &*self.work);
        let from = &work.key.tuple;
        let (done, action) = match course {
            Course::Stack => (translate(packet, headers, from, work.to()), work.translated(work.key.direction)),
            Course::Back => {
                (turn_round(packet).and_then(|()| translate(packet, headers, from, work.to())), HookAction::SendBack)
            }
            Course::On => {
                self.work.l4 = headers.l4 as u32;
                return HookAction::Forward;
            }
        };
        self.done(done, action)
    }

    #[inline(always)]
    fn reject(&mut self, headers: &Headers) -> HookAction {
        if !self.kernel.may_reject(self.work.key.edge) {
            return self.refuse(Counter::DropRejectLimit, headers.proto);
        }
        self.refuse(Counter::Rejected, headers.proto);
        let done = answer(self.packet, headers, Message::PORT_UNREACHABLE, self.work);
        self.done(done, HookAction::SendBack)
    }

    #[inline(always)]
    fn done(&self, done: Result<(), Refused>, action: HookAction) -> HookAction {
        if done.is_err() {
            self.kernel.count(Counter::DropRewrite);
            return HookAction::Drop;
        }
        action
    }

    /// Leaves a packet, whose flow's header is due, to [`Run::header`].
    #[inline(always)]
    fn leave_to_header(&mut self, headers: &Headers, course: Course) -> HookAction {
        if headers.first_of.is_some() {
            // Numbers are changed in segments alone. No stack cuts them (RFC 6691).
            return self.refuse(Counter::DropHeaderLost, headers.proto);
        }
        (self.work.l4, self.work.course) = (headers.l4 as u32, course);
        HookAction::Header
    }

    /// Counts and notes a packet that is rejected or dropped. The decision may have ended before the key was complete.
    #[inline(always)]
    pub(crate) fn refuse(&mut self, reason: Counter, proto: Proto) -> HookAction {
        let (Hook { edge, direction }, key) = (self.hook, &mut self.work.key);
        (key.edge, key.proto, key.direction, key.pad) = (edge.id, proto, direction, 0);
        self.kernel.count(reason);
        Path::resumed(self.kernel, self.work).note_refused(reason);
        HookAction::Drop
    }
}

/// Parses the headers in place. If the linear part of the skb is too short, pulls them into it and parses again. A
/// pull costs ten times as much as a read, and hardly any packet needs one.
#[inline(always)]
fn parse<A: Parse>(packet: &mut impl PacketMut, tuple: &mut Tuple<A>) -> Parsed {
    match A::parse(packet, tuple) {
        Parsed::Short(..) if packet.pull() => A::parse(packet, tuple),
        parsed => parsed,
    }
}
