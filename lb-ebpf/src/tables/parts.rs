//! The functions of [`Part`]s. They are global (`extern "C"`, not mangled), so that the verifier walks each of them
//! once.

use aya_ebpf::bindings::__sk_buff;
use lb_common::forward::{Part, Path, Work};
use lb_common::packet::ETHERNET_LEN;

use crate::kernel::Kernel;
use crate::maps::FamilyMaps;
use crate::skb::Skb;
use crate::verifier;

/// The functions of one family.
pub trait Parts: Sized {
    /// [`Path::run`] in the part's function.
    fn run_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>, part: Part) -> bool;
}

/// All that the programs need of an address family.
pub trait FamilyTables: FamilyMaps + Parts {}

impl<A: FamilyMaps + Parts> FamilyTables for A {}

#[inline(always)]
fn run<A: FamilyTables>(skb: *mut __sk_buff, work: *mut Work<A>, part: Part) -> u32 {
    // SAFETY: the caller's records, which the caller does not use meanwhile. The verifier requires the check for null.
    let Some(work) = (unsafe { work.as_mut() }) else { return 0 };
    // If a part does not use the skb, the compiler would pass anything, which the verifier refuses.
    let skb = verifier::opaque(skb as usize) as *mut __sk_buff;
    let kernel = Kernel::new(Skb::<ETHERNET_LEN>::new(skb));
    u32::from(Path::resumed(&kernel, work).run(part))
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
parts!([u8; 4]: Place = place4, RefreshPartner = refresh_partner4, FollowDirect = follow_direct4, Settle = settle4);
parts!([u8; 16]: Place = place6, RefreshPartner = refresh_partner6, FollowDirect = follow_direct6, Settle = settle6);
