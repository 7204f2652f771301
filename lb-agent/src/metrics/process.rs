//! What the process takes of its node, under the names that Prometheus' own libraries use.

use std::fmt;

use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, boot_time_secs, page_size, ticks_per_second};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

#[derive(Debug)]
pub struct ProcessCollector {
    /// Read once: the kernel counts all interrupts for the file that has it.
    booted_secs: Option<u64>,
}

/// The figures of one scrape.
struct Figures {
    cpu_secs: f64,
    started_secs: Option<f64>,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: i64,
    open_fds: u64,
    max_fds: Option<u64>,
}

impl ProcessCollector {
    pub fn new() -> Self {
        Self { booted_secs: boot_time_secs().ok() }
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus computes with floating point")]
    fn figures(&self) -> ProcResult<Figures> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let secs = |ticks: u64| ticks as f64 / ticks_per_second() as f64;
        Ok(Figures {
            cpu_secs: secs(stat.utime + stat.stime),
            started_secs: self.booted_secs.map(|booted| booted as f64 + secs(stat.starttime)),
            resident_bytes: stat.rss * page_size(),
            virtual_bytes: stat.vsize,
            threads: stat.num_threads,
            open_fds: process.fd_count()? as u64,
            max_fds: match process.limits()?.max_open_files.soft_limit {
                LimitValue::Value(max) => Some(max),
                LimitValue::Unlimited => None,
            },
        })
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let figures = match self.figures() {
            Ok(figures) => figures,
            Err(error) => {
                tracing::debug!(%error, "the figures of the process cannot be read");
                return Ok(());
            }
        };
        let cpu = ConstCounter::new(figures.cpu_secs);
        let help = "Processor time of the agent, user and system together";
        let described = encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), cpu.metric_type())?;
        cpu.encode(described)?;
        if let Some(started) = figures.started_secs {
            let started = ConstGauge::new(started);
            let help = "When the agent was started, in seconds since 1970";
            let name = "process_start_time";
            started.encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), started.metric_type())?)?;
        }
        let mut one = |name: &str, help: &str, unit: Option<&Unit>, value: u64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
        };
        let bytes = Some(&Unit::Bytes);
        let help = "Memory of the agent that is in use; BPF maps belong to the kernel and are not in it";
        one("process_resident_memory", help, bytes, figures.resident_bytes)?;
        one("process_virtual_memory", "Address space of the agent", bytes, figures.virtual_bytes)?;
        one("process_threads", "Threads of the agent", None, figures.threads.unsigned_abs())?;
        one("process_open_fds", "Open file descriptors of the agent", None, figures.open_fds)?;
        match figures.max_fds {
            Some(max) => one("process_max_fds", "File descriptors that the agent may open", None, max),
            None => Ok(()),
        }
    }
}
