//! The decision about a packet whose flow's header is due: the rules, over the tables.

use super::known::FlowRef as _;
use super::pair::Partner;
use super::run::{HeaderRef as _, Maps, Path};
use crate::addr::Addr;
use crate::header::rules::Act;
use crate::parse::TcpFlags;
use crate::table::{Counter, Direction, ProxyHeader};
use crate::work::HeaderWish;

/// How often a header is repeated in a second, if nothing else asks for it.
const REPEATS_PER_SEC: u64 = 10;

impl<A: Addr, K: Maps<A>> Path<'_, A, K> {
    /// Leaves the edit for the segment in the records. False if the packet is dropped, for the reason in the records.
    #[inline(always)]
    pub(super) fn decide_header(&mut self) -> bool {
        match self.work.key.direction {
            Direction::Request => self.decide_request(),
            Direction::Reply => {
                self.decide_reply();
                true
            }
        }
    }

    #[inline(always)]
    fn decide_request(&mut self) -> bool {
        let (kernel, work) = (self.kernel, &mut *self.work);
        let is_due = work.wish == HeaderWish::DUE;
        let renews = work.wish & HeaderWish::RENEWS != 0;
        // A flow that begins anew with the SYN of the one before keeps its row: the backend may already have answered.
        let found = kernel.header(&work.key);
        let found = found.filter(|row| is_due || (!renews && row.read().is_of_syn(&work.located.segment)));
        let row = match found {
            Some(row) => row.read(),
            None if is_due => return self.is_without_row(),
            None => {
                let is_v2 = work.wish & HeaderWish::NEW_V2 != 0;
                ProxyHeader::new(work.text_len as u8, is_v2, renews)
            }
        };
        let repeat_jiffies = (kernel.second_jiffies() / REPEATS_PER_SEC) as u32;
        work.edit = row.request(&work.located.segment, kernel.now_jiffies() as u32, repeat_jiffies);
        match found {
            Some(element) => element.write_request(&work.edit.row),
            None if !kernel.write_header(&work.key, &work.edit.row) => {
                work.reason = Counter::DropFlowTable;
                return false;
            }
            None if renews => self.mark(true),
            None => {}
        }
        self.work.reason = Counter::DropHeaderForged;
        self.work.edit.act != Act::Drop
    }

    /// Decides a request whose row is gone. Either the header has just been acknowledged, or the row was evicted: then
    /// the backend would take the client's bytes for the header.
    #[inline(always)]
    fn is_without_row(&mut self) -> bool {
        let (kernel, work) = (self.kernel, &mut *self.work);
        let segment = &work.located.segment;
        work.edit = segment.unchanged(ProxyHeader::new(0, false, false));
        work.reason = Counter::DropHeaderLost;
        let is_acknowledged = kernel.flow(&work.key).is_some_and(|entry| !entry.has_header());
        is_acknowledged || segment.flags & TcpFlags::RST != 0
    }

    #[inline(always)]
    fn decide_reply(&mut self) {
        let (kernel, work) = (self.kernel, &mut *self.work);
        work.partner_key.set_partner(&work.key, &work.to);
        let Some(element) = kernel.header(&work.partner_key) else {
            work.edit = work.located.segment.unchanged(ProxyHeader::new(0, false, false));
            return;
        };
        work.edit = element.read().reply(&work.located.segment);
        if work.edit.is_acknowledged {
            self.acknowledge();
        } else {
            element.write_reply(&work.edit.row);
        }
    }

    /// The backend has the header. The marks go first: a request with a mark and without a row would be dropped.
    #[inline(always)]
    fn acknowledge(&mut self) {
        self.mark(false);
        self.kernel.remove_header(&self.work.partner_key);
        self.kernel.count(Counter::HeaderAcknowledged);
    }

    /// Marks both entries of the packet's flow: its header is due, or not.
    #[inline(always)]
    fn mark(&mut self, is_due: bool) {
        let (kernel, work) = (self.kernel, &mut *self.work);
        if let Partner::Own(other) = Partner::of_packet(kernel, work) {
            other.set_header(is_due);
        }
        if let Some(own) = kernel.flow(&work.key) {
            own.set_header(is_due);
        }
    }
}
