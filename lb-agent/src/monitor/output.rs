//! Prints events, and notices a reader that has gone.

use std::os::fd::AsFd as _;

use anyhow::Context as _;
use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::filter::is_wanted;
use crate::args::{MonitorArgs, StreamOutput};
use crate::event::{Event, Lost};
use crate::print::{self, Reader};
use crate::printable::printable;
use crate::render::stream_line;

/// Whether printing continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    On,
    Over,
}

/// Prints on standard output.
pub struct Printer<'a> {
    args: &'a MonitorArgs,
    printed: u64,
    is_over: bool,
}

impl<'a> Printer<'a> {
    pub const fn new(args: &'a MonitorArgs) -> Self {
        Self { args, printed: 0, is_over: false }
    }

    /// The titles, once events can come.
    pub fn begin(&mut self) -> anyhow::Result<()> {
        match self.args.output {
            StreamOutput::Table => self.print(Event::titles().trim_end()),
            StreamOutput::Json => Ok(()),
        }
    }

    /// Prints an event, if the filters want it.
    pub fn event(&mut self, event: &Event) -> anyhow::Result<Flow> {
        if !self.is_over && is_wanted(&self.args.filters, event) {
            match self.args.output {
                StreamOutput::Table => self.print(&printable(event.line().trim_end()))?,
                StreamOutput::Json => self.print(&stream_line(event))?,
            }
            self.printed += 1;
            self.is_over |= self.args.limit.is_some_and(|limit| self.printed >= limit);
        }
        Ok(self.flow())
    }

    /// Tells that events were lost.
    pub fn lost(&mut self, events: u64, per_sec: u32) -> anyhow::Result<()> {
        let time = format!("{:.3}", Timestamp::now());
        match self.args.output {
            StreamOutput::Table => self.print(&format!(
                "{time}  lost    {events} events: more than --events-per-sec {per_sec}, or this command was too slow"
            )),
            StreamOutput::Json => self.print(&stream_line(&Lost { time, events })),
        }
    }

    /// Whether the output still has a reader.
    pub fn check(&mut self) -> anyhow::Result<Flow> {
        let output = std::io::stdout();
        let mut polled = [PollFd::new(output.as_fd(), PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO).context("cannot look at standard output")?;
        let [polled] = polled;
        self.is_over |= polled.revents().is_some_and(|found| found.contains(PollFlags::POLLERR));
        Ok(self.flow())
    }

    const fn flow(&self) -> Flow {
        if self.is_over { Flow::Over } else { Flow::On }
    }

    fn print(&mut self, line: &str) -> anyhow::Result<()> {
        self.is_over |= print::write(&format!("{line}\n"))? == Reader::Gone;
        Ok(())
    }
}
