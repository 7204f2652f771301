//! Deals with the packets of flows whose header is due. It lets the kernel run each step in a function of its own.

use crate::forward::{HeaderWish, Part, Path};
use crate::fragment::Fragments;
use crate::header::rules::Act;
use crate::packet::{PacketMut, Refused};
use crate::parse::{Headers, TcpFlags};
use crate::payload::clear_options;
use crate::reject::Answer;
use crate::run::Run;
use crate::spell::Spelled;
use crate::table::{Counter, Direction};
use crate::verdict::HookAction;

impl<A: Answer + Spelled, P: PacketMut, K: Fragments<A>> Run<'_, A, P, K> {
    /// Handles the packet that [`Run::handle`] left because of the header of its flow.
    #[inline(always)]
    pub fn header(&mut self) -> HookAction {
        let l4 = self.packet.forget_offset(self.work.l4 as usize);
        if !self.is_edited(l4) {
            return self.refuse(self.work.reason, self.work.key.proto);
        }
        let headers =
            Headers { proto: self.work.key.proto, tcp: TcpFlags::default(), l4, has_ports: true, first_of: None };
        self.translate(&headers, self.work.course)
    }

    /// Decides and edits the packet. False if it is dropped, for the reason in the records.
    #[inline(always)]
    fn is_edited(&mut self, l4: usize) -> bool {
        self.work.reason = Counter::DropRewrite;
        if !self.work.located.read::<A>(self.packet, l4) {
            return false;
        }
        if self.work.wish != HeaderWish::DUE {
            // The header of a connection that begins is written once to know its length.
            self.work.spells_v2 = self.work.wish & HeaderWish::NEW_V2;
            self.kernel.spell(self.work);
        }
        if !Path::resumed(self.kernel, self.work).apart(Part::DecideHeader) {
            return false;
        }
        if matches!(self.work.key.direction, Direction::Request) {
            // As the client sent it. The copy of a segment is not counted.
            let frontend = self.work.frontend;
            Path::resumed(self.kernel, self.work).count_request(frontend);
        }
        self.work.reason = Counter::DropRewrite;
        self.edit().is_ok()
    }

    #[inline(always)]
    fn edit(&mut self) -> Result<(), Refused> {
        let act = self.work.edit.act;
        if matches!(act, Act::Precede | Act::Double) {
            // If the copy is refused, its data is lost, and sent again by the client.
            let _ = self.packet.send_copy();
        }
        if matches!(act, Act::Open) {
            clear_options(self.packet, &self.work.located)?;
        }
        self.work.located.renumber(self.packet, &self.work.edit)?;
        match act {
            Act::Carry | Act::Precede => {
                self.work.spells_v2 = u32::from(self.work.edit.row.is_v2());
                self.kernel.spell(self.work);
                if self.work.text_len != u32::from(self.work.edit.row.len_bytes) {
                    return Err(Refused);
                }
                self.work.located.make_data(self.packet)?;
                self.kernel.count(Counter::HeaderSent);
                self.kernel.replace_payload(self.packet, self.work)
            }
            Act::Open if self.work.located.segment.payload_len != 0 => {
                (self.work.text_len, self.work.text_sum) = (0, 0);
                self.kernel.replace_payload(self.packet, self.work)
            }
            Act::Open | Act::Renumber | Act::Double | Act::Drop => Ok(()),
        }
    }
}
