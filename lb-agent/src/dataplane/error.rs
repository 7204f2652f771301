//! Why the dataplane could not do something. Each text names the object and the field, and the remedy if there is one.

use std::io;
use std::path::PathBuf;

use lb_common::table::LAYOUT_VERSION;

use super::mounts::USUAL_BPFFS;
use super::sys::Hook;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("table {map} is full ({max} entries): raise {setting}")]
    Full { map: &'static str, max: u32, setting: &'static str },
    /// One row was refused.
    #[error("{op} on {map} failed for {key}: {source}")]
    Row { op: &'static str, map: &'static str, key: String, source: io::Error },
    /// A call on a table as a whole failed.
    #[error("{op} table {map}: {source}")]
    Table { op: &'static str, map: &'static str, source: io::Error },
    /// A call on one element of an array failed.
    #[error("{op} element {index} of table {map}: {source}")]
    Element { op: &'static str, map: &'static str, index: u32, source: io::Error },
    /// A call on a file, a folder or a pin failed.
    #[error("{op} {}: {source}", path.display())]
    Path { op: &'static str, path: PathBuf, source: io::Error },
    /// A program could not be attached where the pin says.
    #[error("attaching {pin}: {source}")]
    Attach { pin: String, source: io::Error },
    #[error("detaching {attachment}: {source}")]
    Detach { attachment: String, source: io::Error },
    #[error("asking for the tcx programs at {} of interface {ifindex}: {source}", hook.name())]
    Hook { ifindex: u32, hook: Hook, source: io::Error },
    /// A call that concerns no object in particular failed.
    #[error("{op}: {source}")]
    Kernel { op: &'static str, source: io::Error },
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An object in the pin folder was not made by us, or others can change the folder.
    #[error(transparent)]
    Untrusted(#[from] Distrust),
}

/// A state in which the agent does not go to work.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("another agent runs on the pins in {}: stop it, or choose another --pin-path", path.display())]
    Locked { path: PathBuf },
    #[error("{} was removed", path.display())]
    Gone { path: PathBuf },
    #[error(
        "the pins in {path} belong to another network namespace (cookie {theirs}, this one has {ours}): choose another \
         --pin-path, or remove them with `lb-agent unload --pin-path {path}`",
        path = path.display()
    )]
    Namespace { path: PathBuf, theirs: u64, ours: u64 },
    #[error("no dataplane is pinned in {}: no agent has run with this --pin-path since the node booted, or `unload` removed it; start \
         `lb-agent run`, or name its --pin-path", path.display())]
    NotPinned { path: PathBuf },
    #[error(
        "the tables in {} have layout {layout}, this program reads {LAYOUT_VERSION}: use the lb-agent that made them",
        path.display()
    )]
    Layout { path: PathBuf, layout: u16 },
    #[error("another `lb-agent monitor` listens on this node: end it first, as each event is read once")]
    Listened,
    #[error("the agent that made these pins cannot tell what happens: restart it with this version (`lb-agent run`)")]
    NoLease,
    /// The bytes of a table are no value of this version.
    #[error("table {map} has another layout: run `lb-agent unload`")]
    Torn { map: &'static str },
    #[error(
        "{} is on no BPF file system: mount one (`mount -t bpf bpf DIR`) or choose --pin-path below {USUAL_BPFFS}",
        path.display()
    )]
    NoBpffs { path: PathBuf },
    #[error("the BPF object has no program {program}")]
    NoProgram { program: String },
    #[error("program {program} is not loaded: {reason}")]
    NotLoaded { program: &'static str, reason: String },
    #[error(
        "interface {ifindex} has the qdisc {kind} of others, which takes the place of clsact and has no egress hook: \
         remove it, or let its owner use clsact"
    )]
    OtherQdisc { ifindex: u32, kind: String },
    #[error(
        "the classifiers of interface {ifindex} are in a block that interfaces share, which lb-agent leaves alone: give \
         the interface a clsact of its own"
    )]
    SharedBlock { ifindex: u32 },
    #[error("every priority of interface {ifindex} is taken by classifiers of others")]
    NoPlace { ifindex: u32 },
    #[error(
        "the XDP program {program} of others is there ({mode}), and an interface has one only: detach it, or set --xdp=off"
    )]
    OtherXdp { program: String, mode: &'static str },
    #[error("its driver has no XDP: --xdp=auto leaves it out")]
    NoXdp,
    #[error("the kernel has neither tcx nor {module}: `modprobe {module}`, or use Linux 6.6 or newer")]
    NoModule { module: &'static str },
    /// The kernel did not load a program, or the whole object.
    #[error("the kernel did not load {what}: {reason}; `lb-agent check` says what this machine lacks")]
    Load { what: String, reason: String },
}

/// What is wrong with a file or folder that the agent does not trust.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    #[error(
        "{} is a symbolic link, which its owner can point elsewhere: remove it, or name the folder itself by \
         --pin-path",
        path.display()
    )]
    Link { path: PathBuf },
    #[error("{} is not a folder: remove it, or choose another --pin-path", path.display())]
    NoFolder { path: PathBuf },
    #[error(
        "other users can replace the contents of {path} (mode {mode:04o}): `chmod go-w {path}`, or choose another \
         --pin-path",
        path = path.display()
    )]
    Replaceable { path: PathBuf, mode: u32 },
    #[error(
        "other users can write to {path} (mode {mode:04o}): check its contents, then `chmod 0700 {path}`, or choose \
         another --pin-path",
        path = path.display()
    )]
    Writable { path: PathBuf, mode: u32 },
    #[error(
        "{path} belongs to user {uid}, not to root: move it away (`mv {path} {path}.user-{uid}`), or choose another \
         --pin-path",
        path = path.display()
    )]
    Owner { path: PathBuf, uid: u32 },
    #[error("{} is not a map of lb-agent: move it away, or choose another --pin-path", path.display())]
    NoMap { path: PathBuf },
}
