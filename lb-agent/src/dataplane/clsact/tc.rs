//! Traffic control by netlink: the qdisc clsact of an interface, and the classifiers on its two hooks.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_bindings::tc::{OptionsMsg, Request, Tcmsg};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use crate::dataplane::sys::Hook;
use crate::netlink;

/// The qdisc with a hook for each direction (Linux 4.5), and the older one, which only has ingress. An interface has at
/// most one of them: both have the same handle.
pub const CLSACT: &CStr = c"clsact";
/// The classifier that runs a BPF program.
pub const BPF: &CStr = c"bpf";
/// `TC_H_CLSACT`, `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS` of linux/pkt_sched.h.
const PARENT: u32 = 0xffff_fff1;
const HANDLE: u32 = 0xffff_0000;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// `NLM_F_ECHO` of linux/netlink.h: without it, the kernel tells only the listeners of events of the qdisc that was asked for.
const NLM_F_ECHO: u16 = 8;
/// `ETH_P_ALL`: packets of every protocol.
pub const EVERY_PROTOCOL: u16 = 3;
/// `TCA_BPF_FLAG_ACT_DIRECT` of linux/pkt_cls.h: what the program returns is what happens to the packet.
const DIRECT_ACTION: u32 = 1;
/// `TCA_CLS_FLAGS_SKIP_HW`: no network card is asked to run the program.
const SKIP_HW: u32 = 1;

/// A classifier on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub place: Place,
    /// Packets meet chain 0.
    pub chain: u32,
    /// An ethertype, in host order.
    pub protocol: u16,
    /// `bpf`, `flower` and so on.
    pub kind: String,
    /// Of a BPF classifier.
    pub name: Option<String>,
    /// Of a BPF classifier.
    pub program_id: Option<u32>,
}

/// Where a classifier is on its hook. Low priorities run first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub priority: u16,
    /// 0: the row of all classifiers of this priority.
    pub handle: u32,
}

/// The interfaces that have clsact.
pub fn interfaces() -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    netlink::ask(NETLINK_ROUTE, &Request::new().op_getqdisc_dump(&Tcmsg::new()), |(header, attributes)| {
        if header.handle == HANDLE && attributes.get_kind() == Ok(CLSACT) {
            found.push(header.ifindex.cast_unsigned());
        }
    })?;
    Ok(found)
}

/// The kind of the qdisc whose hooks the classifiers of an interface are on; `None` if there is none.
pub fn qdisc(ifindex: u32) -> io::Result<Option<String>> {
    let header = Tcmsg { ifindex: ifindex.cast_signed(), parent: PARENT, ..Tcmsg::new() };
    let mut kind = None;
    let request = Request::new().set_flags(NLM_F_ECHO).op_getqdisc_do(&header);
    let asked = netlink::ask(NETLINK_ROUTE, &request, |(_, attributes)| {
        kind = attributes.get_kind().ok().map(|kind| kind.to_string_lossy().into_owned());
    });
    match asked {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        asked => asked.map(|()| kind),
    }
}

/// Gives an interface clsact; fails if it has it, or the older kind.
pub fn add_qdisc(ifindex: u32) -> io::Result<()> {
    let mut request = Request::new().set_create().set_excl().op_newqdisc_do(&qdisc_header(ifindex));
    drop(request.encode().push_kind(CLSACT));
    netlink::ask(NETLINK_ROUTE, &request, |_| {})
}

/// Takes clsact from an interface, with all classifiers on it.
pub fn delete_qdisc(ifindex: u32) -> io::Result<()> {
    let mut request = Request::new().op_delqdisc_do(&qdisc_header(ifindex));
    drop(request.encode().push_kind(CLSACT));
    netlink::ask(NETLINK_ROUTE, &request, |_| {})
}

/// The classifiers on a hook, in the order in which they run. None if the interface or its qdisc is gone.
pub fn filters(ifindex: u32, hook: Hook) -> io::Result<Vec<Filter>> {
    let header = Tcmsg { ifindex: ifindex.cast_signed(), parent: parent(hook), ..Tcmsg::new() };
    let mut found = Vec::new();
    netlink::ask(NETLINK_ROUTE, &Request::new().op_gettfilter_dump(&header), |(header, attributes)| {
        let kind = attributes.get_kind().map(|kind| kind.to_string_lossy().into_owned()).unwrap_or_default();
        let (mut name, mut program_id) = (None, None);
        if let Ok(OptionsMsg::Bpf(options)) = attributes.get_options() {
            name = options.get_name().ok().map(|name| name.to_string_lossy().into_owned());
            program_id = options.get_id().ok();
        }
        found.push(Filter {
            place: Place { priority: (header.info >> 16) as u16, handle: header.handle },
            chain: attributes.get_chain().unwrap_or_default(),
            protocol: u16::from_be(header.info as u16),
            kind,
            name,
            program_id,
        });
    })?;
    Ok(found)
}

/// Puts a classifier in a place that is free.
pub fn add(ifindex: u32, hook: Hook, place: Place, name: &str, program: BorrowedFd<'_>) -> io::Result<()> {
    change(Request::new().set_create().set_excl(), &filter_header(ifindex, hook, place), name, program)
}

/// Swaps the classifier in a place. Every packet meets either the old or the new one.
pub fn replace(ifindex: u32, hook: Hook, place: Place, name: &str, program: BorrowedFd<'_>) -> io::Result<()> {
    change(Request::new(), &filter_header(ifindex, hook, place), name, program)
}

fn change(request: Request<'_>, header: &Tcmsg, name: &str, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut request = request.op_newtfilter_do(header);
    let options = request.encode().push_kind(BPF).nested_options_bpf();
    let options = options.push_fd(program.as_raw_fd().cast_unsigned()).push_name_bytes(name.as_bytes());
    drop(options.push_flags(DIRECT_ACTION).push_flags_gen(SKIP_HW));
    netlink::ask(NETLINK_ROUTE, &request, |_| {})
}

/// Removes the BPF classifier in a place.
pub fn delete(ifindex: u32, hook: Hook, place: Place) -> io::Result<()> {
    let mut request = Request::new().op_deltfilter_do(&filter_header(ifindex, hook, place));
    drop(request.encode().push_kind(BPF));
    netlink::ask(NETLINK_ROUTE, &request, |_| {})
}

fn qdisc_header(ifindex: u32) -> Tcmsg {
    Tcmsg { ifindex: ifindex.cast_signed(), parent: PARENT, handle: HANDLE, ..Tcmsg::new() }
}

fn filter_header(ifindex: u32, hook: Hook, place: Place) -> Tcmsg {
    let info = u32::from(place.priority) << 16 | u32::from(EVERY_PROTOCOL.to_be());
    Tcmsg { ifindex: ifindex.cast_signed(), parent: parent(hook), handle: place.handle, info, ..Tcmsg::new() }
}

const fn parent(hook: Hook) -> u32 {
    match hook {
        Hook::Ingress => INGRESS,
        Hook::Egress => EGRESS,
    }
}
