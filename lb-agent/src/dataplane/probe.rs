//! Whose programs are on an interface, asked without changing anything.

use aya::programs::tc::TcAttachType;
use aya::programs::{ProgramError, SchedClassifier};

use super::{Error, Hook, object};

/// The kernel keeps this much of a program's name (`BPF_OBJ_NAME_LEN`, less the zero).
const NAME_MAX: usize = 15;

/// A program on a tcx hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    pub id: u32,
    /// As the kernel has it; ours are told by it.
    pub name: String,
}

impl AttachedProgram {
    pub fn is_ours(&self) -> bool {
        object::PROGRAMS.iter().any(|ours| ours[..ours.len().min(NAME_MAX)] == *self.name)
    }
}

/// The programs on a tcx hook, in the order in which they run. Fails on a kernel without tcx.
pub fn programs(interface: &str, hook: Hook) -> Result<Vec<AttachedProgram>, Error> {
    let attach_type = match hook {
        Hook::Ingress => TcAttachType::Ingress,
        Hook::Egress => TcAttachType::Egress,
    };
    let (_, programs) = SchedClassifier::query_tcx(interface, attach_type).map_err(|error| {
        let what = format!("asking for the tcx programs on {interface} {}", hook.name());
        Error::Kernel { what, source: io_error(error) }
    })?;
    let describe = |info: aya::programs::ProgramInfo| AttachedProgram {
        id: info.id(),
        name: info.name_as_str().unwrap_or_default().to_owned(),
    };
    Ok(programs.into_iter().map(describe).collect())
}

fn io_error(error: ProgramError) -> std::io::Error {
    match error {
        ProgramError::SyscallError(error) => error.io_error,
        other => std::io::Error::other(other),
    }
}
