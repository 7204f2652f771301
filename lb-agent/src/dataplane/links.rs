//! Attachments: which program runs on which hook of which interface.
//!
//! The name of an attachment (`workload-12-ingress`, `uplink-7-egress-l3`) says all of it. The kernel keeps the name, so
//! attachments can be read without an agent.

use std::fmt;

use super::probe::Neighbour;
use super::sys::Hook;

/// The name of an interface of this namespace; `None` if there is none with this index.
pub fn interface_name(ifindex: u32) -> Option<String> {
    nix::net::if_::if_indextoname(ifindex).ok().map(|name| name.to_string_lossy().into_owned())
}

/// What an interface leads to. This decides which programs it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A pod on this node.
    Workload,
    /// The network.
    Uplink,
}

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub name: String,
    pub class: Class,
    pub header: LinkHeader,
}

impl Link {
    /// The programs for this interface. Egress comes first: if requests are translated while the egress hook is empty,
    /// the client gets replies from an address that it does not know.
    pub fn attachments(&self) -> [Attachment; 2] {
        let Self { ifindex, class, header, .. } = *self;
        [Hook::Egress, Hook::Ingress].map(|hook| Attachment { ifindex, class, hook, header })
    }
}

/// What programs see in front of the network header of an interface's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkHeader {
    #[default]
    Ethernet,
    Nothing,
}

/// The suffix of names for packets without a link header.
const BARE: &str = "l3";

/// A hardware address.
pub type Mac = [u8; 6];

/// A program on a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    pub ifindex: u32,
    pub class: Class,
    pub hook: Hook,
    pub header: LinkHeader,
}

impl Class {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Uplink => "uplink",
        }
    }
}

impl Hook {
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl Attachment {
    /// The name of the program for this hook.
    pub const fn program(&self) -> &'static str {
        match (self.header, self.class, self.hook) {
            (LinkHeader::Ethernet, Class::Workload, Hook::Ingress) => "workload_ingress",
            (LinkHeader::Ethernet, Class::Workload, Hook::Egress) => "workload_egress",
            (LinkHeader::Ethernet, Class::Uplink, Hook::Ingress) => "uplink_ingress",
            (LinkHeader::Ethernet, Class::Uplink, Hook::Egress) => "uplink_egress",
            (LinkHeader::Nothing, Class::Workload, Hook::Ingress) => "workload_in_l3",
            (LinkHeader::Nothing, Class::Workload, Hook::Egress) => "workload_out_l3",
            (LinkHeader::Nothing, Class::Uplink, Hook::Ingress) => "uplink_in_l3",
            (LinkHeader::Nothing, Class::Uplink, Hook::Egress) => "uplink_out_l3",
        }
    }

    /// Parses the name.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let (class, ifindex, hook) = (parts.next()?, parts.next()?, parts.next()?);
        let class = [Class::Workload, Class::Uplink].into_iter().find(|known| known.name() == class)?;
        let hook = Hook::ALL.into_iter().find(|known| known.name() == hook)?;
        let header = match parts.next() {
            None => LinkHeader::Ethernet,
            Some(BARE) => LinkHeader::Nothing,
            Some(_) => return None,
        };
        parts.next().is_none().then_some(Self { ifindex: ifindex.parse().ok()?, class, hook, header })
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.class.name(), self.ifindex, self.hook.name())?;
        match self.header {
            LinkHeader::Ethernet => Ok(()),
            LinkHeader::Nothing => write!(f, "-{BARE}"),
        }
    }
}

/// A hook where others run before our program. Packets that these drop or redirect never reach ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    pub attachment: Attachment,
    /// In the order in which they run.
    pub programs: Vec<Neighbour>,
}

/// Whether a hook already had a program of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    Before,
    Anew,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_says_what_it_is() {
        for class in [Class::Workload, Class::Uplink] {
            for hook in Hook::ALL {
                for header in [LinkHeader::Ethernet, LinkHeader::Nothing] {
                    let attachment = Attachment { ifindex: 12, class, hook, header };
                    assert_eq!(Attachment::from_name(&attachment.to_string()), Some(attachment));
                }
            }
        }
        for name in [
            "",
            "workload",
            "workload-x-ingress",
            "workload-1-ingress-2",
            "workload-1-ingress-l3-l3",
            "fabric-1-ingress",
        ] {
            assert_eq!(Attachment::from_name(name), None, "{name}");
        }
    }
}
