//! The program of a driver in front of the one at uplink ingress, by test runs.

use aya::Ebpf;
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use lb_common::verdict::HookAction;

use super::replays::NEXT_HOP_MAC;

/// The program, as the agent names it.
const NAME: &str = "uplink_driver";
/// The metadata of a packet that tc leaves alone, as the program writes it.
const TRANSLATED: [u8; 4] = 0x6c62_5854_u32.to_ne_bytes();
/// Two MACs.
const MACS_LEN: usize = 12;

// include/uapi/linux/bpf.h, enum xdp_action.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// Loads the program.
pub fn load(ebpf: &mut Ebpf) {
    program(ebpf).load().expect("the kernel accepts the program");
}

fn program(ebpf: &mut Ebpf) -> &mut Xdp {
    let program = ebpf.program_mut(NAME).expect("a program of the object");
    program.try_into().expect("a program of a driver")
}

/// Runs a packet. `None` if the program leaves it to tc; then nothing of it has changed.
pub fn run(ebpf: &mut Ebpf, packet: &[u8]) -> Option<(HookAction, Vec<u8>)> {
    let mut out = vec![0; packet.len() + TRANSLATED.len()];
    let options = TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::default() };
    let result = program(ebpf).test_run(options).expect("a test run");
    out.truncate(result.data_size_out as usize);
    match result.return_value {
        XDP_PASS if out.len() == packet.len() => {
            assert_eq!(out, packet, "the packet is left to tc as it came");
            None
        }
        XDP_PASS => {
            let bytes = out.strip_prefix(&TRANSLATED).expect("metadata in front of the packet");
            Some((HookAction::Next, bytes.to_vec()))
        }
        XDP_TX | XDP_REDIRECT => {
            assert_eq!(out[..6], NEXT_HOP_MAC, "the frame is for the next hop");
            // tc leaves the MACs to the stack.
            out[..MACS_LEN].copy_from_slice(&packet[..MACS_LEN]);
            Some((HookAction::SendBack, out))
        }
        XDP_DROP => Some((HookAction::Drop, out)),
        other => panic!("the program returned {other}"),
    }
}
