//! `top`: a live view of the node on the whole terminal. It reads the pins, so it works without a running agent.

mod draw;
mod sample;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::args::TopArgs;
use crate::dataplane::pins::Pins;
use crate::print::is_terminal;
use sample::Sample;
use state::State;

/// How soon a signal is noticed.
const GLANCE: Duration = Duration::from_millis(200);

pub fn run(args: &TopArgs) -> anyhow::Result<()> {
    if !is_terminal() {
        anyhow::bail!("top needs a terminal; without one use `lb-agent show frontends --watch`");
    }
    let pins = Pins::open(&args.pins.pin_path)?;
    let is_ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&is_ended)).context("following signals")?;
    }
    // A panic gives the terminal back as well.
    let mut terminal = ratatui::try_init().context("taking over the terminal")?;
    let watched = watch(&mut terminal, args, &pins, &is_ended);
    ratatui::try_restore().context("giving the terminal back")?;
    watched
}

/// Reads, draws and obeys keys until told to end.
fn watch(terminal: &mut DefaultTerminal, args: &TopArgs, pins: &Pins, is_ended: &AtomicBool) -> anyhow::Result<()> {
    let began = Instant::now();
    let interval = Duration::from_secs(args.interval_secs);
    let read = || Sample::read(pins, (&args.pins.pin_path, args.http.http), began);
    let mut state = State::default();
    state.take(read()?);
    let mut next = Instant::now() + interval;
    while !is_ended.load(Ordering::Relaxed) {
        terminal.draw(|frame| draw::draw(frame, &state))?;
        if event::poll(GLANCE.min(next.saturating_duration_since(Instant::now())))?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
            && !state.press(key)
        {
            break;
        }
        if Instant::now() >= next {
            state.take(read()?);
            next = Instant::now() + interval;
        }
    }
    Ok(())
}
