//! Checks the hooks of interfaces: how programs are attached, and what others have there.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::finding::Finding;
use crate::dataplane::probe::{AttachedProgram, programs};
use crate::dataplane::tcx::LOOPBACK_INDEX;
use crate::dataplane::{Error, Hook, clsact, driver};
use crate::interfaces::LinkFacts;

const NAME: &str = "hooks";

/// How programs are attached to interfaces here.
pub fn way() -> Finding {
    tcx(programs(LOOPBACK_INDEX, Hook::Ingress)).unwrap_or_else(|| classifiers(&clsact::missing_module()))
}

/// `None` if the kernel does not have tcx.
fn tcx(answer: Result<Vec<AttachedProgram>, Error>) -> Option<Finding> {
    match answer {
        Ok(_) => Some(Finding::ok(NAME, "the kernel has tcx")),
        Err(Error::Hook { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => None,
        Err(Error::Hook { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => Some(Finding::fail(
            NAME,
            "the kernel does not tell",
            "run as root, or grant CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF",
        )),
        Err(error) => Some(Finding::fail(NAME, error.to_string(), "use Linux 6.6 or newer with CONFIG_NET_XGRESS=y")),
    }
}

/// For a kernel without tcx.
fn classifiers(missing: &io::Result<Option<&'static str>>) -> Finding {
    match missing {
        Ok(None) => Finding::ok(
            NAME,
            "the kernel has no tcx (Linux 6.6, CONFIG_NET_XGRESS): programs are attached as classifiers, by clsact",
        ),
        Ok(Some(module)) => Finding::fail(
            NAME,
            format!("the kernel has neither tcx (Linux 6.6) nor {module} for clsact: no interface can be served"),
            format!("modprobe {module}, or use Linux 6.6 or newer with CONFIG_NET_XGRESS=y"),
        ),
        Err(error) => Finding::warn(
            NAME,
            format!("the kernel has no tcx (Linux 6.6), and whether it has clsact could not be tried ({error})"),
            "run as root",
        ),
    }
}

/// Programs and classifiers of others on an interface. `ours` are the IDs of our attached programs.
pub fn foreign(link: &LinkFacts, ours: &BTreeSet<u32>, pin_path: &Path) -> Vec<Finding> {
    [xdp_program(link), tcx_programs(link, ours), qdisc(link), before_tcx_came(link, pin_path)]
        .into_iter()
        .flatten()
        .collect()
}

/// Programs of drivers run before all others.
fn xdp_program(link: &LinkFacts) -> Option<Finding> {
    let found = driver::programs(link.ifindex).unwrap_or_default().into_iter();
    let mut others =
        found.map(|(mode, id)| (mode, AttachedProgram::of_id(id))).filter(|(_, xdp)| !xdp.is_named_as_ours());
    let (mode, program) = others.next()?;
    Some(Finding::warn(
        "xdp-programs",
        format!("{} has an XDP program of others: {program} ({})", link.name, mode.name()),
        "frames that it drops or sends elsewhere never come to lb-agent; an interface has one such program, so --xdp has no \
         effect there",
    ))
}

fn tcx_programs(link: &LinkFacts, ours: &BTreeSet<u32>) -> Option<Finding> {
    let is_ours = |program: &AttachedProgram| ours.contains(&program.id) || program.is_named_as_ours();
    let (mut names, mut is_before_ours) = (Vec::new(), false);
    for hook in Hook::ALL {
        // The interface is gone, or the kernel refuses to answer, which another finding reports.
        let found = programs(link.ifindex, hook).unwrap_or_default();
        let place = found.iter().position(is_ours);
        for (index, program) in found.iter().enumerate().filter(|(_, program)| !is_ours(program)) {
            let order = place.map_or("", |place| if index < place { ", before ours" } else { ", behind ours" });
            is_before_ours |= place.is_some_and(|place| index < place);
            names.push(format!("{program} at {}{order}", hook.name()));
        }
    }
    let remedy = if is_before_ours {
        "programs before ours must pass packets on (TCX_NEXT), or be attached behind ours: we never see the packets \
         that they drop"
    } else {
        "ours run first at ingress and last at egress; the others must pass packets on (TCX_NEXT)"
    };
    (!names.is_empty()).then(|| {
        let found = format!("{} has tcx programs of others: {}", link.name, names.join(", "));
        Finding::warn("tcx-programs", found, remedy)
    })
}

/// Where the kernel has tcx, the qdiscs of others do not concern us.
fn qdisc(link: &LinkFacts) -> Option<Finding> {
    if crate::dataplane::tcx::is_supported() {
        return None;
    }
    let kind = clsact::qdisc_in_the_way(link.ifindex).ok()??;
    Some(Finding::warn(
        "qdisc",
        format!("{} has the qdisc {kind} of others, which takes the place of clsact: it cannot be served", link.name),
        "let the owner of the qdisc use clsact, or use Linux 6.6 or newer",
    ))
}

/// Where the kernel has tcx, ours run before the classifiers of others at ingress and at egress.
fn before_tcx_came(link: &LinkFacts, pin_path: &Path) -> Option<Finding> {
    if crate::dataplane::tcx::is_supported() {
        return None;
    }
    let on = |hook: Hook| {
        let others = clsact::neighbours(pin_path, link.ifindex, hook).unwrap_or_default();
        others.into_iter().map(move |other| format!("{other} at {}", hook.name()))
    };
    let names: Vec<_> = Hook::ALL.into_iter().flat_map(on).collect();
    (!names.is_empty()).then(|| {
        Finding::warn(
            "classifiers",
            format!("{} has classifiers of others: {}", link.name, names.join(", ")),
            "ours run first at ingress and last at egress; the others must pass packets on (continue, or of a program \
             TC_ACT_UNSPEC)",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Verdict;

    #[test]
    fn tcx_by_the_kernels_answer() {
        let refused = |code| {
            let source = io::Error::from_raw_os_error(code);
            tcx(Err(Error::Hook { ifindex: 1, hook: Hook::Ingress, source }))
        };
        assert_eq!(tcx(Ok(Vec::new())).expect("a finding").verdict, Verdict::Ok);
        assert_eq!(refused(libc::EINVAL), None, "an older kernel does not know the question");
        assert!(refused(libc::EPERM).expect("a finding").remedy.contains("CAP_BPF"));
    }

    #[test]
    fn without_tcx_a_module_is_named() {
        assert_eq!(classifiers(&Ok(None)).verdict, Verdict::Ok);
        let failure = classifiers(&Ok(Some("cls_bpf")));
        assert_eq!((failure.verdict, failure.remedy.contains("modprobe cls_bpf")), (Verdict::Fail, true));
        assert_eq!(classifiers(&Err(io::ErrorKind::PermissionDenied.into())).verdict, Verdict::Warn);
    }
}
