//! The node in the middle: one flow, and the row of its header.

use lb_common::header::rules::{Act, Edit, Segment};
use lb_common::parse::TcpFlags;
use lb_common::table::{HeaderFlags, ProxyHeader};

use crate::wire::{Byte, Wire};

const REPEAT_JIFFIES: u32 = 100;

#[derive(Debug)]
pub struct Node {
    flow: Option<Flow>,
    row: Option<ProxyHeader>,
    /// The row in the tables of an agent before, which the new one has yet to copy.
    uncopied: Option<ProxyHeader>,
    /// The length of the header that the Service wants.
    wanted_len: Option<u8>,
    now_jiffies: u32,
    /// SYNs on their way to the backend: the number, and the length of the header that follows.
    opened: Vec<(u32, u8)>,
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
    pub fn new(wanted_len: u8) -> Self {
        // The clock wraps soon.
        let now_jiffies = u32::MAX - 500;
        Self { flow: None, row: None, uncopied: None, wanted_len: Some(wanted_len), now_jiffies, opened: Vec::new() }
    }

    pub fn wait(&mut self, jiffies: u32) {
        self.now_jiffies = self.now_jiffies.wrapping_add(jiffies);
    }

    pub fn lose_row(&mut self) {
        (self.row, self.uncopied) = (None, None);
    }

    pub fn lose_flow(&mut self) {
        self.flow = None;
    }

    /// The Service changes: other backends, another version, or none.
    pub fn want(&mut self, len: Option<u8>) {
        self.wanted_len = len;
    }

    /// An agent with other tables takes over, after the one before has copied all. Its programs find the flow in the tables
    /// before, but not yet the row.
    pub fn take_over(&mut self) {
        self.copy();
        self.uncopied = self.row.take();
    }

    /// Rows that are lacking are copied, and answers that were missed.
    pub fn copy(&mut self) {
        let Some(uncopied) = self.uncopied.take() else { return };
        self.row = Some(self.row.map_or(uncopied, |row| uncopied.with_syn_of(&row).unwrap_or(row)));
    }

    /// Whether no header is due, except for a late SYN, which no backend will answer.
    pub fn is_done(&self) -> bool {
        let is_renewed = self.row.is_some_and(|row| row.flags & HeaderFlags::RENEWED != 0);
        is_renewed || self.flow.is_some_and(|flow| !flow.is_marked)
    }

    /// Lengths of the headers that connections with this number at the backend may begin with; 0: none.
    pub fn lens(&self, isn: u32) -> impl Iterator<Item = u8> {
        self.opened.iter().filter(move |(opened, _)| *opened == isn).map(|(_, len)| *len)
    }

    /// The numbers by which the backend knows the client's connection with this number.
    pub fn at_backend(&self, isn: u32) -> impl Iterator<Item = (u32, u8)> {
        let is_of = move |(number, len): &(u32, u8)| number.wrapping_add(u32::from(*len)) == isn;
        self.opened.iter().copied().filter(is_of)
    }

    /// The number that an ICMP error quotes to the client, if the row knows the client's connection with this number.
    pub fn quoted(&self, stream: u32, seq: u32) -> Option<u32> {
        let row = self.row?;
        let is_known = row.next_isn == stream || (row.answered != 0 && row.isn == stream);
        is_known.then(|| row.quoted(seq))
    }

    pub fn request(&mut self, segment: &Wire) -> Vec<Wire> {
        let out = self.request_edited(segment);
        for syn in out.iter().filter(|out| facts(out).opens()) {
            self.opened.push((syn.seq, segment.seq.wrapping_sub(syn.seq) as u8));
        }
        out
    }

    fn request_edited(&mut self, segment: &Wire) -> Vec<Wire> {
        if facts(segment).opens() {
            self.begin(segment);
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

    /// A SYN.
    fn begin(&mut self, segment: &Wire) {
        let new = |renews| self.wanted_len.map(|len| ProxyHeader::new(len, true, renews));
        match &mut self.flow {
            Some(flow) if !flow.has_ended() => {
                if !flow.is_marked {
                    (self.row, flow.is_marked) = (new(true), self.wanted_len.is_some());
                } else if self.row.is_none() {
                    self.row = new(false);
                }
            }
            ended_or_none => {
                let is_marked = self.wanted_len.is_some();
                *ended_or_none = Some(Flow { is_marked, has_finished: [false; 2], is_reset: false });
                self.row = self.row.filter(|row| is_marked && row.is_of_syn(&facts(segment))).or(new(false));
            }
        }
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
    let len = edit.row.len_bytes;
    let bytes = (0..len).map(|place| Byte::Header(len, place)).collect();
    Wire { flags: segment.flags & !TcpFlags::FIN, bytes, ..renumbered(segment, edit) }
}
