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

/// Runs a part over the records of this CPU. `lent` points to them, which shows the compiler that they change, but the
/// part looks them up again: Linux 6.1 refuses keys in what an argument points to ("R2 type=mem expected=fp").
#[inline(always)]
fn run<A: FamilyTables>(skb: *mut __sk_buff, lent: *mut Work<A>, part: Part) -> u32 {
    // If a part does not use an argument, the compiler would pass anything, which the verifier refuses.
    let skb = verifier::opaque(skb as usize) as *mut __sk_buff;
    verifier::opaque(lent as usize);
    let Some(work) = super::work::<A>() else { return 0 };
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
