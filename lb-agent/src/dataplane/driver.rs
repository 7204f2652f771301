//! The programs of drivers (XDP), which run before the kernel makes an skb of a frame. Pinned links keep them without an
//! agent, in the folder of the links of tc.
//!
//! They are an addition: they pass what they do not know to tc, which stays attached. So a program is attached after
//! those of tc and detached before them, and one that cannot be attached is missed by nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rtnetlink::packet_core::{NetlinkDeserializable as _, NetlinkHeader};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkXdp};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::links::Attached;
use super::object::DRIVER_PROGRAMS;
use super::pinned::{detach_link, remove_pin};
use super::probe::AttachedProgram;
use super::{Error, Refusal, sys, uplinks};
use crate::netlink;

/// Whether drivers run a program of ours (`--xdp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Xdp {
    #[default]
    Off,
    /// Natively, where it is known to be right.
    Auto,
    /// Natively, where the kernel lets it.
    Native,
    Generic,
}

impl Xdp {
    /// The mode in which programs are attached, if any are.
    pub const fn mode(self) -> Option<Mode> {
        match self {
            Self::Off => None,
            Self::Auto | Self::Native => Some(Mode::Native),
            Self::Generic => Some(Mode::Generic),
        }
    }
}

/// Who runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The driver.
    Native,
    /// The kernel, behind any driver, when it has made an skb: for tests.
    Generic,
}

impl Mode {
    pub const ALL: [Self; 2] = [Self::Native, Self::Generic];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// The name of the program.
    pub const fn program(self) -> &'static str {
        let [native, generic] = DRIVER_PROGRAMS;
        match self {
            Self::Native => native,
            Self::Generic => generic,
        }
    }
}

/// Whether the kernel loads programs for drivers and frames of any size.
pub fn can_load() -> io::Result<()> {
    sys::load_passing_program().map(drop)
}

/// The name of the pin of an interface's link.
pub fn pin_name(ifindex: u32) -> String {
    format!("uplink-{ifindex}-driver")
}

/// Parses the name of a pin.
pub fn from_pin_name(name: &str) -> Option<u32> {
    name.strip_prefix("uplink-")?.strip_suffix("-driver")?.parse().ok()
}

/// The IDs of the XDP programs of an interface, by mode. A removed interface has none.
pub fn programs(ifindex: u32) -> io::Result<BTreeMap<Mode, u32>> {
    // include/uapi/linux/rtnetlink.h
    const RTM_NEWLINK: u16 = 16;
    const RTM_GETLINK: u16 = 18;
    // `struct ifinfomsg`: of no family, and only the index says anything.
    let mut question = [0; 16];
    question[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    let mut found = BTreeMap::new();
    let asked = netlink::exchange(NETLINK_ROUTE, RTM_GETLINK, 0, &question, |answer| {
        let mut header = NetlinkHeader::default();
        header.message_type = RTM_NEWLINK;
        if let Ok(RouteNetlinkMessage::NewLink(link)) = RouteNetlinkMessage::deserialize(&header, answer) {
            let xdp = link.attributes.iter().filter_map(|attribute| match attribute {
                LinkAttribute::Xdp(xdp) => Some(xdp),
                _ => None,
            });
            found.extend(xdp.flatten().filter_map(program));
        }
    });
    match asked {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(found),
        asked => asked.map(|()| found),
    }
}

/// The XDP program of others on an interface, as far as the kernel tells.
pub fn foreign_program(ifindex: u32) -> Option<AttachedProgram> {
    let ids = programs(ifindex).unwrap_or_default();
    ids.into_values().map(AttachedProgram::of_id).find(|program| !program.is_named_as_ours())
}

/// A program that runs in the card itself is in no other's way.
const fn program(attribute: &LinkXdp) -> Option<(Mode, u32)> {
    match attribute {
        LinkXdp::DrvProgId(id) => Some((Mode::Native, *id)),
        LinkXdp::SkbProgId(id) => Some((Mode::Generic, *id)),
        _ => None,
    }
}

/// The mode of a link, by the program of its interface. None if the interface is gone.
fn mode_of(link: BorrowedFd<'_>) -> io::Result<Option<Mode>> {
    let Some(xdp) = sys::xdp_link(link)? else { return Ok(None) };
    Ok(programs(xdp.ifindex)?.into_iter().find(|(_, id)| *id == xdp.program_id).map(|(mode, _)| mode))
}

/// The modes of links, by interface. Links of removed interfaces are left out.
pub fn modes(links: &BTreeMap<u32, OwnedFd>) -> Result<BTreeMap<u32, Mode>, Error> {
    let mut modes = BTreeMap::new();
    for (ifindex, link) in links {
        modes.extend(mode_of(link.as_fd()).map_err(asking)?.map(|mode| (*ifindex, mode)));
    }
    Ok(modes)
}

const fn asking(source: io::Error) -> Error {
    Error::Kernel { op: "asking for the XDP programs of an interface", source }
}

/// The pinned links of the drivers.
pub struct DriverLinks {
    directory: PathBuf,
    attached: BTreeMap<u32, (OwnedFd, Mode)>,
}

impl DriverLinks {
    /// Adopts the links, and detaches those that are not wanted, or in another mode: tc serves from then on. `maps` is the
    /// folder of the maps.
    pub fn adopt(directory: PathBuf, maps: &Path, links: BTreeMap<u32, OwnedFd>, wanted: Xdp) -> Result<Self, Error> {
        let mut adopted = Self { directory, attached: BTreeMap::new() };
        let mut unwanted = Vec::new();
        for (ifindex, link) in links {
            // A link of which the kernel tells nothing is as good as one in another mode.
            let mode = mode_of(link.as_fd()).unwrap_or_default();
            match mode.filter(|mode| wanted.mode() == Some(*mode)) {
                Some(mode) => drop(adopted.attached.insert(ifindex, (link, mode))),
                None => unwanted.push((ifindex, link)),
            }
        }
        if !unwanted.is_empty() {
            uplinks::stop_redirects(maps)?;
        }
        for (ifindex, link) in unwanted {
            adopted.remove(ifindex, link.as_fd())?;
            tracing::info!(ifindex, "detached from the driver: --xdp has another value");
        }
        Ok(adopted)
    }

    pub fn attached(&self) -> BTreeMap<u32, Mode> {
        self.attached.iter().map(|(ifindex, (_, mode))| (*ifindex, *mode)).collect()
    }

    /// Gives a driver its program: swaps a program of ours in this mode, else attaches and pins a new link.
    pub fn attach(&mut self, ifindex: u32, mode: Mode, program: BorrowedFd<'_>) -> Result<Attached, Error> {
        let failed = |source| Error::Attach { pin: pin_name(ifindex), source };
        if let Some((link, _)) = self.attached.get(&ifindex).filter(|(_, of)| *of == mode) {
            match sys::link_update(link.as_fd(), program) {
                Ok(()) => return Ok(Attached::Before),
                // The interface was removed and another got its index: the old link is dead.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        self.detach(ifindex)?;
        let link =
            sys::xdp_attach(program, ifindex, mode == Mode::Native).map_err(|error| explain(ifindex, mode, error))?;
        sys::obj_pin(link.as_fd(), &self.directory.join(pin_name(ifindex))).map_err(failed)?;
        self.attached.insert(ifindex, (link, mode));
        Ok(Attached::Anew)
    }

    /// Removes the program from a driver. Succeeds if the interface is already gone.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), Error> {
        if let Some((link, _)) = self.attached.get(&ifindex) {
            self.remove(ifindex, link.as_fd())?;
            self.attached.remove(&ifindex);
        }
        Ok(())
    }

    fn remove(&self, ifindex: u32, link: BorrowedFd<'_>) -> Result<(), Error> {
        let path = self.directory.join(pin_name(ifindex));
        detach_link(link, &path);
        remove_pin(&path)
    }
}

/// Names the program that is in the way (`dev_xdp_attach` in net/core/dev.c), or what the driver lacks.
fn explain(ifindex: u32, mode: Mode, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            if let Some((mode, id)) = programs(ifindex).unwrap_or_default().pop_first() {
                return Refusal::OtherXdp { program: AttachedProgram::of_id(id).to_string(), mode: mode.name() }.into();
            }
        }
        Some(libc::EOPNOTSUPP) if mode == Mode::Native => return Refusal::NoXdp.into(),
        _ => {}
    }
    Error::Attach { pin: pin_name(ifindex), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::links::Attachment;

    #[test]
    fn pin_name_says_whose_driver_it_is() {
        assert_eq!((pin_name(12).as_str(), from_pin_name("uplink-12-driver")), ("uplink-12-driver", Some(12)));
        for name in ["", "uplink-driver", "uplink--driver", "uplink-x-driver", "uplink-1-ingress", "workload-1-driver"]
        {
            assert_eq!(from_pin_name(name), None, "{name}");
        }
        assert_eq!(Attachment::from_name(&pin_name(12)), None, "no hook of tc");
    }

    #[test]
    fn only_programs_outside_of_the_card_count() {
        assert_eq!(program(&LinkXdp::DrvProgId(3)), Some((Mode::Native, 3)));
        assert_eq!(program(&LinkXdp::SkbProgId(4)), Some((Mode::Generic, 4)));
        assert_eq!([LinkXdp::HwProgId(5), LinkXdp::ProgId(3)].map(|attribute| program(&attribute)), [None, None]);
    }

    #[test]
    fn the_loopback_has_no_program_and_no_interface_neither() {
        for ifindex in [1, u32::MAX >> 1] {
            assert_eq!(programs(ifindex).expect("anyone may ask"), BTreeMap::new(), "{ifindex}");
        }
    }
}
