//! Finds flows that have been quiet for too long. A BPF program checks each one again and deletes it.

use std::collections::BTreeSet;

use aya::Ebpf;
use aya::programs::{TestRun as _, TestRunOptions};
use lb_common::addr::{Addr, Family};
use lb_common::flow::{Timeouts, is_expired, quiet_jiffies};
use lb_common::garbage::Due;
use lb_common::packet::ETHERNET_LEN;
use lb_common::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use lb_common::table::{COLLECTED_KEYS_MAX, Direction, FlowKey};

use super::maps::{FamilyMaps, Maps};
use super::shares::EdgeCounts;
use super::sys::Cursor;
use super::transit::PortUse;
use super::{Error, object};

/// Rows per step. A step takes some milliseconds, so a change does not wait for a walk over a large table.
const STEP_ROWS: usize = 16_384;

/// The result of a walk over both flow tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Remaining flows, by family.
    pub flows4: usize,
    pub flows6: usize,
    /// Entries found, before any was deleted.
    pub entries4: usize,
    pub entries6: usize,
    /// Expired flows that were deleted.
    pub collected: u64,
    /// The elements of `edges` that have nearly used up their share. `trimmed` counts the flows deleted there.
    pub crowded: BTreeSet<u32>,
    pub trimmed: u64,
    /// Ports of this node in use for forwarded flows.
    pub port_use: PortUse,
}

/// The position of a walk.
#[derive(Debug, Default)]
pub struct Walk {
    v4: Cursor,
    v6: Cursor,
    found: Garbage,
    counts: EdgeCounts,
}

impl Walk {
    /// Looks at some rows. Returns the totals at the end of the walk.
    pub fn step(
        &mut self,
        ebpf: &mut Ebpf,
        maps: &Maps,
        (now_jiffies, timeouts): (u64, &Timeouts),
    ) -> Result<Option<(Garbage, EdgeCounts)>, Error> {
        if !self.v4.is_at_end() {
            let counts = (&mut self.counts, &mut self.found.port_use);
            let step = step((&mut self.v4, counts), ebpf, &maps.v4, (now_jiffies, timeouts))?;
            self.found.entries4 += step.entries;
            self.found.flows4 += step.requests;
            self.found.collected += step.collected;
            return Ok(None);
        }
        if !self.v6.is_at_end() {
            let counts = (&mut self.counts, &mut self.found.port_use);
            let step = step((&mut self.v6, counts), ebpf, &maps.v6, (now_jiffies, timeouts))?;
            self.found.entries6 += step.entries;
            self.found.flows6 += step.requests;
            self.found.collected += step.collected;
        }
        let is_over = self.v6.is_at_end();
        Ok(is_over.then(|| std::mem::take(self)).map(|Self { found, counts, .. }| (found, counts)))
    }
}

/// The result of one step over one table.
struct Step {
    entries: usize,
    /// Remaining flows, counted by their request entries.
    requests: usize,
    /// Flows that were deleted.
    collected: u64,
}

/// Looks at some rows of one table.
fn step<A: Addr>(
    (cursor, (counts, port_use)): (&mut Cursor, (&mut EdgeCounts, &mut PortUse)),
    ebpf: &mut Ebpf,
    maps: &FamilyMaps<A>,
    (now_jiffies, timeouts): (u64, &Timeouts),
) -> Result<Step, Error> {
    let (mut looked_at, mut entries, mut requests, mut expired) = (0, 0, 0, Vec::new());
    while looked_at < STEP_ROWS && !cursor.is_at_end() {
        let rows = maps.flows.walk(cursor)?;
        looked_at += rows.len().max(1);
        entries += rows.len();
        for (key, flow) in rows {
            requests += usize::from(key.direction == Direction::Request);
            let quiet = quiet_jiffies(flow.last_seen_jiffies, now_jiffies);
            if is_expired(key.proto, flow.state, quiet, timeouts) {
                expired.push(key);
            } else {
                counts.add(key.edge, A::FAMILY);
                port_use.add(&key, &flow);
            }
        }
    }
    let collected = collect(ebpf, Due::TimedOut, &expired)?;
    Ok(Step { entries, requests: requests.saturating_sub(collected as usize), collected })
}

/// Has the kernel delete the flows that are due. Returns their number.
pub fn collect<A: Addr>(ebpf: &mut Ebpf, due: Due, keys: &[FlowKey<A>]) -> Result<u64, Error> {
    let program = object::program_mut(ebpf, object::COLLECT_PROGRAM)?;
    let ethertype = match A::FAMILY {
        Family::V4 => ETHERTYPE_IPV4,
        Family::V6 => ETHERTYPE_IPV6,
    };
    let mut collected = 0;
    for keys in keys.chunks(COLLECTED_KEYS_MAX) {
        // The program reads its arguments from where the network header of a packet is.
        let mut packet = vec![0; ETHERNET_LEN - 2];
        packet.extend(ethertype.to_be_bytes());
        packet.extend(due.to_bytes());
        for key in keys {
            append(key, &mut packet);
        }
        let options = TestRunOptions { data_in: Some(&packet), ..TestRunOptions::default() };
        let run = program
            .test_run(options)
            .map_err(|error| Error::Kernel { op: "deleting flows", source: std::io::Error::other(error) })?;
        collected += u64::from(run.return_value);
    }
    Ok(collected)
}

/// The bytes of a key as the map holds them.
fn append<A: Addr>(key: &FlowKey<A>, bytes: &mut Vec<u8>) {
    let FlowKey { edge, tuple, proto, direction, pad } = key;
    bytes.extend(edge.to_ne_bytes());
    bytes.extend(tuple.src.as_bytes());
    bytes.extend(tuple.dst.as_bytes());
    bytes.extend(tuple.sport.to_ne_bytes());
    bytes.extend(tuple.dport.to_ne_bytes());
    bytes.extend([*proto as u8, *direction as u8]);
    bytes.extend(pad.to_ne_bytes());
}
