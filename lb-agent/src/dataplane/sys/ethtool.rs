//! What a driver says of its interface (ethtool). Unlike sysfs, it answers for the network namespace of this process.

use std::ffi::CStr;
use std::io::{Error, Result};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;

// include/uapi/linux/sockios.h and ethtool.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const DRIVER_LEN: usize = 32;

/// What is known of an interface by its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The driver's name: `mlx5_core`, `veth`, `bonding`.
    pub driver: String,
    /// Whether it takes VLAN tags out of frames (`rx-vlan-offload`): no program of the driver sees them.
    pub takes_tags: bool,
}

/// The start of `struct ethtool_drvinfo`, and the space that the kernel writes.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; DRIVER_LEN],
    rest: [u8; 160],
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

/// Asks the driver of the interface with this name.
pub fn card(interface: &str) -> Result<Card> {
    let mut about = DriverInfo { cmd: ETHTOOL_GDRVINFO, driver: [0; DRIVER_LEN], rest: [0; 160] };
    ask(interface, &mut about)?;
    let mut flags = Value { cmd: ETHTOOL_GFLAGS, data: 0 };
    ask(interface, &mut flags)?;
    let driver = CStr::from_bytes_until_nul(&about.driver).map_err(Error::other)?.to_string_lossy().into_owned();
    Ok(Card { driver, takes_tags: flags.data & ETH_FLAG_RXVLAN != 0 })
}

/// `question` is one of the two structs above: its first word says how many bytes the kernel writes.
fn ask<T>(interface: &str, question: &mut T) -> Result<()> {
    // Any socket will do.
    let socket = UnixDatagram::unbound()?;
    // SAFETY: the struct is plain integers and a union of such.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    if interface.len() >= request.ifr_name.len() {
        return Err(Error::from_raw_os_error(libc::ENODEV));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(question).cast();
    // SAFETY: both structs are live, and as large as the kernel's own.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

const _: () = assert!(size_of::<DriverInfo>() == 196, "as in the kernel");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        for name in ["", "nosuchif0", "a-name-that-no-interface-can-have"] {
            assert_eq!(card(name).map_err(|error| error.raw_os_error()), Err(Some(libc::ENODEV)), "{name}");
        }
    }
}
