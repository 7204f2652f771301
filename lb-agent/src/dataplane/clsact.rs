//! Programs on the hooks of interfaces by the qdisc clsact, for kernels without tcx. The kernel keeps a classifier until
//! it is removed or its interface goes, so programs stay without an agent.
//!
//! A classifier is ours if its name says so and names our pins. Classifiers and qdiscs of others are never changed.

mod tc;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};

use self::tc::{Filter, Place};
use super::links::{Ahead, Attached, Attachment};
use super::mounts::host_path;
use super::probe::{AttachedProgram, Neighbour};
use super::sys::{self, Hook};
use super::tcx::LOOPBACK_INDEX;
use super::{Error, Refusal};

/// The handle of our classifiers: "lb".
const HANDLE: u32 = 0x6c62;
/// What the kernel loads when it is first asked, if it has modules.
const QDISC_MODULE: &str = "sch_ingress";
const CLASSIFIER_MODULE: &str = "cls_bpf";
/// The first part of the names of our classifiers.
const AGENT: &str = "lb-agent";

/// Our classifiers, of all interfaces of this network namespace.
pub struct Filters {
    /// The pins that we belong to. Another agent of this namespace has others.
    pins: String,
    attached: BTreeMap<Attachment, u32>,
}

/// Whose the qdisc is that a classifier is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Qdisc {
    /// Made by us, to be removed with our last classifier.
    Ours,
    Theirs,
}

impl Qdisc {
    const fn name(self) -> &'static str {
        match self {
            Self::Ours => "own-qdisc",
            Self::Theirs => "qdisc-of-others",
        }
    }
}

impl Filters {
    /// Reads which hooks have a classifier of ours.
    pub fn read(pin_path: &Path) -> Result<Self, Error> {
        let reading = |source| Error::Kernel { op: "listing the classifiers of interfaces", source };
        let mut filters = Self { pins: host_path(pin_path).to_string_lossy().into_owned(), attached: BTreeMap::new() };
        for ifindex in tc::interfaces().map_err(reading)? {
            for hook in Hook::ALL {
                for filter in tc::filters(ifindex, hook).map_err(reading)? {
                    if let Some((attachment, _)) = filters.ours(ifindex, hook, &filter) {
                        filters.attached.insert(attachment, filter.program_id.unwrap_or_default());
                    }
                }
            }
        }
        Ok(filters)
    }

    pub const fn attached(&self) -> &BTreeMap<Attachment, u32> {
        &self.attached
    }

    /// The hooks where others run first. Programs of tcx, where the kernel has it, run before all classifiers.
    pub fn ahead(&self) -> Vec<Ahead> {
        let ahead_of = |attachment: &Attachment| {
            let Attachment { ifindex, hook, .. } = *attachment;
            let before = sys::tcx_programs(ifindex, hook).unwrap_or_default();
            let before = before.into_iter().map(|id| Neighbour::Program(AttachedProgram::of_id(id)));
            let filters = tc::filters(ifindex, hook).ok()?;
            let is_ours = |filter: &Filter| self.ours(ifindex, hook, filter).is_some();
            let place = filters.iter().position(is_ours)?;
            let programs: Vec<_> = before.chain(neighbours_in(&filters[..place])).collect();
            (!programs.is_empty()).then_some(Ahead { attachment: *attachment, programs })
        };
        self.attached.keys().filter_map(ahead_of).collect()
    }

    /// Forgets classifiers that another program has removed, and returns whether there were any.
    pub fn forget_lost(&mut self) -> bool {
        let is_there = |attachment: &Attachment| {
            let Attachment { ifindex, hook, .. } = *attachment;
            // Without an answer, nothing is known.
            tc::filters(ifindex, hook).map_or(true, |filters| self.find(*attachment, &filters).is_some())
        };
        let lost: Vec<_> = self.attached.keys().copied().filter(|attachment| !is_there(attachment)).collect();
        for attachment in &lost {
            self.attached.remove(attachment);
        }
        !lost.is_empty()
    }

    /// Gives a hook its program: swaps a program of ours, else adds a classifier, and the qdisc if there is none.
    pub fn attach(&mut self, attachment: Attachment, program: BorrowedFd<'_>) -> Result<Attached, Error> {
        let kernel = |source| Error::Attach { pin: attachment.to_string(), source };
        let Attachment { ifindex, hook, .. } = attachment;
        let filters = tc::filters(ifindex, hook).map_err(kernel)?;
        let attached = if let Some((place, qdisc)) = self.find(attachment, &filters) {
            let name = self.name(attachment, qdisc);
            tc::replace(ifindex, hook, place, &name, program).map_err(kernel)?;
            Attached::Before
        } else {
            let qdisc = self.provide_qdisc(attachment)?;
            let place = free_place(hook, &filters).ok_or(Refusal::NoPlace { ifindex })?;
            let name = self.name(attachment, qdisc);
            tc::add(ifindex, hook, place, &name, program).map_err(|error| match error.raw_os_error() {
                Some(libc::EOPNOTSUPP) => Refusal::SharedBlock { ifindex }.into(),
                _ => missing(error, CLASSIFIER_MODULE, kernel),
            })?;
            Attached::Anew
        };
        self.attached.insert(attachment, sys::program_id(program).map_err(kernel)?);
        Ok(attached)
    }

    /// Removes our classifier from a hook, and with the last one the qdisc if we made it and no others use it.
    /// Succeeds if the interface is already gone.
    pub fn detach(&mut self, attachment: &Attachment) -> Result<(), Error> {
        let Attachment { ifindex, hook, .. } = *attachment;
        let kernel = |source| Error::Detach { attachment: attachment.to_string(), source };
        let filters = tc::filters(ifindex, hook).map_err(kernel)?;
        if let Some((place, qdisc)) = self.find(*attachment, &filters) {
            gone_is_done(tc::delete(ifindex, hook, place)).map_err(kernel)?;
            if qdisc == Qdisc::Ours && is_unused(ifindex).map_err(kernel)? {
                gone_is_done(tc::delete_qdisc(ifindex)).map_err(kernel)?;
            }
        }
        self.attached.remove(attachment);
        Ok(())
    }

    /// The qdisc for a classifier. The one of our other hook is known by that hook's classifier.
    fn provide_qdisc(&self, attachment: Attachment) -> Result<Qdisc, Error> {
        let kernel = |source| Error::Attach { pin: attachment.to_string(), source };
        let ifindex = attachment.ifindex;
        match tc::qdisc(ifindex).map_err(kernel)? {
            None => {
                tc::add_qdisc(ifindex).map_err(|error| missing(error, QDISC_MODULE, kernel))?;
                Ok(Qdisc::Ours)
            }
            Some(kind) if kind.as_bytes() == tc::CLSACT.to_bytes() => {
                let mut known = None;
                for hook in Hook::ALL {
                    let filters = tc::filters(ifindex, hook).map_err(kernel)?;
                    known = known.or(filters.iter().find_map(|filter| self.ours(ifindex, hook, filter)));
                }
                Ok(known.map_or(Qdisc::Theirs, |(_, qdisc)| qdisc))
            }
            Some(kind) => Err(Refusal::OtherQdisc { ifindex, kind }.into()),
        }
    }

    /// Where our classifier for an attachment is, on its hook.
    fn find(&self, attachment: Attachment, filters: &[Filter]) -> Option<(Place, Qdisc)> {
        filters.iter().find_map(|filter| {
            let (found, qdisc) = self.ours(attachment.ifindex, attachment.hook, filter)?;
            (found == attachment).then_some((filter.place, qdisc))
        })
    }

    /// What a classifier of ours says of itself; `None` for one of others.
    fn ours(&self, ifindex: u32, hook: Hook, filter: &Filter) -> Option<(Attachment, Qdisc)> {
        let mut parts = filter.name.as_deref()?.splitn(4, ':');
        if parts.next()? != AGENT {
            return None;
        }
        let attachment = Attachment::from_name(parts.next()?)?;
        let qdisc = parts.next()?;
        let qdisc = [Qdisc::Ours, Qdisc::Theirs].into_iter().find(|known| known.name() == qdisc)?;
        let is_ours = parts.next()? == self.pins && filter.chain == 0 && filter.place.handle == HANDLE;
        (is_ours && (attachment.ifindex, attachment.hook) == (ifindex, hook)).then_some((attachment, qdisc))
    }

    fn name(&self, attachment: Attachment, qdisc: Qdisc) -> String {
        format!("{AGENT}:{attachment}:{}:{}", qdisc.name(), self.pins)
    }
}

/// The module that clsact needs and this kernel lacks. Tried in a network namespace that goes at once.
pub fn missing_module() -> io::Result<Option<&'static str>> {
    let attempt = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        match tc::add_qdisc(LOOPBACK_INDEX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(QDISC_MODULE)),
            added => added?,
        }
        // A kernel that knows the classifier finds that this is no program.
        let no_program = File::open("/dev/null")?;
        let place = Place { priority: 1, handle: HANDLE };
        match tc::add(LOOPBACK_INDEX, Hook::Ingress, place, AGENT, no_program.as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(CLASSIFIER_MODULE)),
            _ => Ok(None),
        }
    };
    // The namespace of a thread is its own.
    let tried = std::thread::scope(|scope| scope.spawn(attempt).join());
    tried.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

/// The qdisc of an interface, if it is one that has no place for clsact beside it.
pub fn qdisc_in_the_way(ifindex: u32) -> io::Result<Option<String>> {
    Ok(tc::qdisc(ifindex)?.filter(|kind| kind.as_bytes() != tc::CLSACT.to_bytes()))
}

/// The classifiers of others on a hook, in the order in which they run.
pub fn neighbours(pin_path: &Path, ifindex: u32, hook: Hook) -> io::Result<Vec<Neighbour>> {
    let ours = Filters { pins: host_path(pin_path).to_string_lossy().into_owned(), attached: BTreeMap::new() };
    let mut filters = tc::filters(ifindex, hook)?;
    filters.retain(|filter| ours.ours(ifindex, hook, filter).is_none());
    Ok(neighbours_in(&filters))
}

/// One for each BPF program. Of other classifiers one for each priority: some keep rows of their own beside it.
fn neighbours_in(filters: &[Filter]) -> Vec<Neighbour> {
    let is_program = |filter: &Filter| filter.kind.as_bytes() == tc::BPF.to_bytes();
    let is_counted = |filter: &&Filter| filter.chain == 0 && is_program(filter) == (filter.place.handle != 0);
    filters.iter().filter(is_counted).map(neighbour).collect()
}

fn neighbour(filter: &Filter) -> Neighbour {
    match filter.program_id {
        Some(id) => Neighbour::Program(AttachedProgram::of_id(id)),
        None => Neighbour::Classifier { kind: filter.kind.clone(), priority: filter.place.priority },
    }
}

/// A free place: the first one that runs at ingress, the last one at egress. The classifiers of a priority are of one kind
/// and see the packets of one protocol.
fn free_place(hook: Hook, filters: &[Filter]) -> Option<Place> {
    let is_like_ours = |filter: &Filter| {
        filter.kind.as_bytes() == tc::BPF.to_bytes()
            && filter.protocol == tc::EVERY_PROTOCOL
            && filter.place.handle != HANDLE
    };
    let taken: BTreeSet<u16> = filters
        .iter()
        .filter(|filter| filter.chain == 0 && !is_like_ours(filter))
        .map(|filter| filter.place.priority)
        .collect();
    let mut all = 1..=u16::MAX;
    let is_free = |priority: &u16| !taken.contains(priority);
    let priority = match hook {
        Hook::Ingress => all.find(is_free),
        Hook::Egress => all.rfind(is_free),
    }?;
    Some(Place { priority, handle: HANDLE })
}

/// Whether no classifier is on either hook.
fn is_unused(ifindex: u32) -> io::Result<bool> {
    for hook in Hook::ALL {
        if !tc::filters(ifindex, hook)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The interface, the qdisc or the classifier went while we looked.
fn gone_is_done(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT | libc::EINVAL)) => Ok(()),
        result => result,
    }
}

/// The kernel answers ENOENT if it has neither the code nor a module with it.
fn missing(error: io::Error, module: &'static str, other: impl Fn(io::Error) -> Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound { Refusal::NoModule { module }.into() } else { other(error) }
}

#[cfg(test)]
mod tests;
