//! Links: what attaches a program to a hook, for as long as the link is open or pinned.

use std::io::Result;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use aya_obj::generated::bpf_attach_type::BPF_XDP;
use aya_obj::generated::{
    XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE, bpf_attach_type, bpf_cmd, bpf_link_info, bpf_link_type,
};

use super::{Hook, bpf, info, new_fd, zeroed};

const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_AFTER: u32 = 1 << 4;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
/// `BPF_MPROG_MAX` of linux/bpf_mprog.h: the most programs of a hook.
const TCX_PROGRAMS_MAX: usize = 64;

/// Attaches a program to an interface by tcx: as the first at ingress, as the last at egress.
pub fn tcx_attach(program: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> Result<OwnedFd> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.link_create.__bindgen_anon_2.target_ifindex = ifindex;
    (attr.link_create.attach_type, attr.link_create.flags) = match hook {
        Hook::Ingress => (BPF_TCX_INGRESS, BPF_F_BEFORE),
        Hook::Egress => (BPF_TCX_EGRESS, BPF_F_AFTER),
    };
    new_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Attaches a program to a hook of a cgroup. Programs of others at the hook stay and run as well.
pub fn cgroup_attach(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: bpf_attach_type) -> Result<OwnedFd> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.link_create.__bindgen_anon_2.target_fd = cgroup.as_raw_fd().cast_unsigned();
    attr.link_create.attach_type = attach_type as u32;
    new_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Attaches a program to the driver of an interface, or, `is_native` not set, to the kernel's own code behind any driver.
/// Fails if there is one already.
pub fn xdp_attach(program: BorrowedFd<'_>, ifindex: u32, is_native: bool) -> Result<OwnedFd> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.link_create.__bindgen_anon_2.target_ifindex = ifindex;
    attr.link_create.attach_type = BPF_XDP as u32;
    attr.link_create.flags = if is_native { XDP_FLAGS_DRV_MODE } else { XDP_FLAGS_SKB_MODE };
    new_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Swaps the program of a link. Every packet meets either the old or the new program.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = zeroed();
    attr.link_update.link_fd = link.as_raw_fd().cast_unsigned();
    attr.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Detaches a link at once, although it may be open or pinned elsewhere.
pub fn link_detach(link: BorrowedFd<'_>) -> Result<()> {
    let mut attr = zeroed();
    attr.link_detach.link_fd = link.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop)
}

/// A tcx link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcxLink {
    /// 0 if the interface is gone.
    pub ifindex: u32,
    /// `None` if the hook is neither tcx ingress nor egress.
    pub hook: Option<Hook>,
    pub program_id: u32,
}

/// The attachment of a link; `None` if it is not a tcx link.
pub fn tcx_link(link: BorrowedFd<'_>) -> Result<Option<TcxLink>> {
    let info: bpf_link_info = info(link)?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_TCX as u32 {
        return Ok(None);
    }
    // SAFETY: all members of the union are plain integers, and the kernel wrote the one of this type.
    let tcx = unsafe { info.__bindgen_anon_1.tcx };
    let hook = match tcx.attach_type {
        BPF_TCX_INGRESS => Some(Hook::Ingress),
        BPF_TCX_EGRESS => Some(Hook::Egress),
        _ => None,
    };
    Ok(Some(TcxLink { ifindex: tcx.ifindex, hook, program_id: info.prog_id }))
}

/// An XDP link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpLink {
    /// 0 if the interface is gone.
    pub ifindex: u32,
    pub program_id: u32,
}

/// The attachment of a link; `None` if it is not an XDP link.
pub fn xdp_link(link: BorrowedFd<'_>) -> Result<Option<XdpLink>> {
    let info: bpf_link_info = info(link)?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_XDP as u32 {
        return Ok(None);
    }
    // SAFETY: all members of the union are plain integers, and the kernel wrote the one of this type.
    let xdp = unsafe { info.__bindgen_anon_1.xdp };
    Ok(Some(XdpLink { ifindex: xdp.ifindex, program_id: info.prog_id }))
}

/// The hook of a link; `None` if it is not a link of a cgroup.
pub fn cgroup_link(link: BorrowedFd<'_>) -> Result<Option<u32>> {
    let info: bpf_link_info = info(link)?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_CGROUP as u32 {
        return Ok(None);
    }
    // SAFETY: all members of the union are plain integers, and the kernel wrote the one of this type.
    Ok(Some(unsafe { info.__bindgen_anon_1.cgroup }.attach_type))
}

/// The IDs of the programs on a tcx hook, in the order in which they run.
pub fn tcx_programs(ifindex: u32, hook: Hook) -> Result<Vec<u32>> {
    let mut ids = vec![0_u32; TCX_PROGRAMS_MAX];
    let mut attr = zeroed();
    attr.query.__bindgen_anon_1.target_ifindex = ifindex;
    attr.query.attach_type = match hook {
        Hook::Ingress => BPF_TCX_INGRESS,
        Hook::Egress => BPF_TCX_EGRESS,
    };
    attr.query.prog_ids = ids.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.count = ids.len() as u32;
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr)?;
    // SAFETY: this member was set, and the kernel wrote the number of programs to it.
    ids.truncate(unsafe { attr.query.__bindgen_anon_2.count } as usize);
    Ok(ids)
}
