//! Observations of the agent's process and its log.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::MapData;
use lb_tests::agent::Agent;
use nix::unistd::{SysconfVar, sysconf};

const SECS_PER_DAY: f64 = 86_400.0;

/// The log as text.
pub struct Log(String);

impl Log {
    pub fn of(agent: &Agent) -> Self {
        Self(agent.log())
    }

    /// From the last of the first lists until the tables are applied.
    pub fn first_apply(&self) -> Option<Duration> {
        let lines = || self.0.lines();
        let listed = lines().filter(|line| line.contains(" listed ")).nth(2)?;
        let applied = lines().find(|line| line.contains(" applied "))?;
        let secs = (time_of_day(applied)? - time_of_day(listed)?).rem_euclid(SECS_PER_DAY);
        Some(Duration::from_secs_f64(secs))
    }

    /// Rows written and deleted so far.
    pub fn rows(&self) -> u64 {
        let applies = self.0.lines().filter(|line| line.contains(" applied "));
        applies.filter_map(|line| line.split(" rows=").nth(1)?.split(' ').next()?.parse::<u64>().ok()).sum()
    }
}

/// Seconds since midnight of a line that begins with `2026-01-01T12:34:56.789012Z`.
fn time_of_day(line: &str) -> Option<f64> {
    let (_, time) = line.split(' ').next()?.trim_end_matches('Z').split_once('T')?;
    time.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))
}

/// The resources that a process has used.
pub struct Usage {
    pub cpu_secs: f64,
    pub rss_mib: f64,
    pub peak_mib: f64,
}

impl Usage {
    pub fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mib = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context("the kernel tells it")?;
            Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name of the program is in parentheses and may contain anything; the two times are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("a name in parentheses")?;
        let ticks: f64 =
            fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().unwrap_or(0.0)).sum();
        let per_sec = sysconf(SysconfVar::CLK_TCK)?.context("the clock ticks")?;
        Ok(Self { cpu_secs: ticks / per_sec as f64, rss_mib: mib("VmRSS")?, peak_mib: mib("VmHWM")? })
    }
}

/// Mebibytes of the maps that are pinned in a folder.
pub fn memlock(folder: &Path) -> Result<f64> {
    let mut bytes = 0.0;
    for entry in fs::read_dir(folder)? {
        let map = MapData::from_pin(entry?.path())?;
        let fd = map.fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", std::os::fd::AsFd::as_fd(fd).as_raw_fd()))?;
        let line = info.lines().find_map(|line| line.strip_prefix("memlock:")).context("the kernel tells it")?;
        bytes += line.trim().parse::<f64>()?;
    }
    Ok(bytes / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_times_and_rows() {
        let log = Log(concat!(
            "2026-01-01T23:59:59.250000Z  INFO listed kind=\"Node\" objects=1\n",
            "2026-01-01T23:59:59.500000Z  INFO listed kind=\"Service\" objects=1\n",
            "2026-01-01T23:59:59.750000Z  INFO listed kind=\"EndpointSlice\" objects=1\n",
            "2026-01-02T00:00:00.000000Z  INFO applied ops=4 rows=23 draining=0 ms=240\n",
            "2026-01-02T00:00:01.000000Z  INFO applied ops=4 rows=2 draining=0 ms=2\n",
        )
        .to_owned());
        assert_eq!(log.first_apply(), Some(Duration::from_millis(250)));
        assert_eq!(log.rows(), 25);
    }
}
