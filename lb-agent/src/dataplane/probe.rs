//! Reads which programs are attached to an interface, without changing anything.

use super::{Error, Hook, object, sys};

/// The length of program names that the kernel keeps (`BPF_OBJ_NAME_LEN` without the terminating zero).
const NAME_MAX: usize = 15;

/// A program on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    pub id: u32,
    /// The kernel's copy of the name, which only root can read.
    pub name: Option<String>,
}

impl AttachedProgram {
    pub fn of_id(id: u32) -> Self {
        Self { id, name: sys::program_name(id).ok() }
    }

    /// Whether the name is one of ours. Other programs can have the same name.
    pub fn is_named_as_ours(&self) -> bool {
        let name = self.name.as_deref();
        object::PROGRAMS
            .iter()
            .chain(&object::BARE_PROGRAMS)
            .chain(&object::DRIVER_PROGRAMS)
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

/// What runs on a hook besides our program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Neighbour {
    Program(AttachedProgram),
    /// A classifier that is no BPF program: its kind and its priority.
    Classifier {
        kind: String,
        priority: u16,
    },
}

impl std::fmt::Display for Neighbour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Program(program) => program.fmt(f),
            Self::Classifier { kind, priority } => write!(f, "classifier {kind} (priority {priority})"),
        }
    }
}

/// The programs on a tcx hook, in the order in which they run. Fails if the kernel has no tcx.
pub fn programs(ifindex: u32, hook: Hook) -> Result<Vec<AttachedProgram>, Error> {
    let ids = sys::tcx_programs(ifindex, hook).map_err(|source| Error::Hook { ifindex, hook, source })?;
    Ok(ids.into_iter().map(AttachedProgram::of_id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_programs_are_known_by_what_the_kernel_keeps_of_their_names() {
        let program = |name: &str| AttachedProgram { id: 1, name: Some(name.into()) };
        assert!(program("workload_ingres").is_named_as_ours() && program("uplink_egress").is_named_as_ours());
        assert!(program("workload_out_l3").is_named_as_ours());
        assert!(!program("cil_from_contai").is_named_as_ours() && !program("").is_named_as_ours());
        assert!(!AttachedProgram { id: 1, name: None }.is_named_as_ours());
    }
}
