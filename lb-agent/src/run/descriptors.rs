//! The limit of open descriptors. Each interface holds two links, so a node with many pods exceeds the usual 1,024.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. Returns the resulting limit.
pub fn raise_limit() -> u64 {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(hard)
    });
    raised.unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of descriptors was not raised");
        getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("every process has one");
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(512), hard).expect("lowering is allowed");
        assert_eq!(raise_limit(), hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((hard, hard)));
    }
}
