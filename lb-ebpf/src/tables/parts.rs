//! The functions of [`Part`]s: global ones (`extern "C"`, not mangled), which the verifier walks once.

use core::arch::asm;

use aya_ebpf::bindings::__sk_buff;
use lb_common::forward::{Part, Path, Work};
use lb_common::packet::ETHERNET_LEN;

use crate::env::Kernel;
use crate::maps::{FamilyMaps, Maps};
use crate::skb::Skb;

/// The functions of one family.
pub trait Parts: Sized {
    /// [`Path::run`] in the part's function.
    fn run_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>, part: Part) -> bool;
}

/// All that a family of addresses has.
pub trait FamilyTables: FamilyMaps + Parts {}

impl<A: FamilyMaps + Parts> FamilyTables for A {}

#[inline(always)]
fn run<A: FamilyTables>(skb: *mut __sk_buff, work: *mut Work<A>, part: Part) -> u32 {
    // SAFETY: the caller's records, which it does not use meanwhile; the verifier wants to see that there are some.
    let Some(work) = (unsafe { work.as_mut() }) else { return 0 };
    // The compiler must not know that a part has no use for it: it would pass anything, which the verifier refuses.
    let mut skb = skb;
    // SAFETY: moves a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) skb, options(nostack, preserves_flags)) };
    let skb = Skb::new(skb);
    let tables = Maps { packet_len: skb.len(), skb };
    u32::from(Path::resumed(&tables, &Kernel, work).run(part))
}

macro_rules! parts {
    ($addr:ty: $($part:ident = $name:ident),*) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name(skb: *mut __sk_buff, work: *mut Work<$addr>) -> u32 {
                run(skb, work, Part::$part)
            }
        )*

        impl Parts for $addr {
            #[inline(always)]
            fn run_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>, part: Part) -> bool {
                let done = match part {
                    $( Part::$part => $name(skb.context(), work), )*
                };
                done != 0
            }
        }
    };
}
parts!([u8; 4]: Place = place4, RefreshPartner = refresh_partner4, FollowDirect = follow_direct4);
parts!([u8; 16]: Place = place6, RefreshPartner = refresh_partner6, FollowDirect = follow_direct6);
