//! The functions of [`Part`]s, and of what is done for each of many keys. They are global (`extern "C"`, not mangled), so that the verifier walks each of them
//! once.

use aya_ebpf::bindings::__sk_buff;
use lb_common::forward::{Part, Path, Work};
use lb_common::garbage::{self, Due};
use lb_common::packet::{ETHERNET_LEN, Refused};
use lb_common::payload;
use lb_common::spell;
use lb_common::way::{Reach, Way};

use crate::kernel::Kernel;
use crate::maps::FamilyMaps;
use crate::routes;
use crate::skb::Skb;
use crate::verifier;

/// The functions of one family.
pub trait Parts: Sized {
    /// [`Path::run`] in the part's function.
    fn run_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>, part: Part) -> bool;

    /// [`Maps::reach`](lb_common::forward::Maps::reach) in a function of its own.
    fn reach_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>) -> Reach;

    /// [`Maps::way`](lb_common::forward::Maps::way) in a function of its own.
    fn way_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>, len_bytes: u16) -> Way;

    /// [`Maps::spell`](lb_common::forward::Maps::spell) in a function of its own.
    fn spell_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>);

    /// [`spell::spell_step`] in a function of its own.
    fn spell_step_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>, step: u32);

    /// [`Maps::replace_payload`](lb_common::forward::Maps::replace_payload) in a function of its own.
    fn replace_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>) -> Result<(), Refused>;

    /// [`garbage::collect`] in a function of its own. Linux 6.1 would walk it again for each key, and refuses that many
    /// instructions.
    fn collect_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>, due: Due) -> bool;
}

/// All that the programs need of an address family.
pub trait FamilyTables: FamilyMaps + Parts {}

impl<A: FamilyMaps + Parts> FamilyTables for A {}

/// Runs a part over the records of this CPU. `lent` points to them, which shows the compiler that they change, but the
/// part looks them up again: Linux 6.1 refuses keys in what an argument points to ("R2 type=mem expected=fp").
#[inline(always)]
fn run<A: FamilyTables>(skb: *mut __sk_buff, lent: *mut Work<A>, part: Part) -> u32 {
    let (skb, Some(work)) = (used(skb, lent), super::work::<A>()) else { return 0 };
    u32::from(Path::resumed(&Kernel::new(skb), work).run(part))
}

// What the function of a way returns if not the MTU of the way.
const OUT: u32 = 0;
const NOWHERE: u32 = u32::MAX;

/// [`routes::reach`] over the records of this CPU, as [`run`].
#[inline(always)]
fn reach<A: FamilyTables>(skb: *mut __sk_buff, lent: *mut Work<A>) -> u32 {
    let (skb, Some(work)) = (used(skb, lent), super::work::<A>()) else { return Reach::Nowhere as u32 };
    routes::reach(skb, work) as u32
}

/// [`routes::way`] over the records of this CPU, as [`run`].
#[inline(always)]
fn way<A: FamilyTables>(skb: *mut __sk_buff, lent: *mut Work<A>, len_bytes: u32) -> u32 {
    let (skb, Some(work)) = (used(skb, lent), super::work::<A>()) else { return NOWHERE };
    match routes::way(skb, work, len_bytes as u16) {
        Way::Out => OUT,
        Way::Nowhere => NOWHERE,
        Way::TooLong { mtu_bytes } => mtu_bytes.into(),
    }
}

/// [`spell::spell`] over the records of this CPU, as [`run`].
#[inline(always)]
fn spell<A: FamilyTables>(skb: *mut __sk_buff, lent: *mut Work<A>) -> u32 {
    let (skb, Some(work)) = (used(skb, lent), super::work::<A>()) else { return 0 };
    spell::spell(work, |work, step| A::spell_step_apart(skb, work, step));
    1
}

/// [`spell::spell_step`] over the records of this CPU, as [`run`].
#[inline(always)]
fn spell_step<A: FamilyTables>(skb: *mut __sk_buff, lent: *mut Work<A>, step: u32) -> u32 {
    used(skb, lent);
    let Some(work) = super::work::<A>() else { return 0 };
    spell::spell_step(work, step);
    1
}

/// [`payload::replace_payload`] over the records of this CPU, as [`run`]. Offsets are absolute, so the length of the link
/// header does not matter.
#[inline(always)]
fn replace<A: FamilyTables>(skb: *mut __sk_buff, lent: *mut Work<A>) -> u32 {
    let (mut skb, Some(work)) = (used(skb, lent), super::work::<A>()) else { return 0 };
    u32::from(payload::replace_payload(&mut skb, work).is_ok())
}

/// [`garbage::collect`] over the records of this CPU, as [`run`].
#[inline(always)]
fn collect<A: FamilyTables>(skb: *mut __sk_buff, lent: *mut Work<A>, due: u64) -> u32 {
    let (skb, Some(work)) = (used(skb, lent), super::work::<A>()) else { return 0 };
    u32::from(garbage::collect(Due::from_bytes(due.to_ne_bytes()), &Kernel::idle(skb), work))
}

/// The packet. If a function does not use an argument, the compiler would pass anything, which the verifier refuses.
#[inline(always)]
fn used<A>(skb: *mut __sk_buff, lent: *mut Work<A>) -> Skb<ETHERNET_LEN> {
    verifier::opaque(lent as usize);
    Skb::new(verifier::opaque(skb as usize) as *mut __sk_buff)
}

macro_rules! parts {
    ($addr:ty, $collect:ident, $reach:ident, $way:ident, $spell:ident, $step:ident, $replace:ident: $($part:ident = $name:ident),*) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name(skb: *mut __sk_buff, work: *mut Work<$addr>) -> u32 {
                run(skb, work, Part::$part)
            }
        )*

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $collect(skb: *mut __sk_buff, work: *mut Work<$addr>, due: u64) -> u32 {
            collect(skb, work, due)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $spell(skb: *mut __sk_buff, work: *mut Work<$addr>) -> u32 {
            spell(skb, work)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $step(skb: *mut __sk_buff, work: *mut Work<$addr>, step: u32) -> u32 {
            spell_step(skb, work, step)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $replace(skb: *mut __sk_buff, work: *mut Work<$addr>) -> u32 {
            replace(skb, work)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $reach(skb: *mut __sk_buff, work: *mut Work<$addr>) -> u32 {
            reach(skb, work)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $way(skb: *mut __sk_buff, work: *mut Work<$addr>, len_bytes: u32) -> u32 {
            way(skb, work, len_bytes)
        }

        impl Parts for $addr {
            #[inline(always)]
            fn run_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>, part: Part) -> bool {
                let done = match part {
                    $( Part::$part => $name(skb.context(), work), )*
                };
                done != 0
            }

            #[inline(always)]
            fn reach_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>) -> Reach {
                match $reach(skb.context(), work) {
                    0 => Reach::Stack,
                    1 => Reach::Uplink,
                    _ => Reach::Nowhere,
                }
            }

            #[inline(always)]
            fn way_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>, len_bytes: u16) -> Way {
                match $way(skb.context(), work, len_bytes.into()) {
                    OUT => Way::Out,
                    NOWHERE => Way::Nowhere,
                    mtu_bytes => Way::TooLong { mtu_bytes: mtu_bytes as u16 },
                }
            }

            #[inline(always)]
            fn spell_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>) {
                $spell(skb.context(), work);
            }

            #[inline(always)]
            fn spell_step_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>, step: u32) {
                $step(skb.context(), work, step);
            }

            #[inline(always)]
            fn replace_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>) -> Result<(), Refused> {
                if $replace(skb.context(), work) == 0 { Err(Refused) } else { Ok(()) }
            }

            #[inline(always)]
            fn collect_apart(skb: Skb<ETHERNET_LEN>, work: &mut Work<Self>, due: Due) -> bool {
                $collect(skb.context(), work, u64::from_ne_bytes(due.to_bytes())) != 0
            }
        }
    };
}
parts!([u8; 4], collect4, reach4, way4, spell4, spell_step4, replace4: Place = place4, RefreshPartner = refresh_partner4, FollowDirect = follow_direct4, Settle = settle4, Refuse = refuse4, Tell = tell4, DecideHeader = decide_header4);
parts!([u8; 16], collect6, reach6, way6, spell6, spell_step6, replace6: Place = place6, RefreshPartner = refresh_partner6, FollowDirect = follow_direct6, Settle = settle6, Refuse = refuse6, Tell = tell6, DecideHeader = decide_header6);
