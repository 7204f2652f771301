//! Checks the memory limit of the container.

use super::finding::Finding;
use crate::dataplane::Sizes;
use crate::dataplane::memory::Memory;

/// Whether new tables of the default sizes fit into the limit.
pub fn findings() -> Vec<Finding> {
    vec![match Memory::of(&Sizes::default()) {
        Ok(memory) => fits(&memory),
        Err(error) => Finding::warn("memory", error.to_string(), "mount /sys"),
    }]
}

fn fits(memory: &Memory) -> Finding {
    if let Some((found, remedy)) = memory.shortage() {
        return Finding::warn("memory", format!("with the default sizes, {found}"), remedy);
    }
    let limit = memory.limit_bytes.map_or_else(|| "no limit".to_owned(), |limit| format!("{} MiB", limit >> 20));
    let tables = memory.tables_bytes >> 20;
    Finding::ok("memory", format!("tables of the default sizes take {tables} MiB; the limit here: {limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Verdict;

    #[test]
    fn a_small_limit_is_a_warning() {
        let memory = |limit_bytes| fits(&Memory { tables_bytes: 139 << 20, cpus: 2, limit_bytes });
        assert_eq!(memory(None).verdict, Verdict::Ok);
        assert_eq!(memory(Some(256 << 20)).verdict, Verdict::Ok);
        assert_eq!(memory(Some(128 << 20)).verdict, Verdict::Warn);
    }
}
