//! The node in the middle: one flow, and the row of its header.

use lb_common::header::rules::{Act, Edit, Segment};
use lb_common::parse::TcpFlags;
use lb_common::table::{HeaderFlags, ProxyHeader};

use crate::wire::{Byte, H, Wire};

const REPEAT_JIFFIES: u32 = 100;

#[derive(Debug, Default)]
pub struct Node {
    flow: Option<Flow>,
    row: Option<ProxyHeader>,
    /// The clock wraps soon.
    now_jiffies: u32,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    /// A header is due.
    is_marked: bool,
    /// Which end closed.
    has_finished: [bool; 2],
    is_reset: bool,
}

impl Flow {
    fn see(&mut self, segment: &Wire, end: usize) {
        self.is_reset = segment.has(TcpFlags::RST);
        self.has_finished[end] |= segment.has(TcpFlags::FIN);
    }

    /// A SYN makes a new flow.
    fn has_ended(self) -> bool {
        self.is_reset || self.has_finished == [true; 2]
    }
}

impl Node {
    pub fn wait(&mut self, jiffies: u32) {
        self.now_jiffies = self.now_jiffies.wrapping_add(jiffies);
    }

    pub fn lose_row(&mut self) {
        self.row = None;
    }

    pub fn lose_flow(&mut self) {
        self.flow = None;
    }

    /// Whether no header is due, except for a late SYN, which no backend will answer.
    pub fn is_done(&self) -> bool {
        let is_renewed = self.row.is_some_and(|row| row.flags & HeaderFlags::RENEWED != 0);
        is_renewed || (self.flow.is_some_and(|flow| !flow.is_marked) && self.row.is_none())
    }

    pub fn request(&mut self, segment: &Wire) -> Vec<Wire> {
        if facts(segment).opens() {
            self.begin();
        }
        let Some(flow) = &mut self.flow else { return Vec::new() };
        flow.see(segment, 0);
        if !flow.is_marked {
            return vec![segment.clone()];
        }
        let Some(row) = self.row else {
            // The header is lost: only a reset may pass.
            return if segment.has(TcpFlags::RST) { vec![segment.clone()] } else { Vec::new() };
        };
        let edit = row.request(&facts(segment), self.now_jiffies, REPEAT_JIFFIES);
        self.row = Some(edit.row);
        match edit.act {
            Act::Renumber => vec![renumbered(segment, &edit)],
            Act::Open => vec![Wire { bytes: Vec::new(), ..renumbered(segment, &edit) }],
            Act::Carry => vec![header(segment, &edit)],
            Act::Precede => vec![header(segment, &edit), segment.clone()],
            Act::Double => vec![renumbered(segment, &edit), segment.clone()],
            Act::Drop => Vec::new(),
        }
    }

    pub fn reply(&mut self, segment: &Wire) -> Vec<Wire> {
        let Some(flow) = &mut self.flow else { return Vec::new() };
        flow.see(segment, 1);
        let Some(row) = self.row.filter(|_| flow.is_marked) else { return vec![segment.clone()] };
        let edit = row.reply(&facts(segment));
        self.row = Some(edit.row);
        if edit.is_acknowledged {
            (flow.is_marked, self.row) = (false, None);
        }
        vec![renumbered(segment, &edit)]
    }

    /// A SYN: the Service wants a header.
    fn begin(&mut self) {
        match &mut self.flow {
            Some(flow) if !flow.has_ended() => {
                if !flow.is_marked {
                    self.row = Some(ProxyHeader::new(H, true, true));
                }
                flow.is_marked = true;
            }
            ended_or_none => {
                *ended_or_none = Some(Flow { is_marked: true, has_finished: [false; 2], is_reset: false });
                self.row = None;
            }
        }
        self.row.get_or_insert(ProxyHeader::new(H, true, false));
    }
}

fn facts(segment: &Wire) -> Segment {
    let payload_len = u32::try_from(segment.bytes.len()).expect("a short segment");
    Segment { flags: segment.flags, seq: segment.seq, ack: segment.ack, payload_len, window: 1_000 }
}

fn renumbered(segment: &Wire, edit: &Edit) -> Wire {
    Wire { seq: edit.seq, ack: edit.ack, ..segment.clone() }
}

fn header(segment: &Wire, edit: &Edit) -> Wire {
    let bytes = (0..H).map(Byte::Header).collect();
    Wire { flags: segment.flags & !TcpFlags::FIN, bytes, ..renumbered(segment, edit) }
}
