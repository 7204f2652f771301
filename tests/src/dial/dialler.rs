//! A client that dials repeatedly and counts the results.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Held, LIMIT, Outcome, connect};
use crate::answer::Answer;
use crate::netns::Netns;

/// The results of a [`Dialler`].
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers by server name.
    pub answered: BTreeMap<String, u64>,
    pub failures: Vec<Outcome>,
}

impl Tally {
    /// All answers.
    pub fn answers(&self) -> u64 {
        self.answered.values().sum()
    }
}

/// A client that dials until it is stopped.
pub struct Dialler {
    stop: Arc<AtomicBool>,
    dialled: Arc<AtomicU64>,
    thread: Option<JoinHandle<Tally>>,
}

impl Dialler {
    pub(super) fn start(netns: &Netns, source: Option<SocketAddr>, to: SocketAddr) -> Self {
        let (stop, dialled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count) = (Arc::clone(&stop), Arc::clone(&dialled));
        let thread = netns.thread(move || {
            let mut tally = Tally::default();
            while !told.load(Ordering::SeqCst) {
                match dial_once(source, to) {
                    Ok(answer) => *tally.answered.entry(answer.who).or_default() += 1,
                    Err(error) => tally.failures.push(Outcome::of(&error)),
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
            tally
        });
        Self { stop, dialled, thread: Some(thread) }
    }

    /// How often it has dialled so far.
    pub fn dialled(&self) -> u64 {
        self.dialled.load(Ordering::SeqCst)
    }

    /// Stops it and returns the results.
    pub fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("stopped once");
        match thread.join() {
            Ok(tally) => tally,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Dialler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // Dropped without `stop` only while a test unwinds.
            let _ = thread.join();
        }
    }
}

/// One connection that is reset at its end, so that its port is free at once.
fn dial_once(source: Option<SocketAddr>, to: SocketAddr) -> io::Result<Answer> {
    let stream = connect(source, to, LIMIT)?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Held::greeted(stream).map(|held| held.answer)
}
