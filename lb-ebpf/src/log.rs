//! The debug channel: a line for each packet that took the whole path. While it is on, all packets that may concern a
//! Service take it.

#[cfg(feature = "bpf-log")]
pub use lines::{is_on, verdict};
#[cfg(not(feature = "bpf-log"))]
pub use silence::{is_on, verdict};

#[cfg(not(feature = "bpf-log"))]
mod silence {
    use aya_ebpf::bindings::__sk_buff;
    use lb_common::table::Direction;

    #[inline(always)]
    pub const fn is_on() -> bool {
        false
    }

    #[inline(always)]
    pub const fn verdict(_: *mut __sk_buff, _: Direction, _: i32) {}
}

#[cfg(feature = "bpf-log")]
mod lines {
    use aya_ebpf::bindings::__sk_buff;
    use aya_log_ebpf::debug;
    use aya_log_ebpf::macro_support::{Level, level_enabled};
    use lb_common::addr::Family;
    use lb_common::packet::ETHERNET_LEN;
    use lb_common::path;
    use lb_common::table::Direction;

    use crate::skb::Skb;
    use crate::tables;

    /// `lb-agent run --bpf-log`. Frozen, so that the verifier drops the code that is switched off.
    #[inline(always)]
    pub fn is_on() -> bool {
        level_enabled(Level::Debug)
    }

    /// Logs what the program does with the packet.
    #[inline(always)]
    pub fn verdict(skb: *mut __sk_buff, direction: Direction, action: i32) {
        let direction = direction as u32;
        match path::family(&Skb::<ETHERNET_LEN>::new(skb)) {
            Some(Family::V4) => _ = log_verdict4(skb, direction, action),
            Some(Family::V6) => _ = log_verdict6(skb, direction, action),
            None => {}
        }
    }

    /// Declares the function that logs a packet of a family: one of its own, whose frame is not on top of those of the
    /// packet path.
    macro_rules! log_verdict {
        ($name:ident, $addr:ty) => {
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name(skb: *mut __sk_buff, direction: u32, action: i32) -> i32 {
                let Some(work) = tables::work::<$addr>() else { return 0 };
                let (key, to) = (&work.key.tuple, work.to());
                // Nothing was decided: no packet with ports.
                if key.dport == 0 {
                    return 0;
                }
                let (reason, frontend) = work.outcome();
                debug!(
                    &skb,
                    target: "bpf",
                    "link={} hook={} proto={} src={:i} sport={} dst={:i} dport={} new_src={:i} new_sport={} new_dst={:i} new_dport={} frontend={} reason={} action={}",
                    Skb::<ETHERNET_LEN>::new(skb).ifindex(),
                    direction,
                    work.key.proto as u32,
                    key.src,
                    key.sport,
                    key.dst,
                    key.dport,
                    to.src,
                    to.sport,
                    to.dst,
                    to.dport,
                    frontend,
                    reason as u32,
                    action
                );
                0
            }
        };
    }
    log_verdict!(log_verdict4, [u8; 4]);
    log_verdict!(log_verdict6, [u8; 16]);
}
