//! Whose programs are on an interface, asked without changing anything.

use super::{Error, Hook, object, sys};

/// The kernel keeps this much of a program's name (`BPF_OBJ_NAME_LEN`, less the zero).
const NAME_MAX: usize = 15;

/// A program on a tcx hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    pub id: u32,
    /// As the kernel has it; it tells root only.
    pub name: Option<String>,
}

impl AttachedProgram {
    pub fn of_id(id: u32) -> Self {
        Self { id, name: sys::program_name(id).ok() }
    }

    /// By its name, which others could give their own.
    pub fn is_named_as_ours(&self) -> bool {
        let name = self.name.as_deref();
        object::PROGRAMS
            .iter()
            .chain(&object::BARE_PROGRAMS)
            .any(|ours| Some(&ours[..ours.len().min(NAME_MAX)]) == name)
    }
}

impl std::fmt::Display for AttachedProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (id {})", self.id),
            None => write!(f, "id {}", self.id),
        }
    }
}

/// The programs on a tcx hook, in the order in which they run. Fails on a kernel without tcx.
pub fn programs(ifindex: u32, hook: Hook) -> Result<Vec<AttachedProgram>, Error> {
    let what = || format!("asking for the tcx programs at {} of interface {ifindex}", hook.name());
    let ids = sys::tcx_programs(ifindex, hook).map_err(|source| Error::Kernel { what: what(), source })?;
    Ok(ids.into_iter().map(AttachedProgram::of_id).collect())
}
