//! Shares work between a few threads, while the caller waits for all of it.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;

/// The number of threads that share the work of one call, including the caller.
pub static THREADS: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, |cpus| cpus.get().min(4)));

/// Does all parts, each on the next free thread. A failed part does not stop the others. Returns the error of the first
/// part that failed.
pub fn share<P: Send, E: Send>(
    parts: impl ExactSizeIterator<Item = P> + Send,
    work: impl Fn(P) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let others = parts.len().min(*THREADS).saturating_sub(1);
    let (parts, failed) = (Mutex::new(parts.enumerate()), Mutex::new(BTreeMap::new()));
    let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
    let take_part = || {
        while let Some((index, part)) = next() {
            if let Err(error) = work(part) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).insert(index, error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..others {
            // If a thread cannot be started, the others do its parts.
            drop(thread::Builder::new().spawn_scoped(scope, take_part));
        }
        take_part();
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.into_values().next().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn all_is_done_and_the_first_error_is_told() {
        let done = AtomicUsize::new(0);
        let work = |number: usize| {
            done.fetch_add(1, Ordering::Relaxed);
            if [3, 70].contains(&number) { Err(number) } else { Ok(()) }
        };
        assert_eq!(share(0..100, work), Err(3));
        assert_eq!(share((0..100).rev(), work), Err(70));
        assert_eq!(share(0..3, work), Ok(()));
        assert_eq!(share(0..0, work), Ok(()));
        assert_eq!(done.into_inner(), 203);
    }

    /// Each part waits until all threads have one.
    #[test]
    fn parts_are_done_at_once() {
        let all = Barrier::new(*THREADS);
        let done = share(0..*THREADS, |_| -> Result<(), ()> {
            all.wait();
            Ok(())
        });
        assert_eq!(done, Ok(()));
    }
}
