//! Whether the driver of an uplink gets a program (XDP), and in which mode.

use std::fmt;
use std::io;

use super::facts::Framing;
use super::{Interfaces, Kind, LinkFacts};
use crate::dataplane::driver::Mode;
use crate::dataplane::{Card, Xdp};

/// The drivers that `--xdp=auto` takes, by the names that ethtool prints. In mainline (net-next of Linux 6.18, and those
/// versions since 6.1 that have the driver's XDP at all) each
///
/// - runs the program natively, and obeys `XDP_TX` and `XDP_REDIRECT`;
/// - sends frames that other drivers redirect to it (`ndo_xdp_xmit`), at least while it has a program of its own;
/// - receives from a wire: the sums of its frames are complete. Virtual cards deliver frames of the same machine whose sums
///   are still to be filled in (`CHECKSUM_PARTIAL`), of which a program knows nothing: virtio_net, veth, xen-netfront, tun,
///   and hv_netvsc, whose frames may come from another guest.
///
/// Left out for the second reason: mlx4_en; for the first: nfp, ixgbevf, nicvf.
const KNOWN: &[&str] = &[
    "atlantic",
    "bnxt_en",
    "ena",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "gve",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "mana",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "qede",
    "sfc",
    // stmmac, by the kind of its core.
    "st_gmac",
    "st_xgmac",
];

/// Why the driver of an uplink gets no program. tc serves its packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// Its packets have no Ethernet header.
    Bare,
    /// A port of this bridge or bond, which has other MACs.
    PortOf(String),
    /// A driver that [`KNOWN`] does not have.
    Unknown(String),
    /// The driver takes the tags of this VLAN out of frames.
    TakesTags(String),
    /// The interface has no driver that says its name.
    Silent(String),
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bare => f.write_str("its packets have no Ethernet header"),
            Self::PortOf(controller) => write!(f, "a port of {controller}"),
            Self::Unknown(driver) => {
                write!(f, "its driver {driver} is not known to complete checksums and to redirect frames")
            }
            Self::TakesTags(vlan) => write!(
                f,
                "{vlan} is made on it, and its driver takes the tags out of frames before a program sees them (ethtool -K \
                 rx-vlan-offload off)"
            ),
            Self::Silent(error) => write!(f, "its driver does not say its name ({error})"),
        }
    }
}

impl Interfaces {
    /// The mode in which the driver of an uplink gets a program. `card` asks the driver of the interface with this name.
    pub fn driver_mode(
        &self,
        link: &LinkFacts,
        wanted: Xdp,
        card: impl FnOnce(&str) -> io::Result<Card>,
    ) -> Option<Result<Mode, Objection>> {
        let mode = wanted.mode()?;
        let objection = self.refusal(link).or_else(|| match wanted {
            // The operator knows better.
            Xdp::Native | Xdp::Generic => None,
            Xdp::Off | Xdp::Auto => self.doubt(link, card(&link.name)),
        });
        Some(objection.map_or(Ok(mode), Err))
    }

    /// Where no program can be right. The program compares MACs with that of the interface.
    fn refusal(&self, link: &LinkFacts) -> Option<Objection> {
        if link.framing != Framing::ETHERNET {
            return Some(Objection::Bare);
        }
        let controller = link.controller?;
        let found = self.links.get(&controller);
        let is_vrf = found.is_some_and(|controller| controller.kind == Kind::Vrf);
        (!is_vrf).then(|| Objection::PortOf(found.map_or_else(|| controller.to_string(), |found| found.name.clone())))
    }

    /// Where a program is not known to be right.
    fn doubt(&self, link: &LinkFacts, card: io::Result<Card>) -> Option<Objection> {
        let Card { driver, takes_tags } = match card {
            Ok(card) => card,
            Err(error) => return Some(Objection::Silent(error.to_string())),
        };
        if !KNOWN.contains(&driver.as_str()) {
            return Some(Objection::Unknown(driver));
        }
        let is_vlan_on_it = |upper: &&LinkFacts| upper.is_vlan && upper.lower == Some(link.ifindex);
        let vlan = self.links.values().filter(|_| takes_tags).find(is_vlan_on_it)?;
        Some(Objection::TakesTags(vlan.name.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interfaces::Event;

    const AT: u32 = 2;

    fn card(driver: &str, takes_tags: bool) -> Card {
        Card { driver: driver.into(), takes_tags }
    }

    fn eth0() -> LinkFacts {
        LinkFacts { kind: Kind::Hardware, ..LinkFacts::pod_veth(AT, "eth0") }
    }

    /// The judgement of eth0, in one line.
    fn told(others: &[LinkFacts], link: &LinkFacts, wanted: Xdp, card: Card) -> String {
        let mut interfaces = Interfaces::default();
        for link in others.iter().chain([link]) {
            interfaces.apply(Event::Link(link.clone()));
        }
        match interfaces.driver_mode(link, wanted, |_| Ok(card)) {
            None => "nothing".to_owned(),
            Some(Ok(mode)) => mode.name().to_owned(),
            Some(Err(objection)) => objection.to_string(),
        }
    }

    #[test]
    fn the_setting_says_who_runs_the_program() {
        for (wanted, expected) in
            [(Xdp::Off, "nothing"), (Xdp::Auto, "native"), (Xdp::Native, "native"), (Xdp::Generic, "generic")]
        {
            assert_eq!(told(&[], &eth0(), wanted, card("ice", true)), expected);
        }
    }

    #[test]
    fn auto_takes_drivers_that_are_known() {
        for driver in ["mlx5_core", "ena", "st_gmac"] {
            assert_eq!(told(&[], &eth0(), Xdp::Auto, card(driver, false)), "native", "{driver}");
        }
        for driver in
            ["veth", "virtio_net", "bridge", "bonding", "802.1Q VLAN Support", "tun", "hv_netvsc", "mlx4_en", ""]
        {
            let expected = format!("its driver {driver} is not known to complete checksums and to redirect frames");
            assert_eq!(told(&[], &eth0(), Xdp::Auto, card(driver, false)), expected);
            assert_eq!(told(&[], &eth0(), Xdp::Native, card(driver, false)), "native", "the operator's word");
        }
        let silent = Interfaces::default().driver_mode(&eth0(), Xdp::Auto, |_| Err(io::ErrorKind::Unsupported.into()));
        assert!(matches!(silent, Some(Err(Objection::Silent(_)))), "{silent:?}");
    }

    #[test]
    fn tags_that_the_driver_takes_are_a_reason_against_it() {
        let on_it = |name: &str, is_vlan| LinkFacts { lower: Some(AT), is_vlan, ..LinkFacts::pod_veth(7, name) };
        let vlan = [on_it("eth0.5", true)];
        let taken = told(&vlan, &eth0(), Xdp::Auto, card("ice", true));
        assert!(taken.starts_with("eth0.5 is made on it") && taken.contains("rx-vlan-offload off"), "{taken}");
        assert_eq!(told(&vlan, &eth0(), Xdp::Auto, card("ice", false)), "native", "tagged frames are no IP");
        assert_eq!(told(&vlan, &eth0(), Xdp::Native, card("ice", true)), "native");
        assert_eq!(told(&[on_it("macvlan0", false)], &eth0(), Xdp::Auto, card("ice", true)), "native");
        let other = [LinkFacts { lower: Some(AT + 1), ..on_it("eth1.5", true) }];
        assert_eq!(told(&other, &eth0(), Xdp::Auto, card("ice", true)), "native");
    }

    #[test]
    fn no_program_compares_macs_of_others() {
        let controller = |kind| [LinkFacts { kind, ..LinkFacts::pod_veth(9, "above0") }];
        let port = LinkFacts { controller: Some(9), ..eth0() };
        for wanted in [Xdp::Auto, Xdp::Native, Xdp::Generic] {
            let told = |others: &[LinkFacts], link: &LinkFacts| told(others, link, wanted, card("ice", false));
            for kind in [Kind::Bridge, Kind::Hardware, Kind::Other] {
                assert_eq!(told(&controller(kind), &port), "a port of above0", "{kind:?}");
            }
            assert_eq!(told(&[], &port), "a port of 9", "not known yet");
            let is_taken = ["native", "generic"].contains(&told(&controller(Kind::Vrf), &port).as_str());
            assert!(is_taken, "a VRF has no frames of its own");
            for framing in [Framing::NOTHING, Framing::Other("INFINIBAND".into())] {
                assert_eq!(told(&[], &LinkFacts { framing, ..eth0() }), "its packets have no Ethernet header");
            }
        }
    }
}
