//! haproxy in the external namespace: the cloud's load balancer, which sends clients' addresses by PROXY protocol.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::netns::Netns;
use crate::process::Process;

/// Whether the balancer sends a PROXY header to the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    ProxyHeader,
    /// It requires one of its clients as well, and passes on what that says.
    ProxyHeaderOfClient,
    Nothing,
}

/// An address that the balancer serves.
#[derive(Clone, Debug)]
pub struct Listener {
    pub name: &'static str,
    pub address: SocketAddr,
    pub backends: Vec<SocketAddr>,
    pub announce: Announce,
}

/// A running haproxy.
pub struct Haproxy {
    socket: PathBuf,
    process: Process,
}

impl Haproxy {
    /// Starts haproxy and waits until it answers on its statistics socket.
    #[track_caller]
    pub fn start(netns: &Netns, folder: &Path, listeners: &[Listener]) -> Self {
        let (socket, settings) = (folder.join("haproxy.sock"), folder.join("haproxy.cfg"));
        fs::write(&settings, configuration(&socket, listeners)).expect("the folder is ours");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-q").arg("-f").arg(&settings);
        let mut process = Process::start(netns, "haproxy", folder, &mut command);
        process.wait_until_up(|| statistics(&socket).is_some());
        Self { socket, process }
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Connections that a listener has accepted since the start.
    #[track_caller]
    pub fn connections(&self, listener: &str) -> u64 {
        let text = statistics(&self.socket).expect("haproxy answers on its socket");
        match total(&text, listener) {
            Some(total) => total,
            None => panic!("haproxy has no listener {listener}:\n{text}"),
        }
    }
}

fn configuration(socket: &Path, listeners: &[Listener]) -> String {
    let mut text = format!(
        "global\n    stats socket {} mode 600 level user\n\
         defaults\n    mode tcp\n    timeout connect 2s\n    timeout client 30s\n    timeout server 30s\n",
        socket.display()
    );
    for listener in listeners {
        let (accept, announce) = match listener.announce {
            Announce::ProxyHeader => ("", " send-proxy-v2"),
            Announce::ProxyHeaderOfClient => (" accept-proxy", " send-proxy-v2"),
            Announce::Nothing => ("", ""),
        };
        write!(text, "listen {}\n    bind {}{accept}\n", listener.name, listener.address).expect("a string takes all");
        for (index, backend) in listener.backends.iter().enumerate() {
            writeln!(text, "    server backend{index} {backend}{announce}").expect("a string takes all");
        }
    }
    text
}

fn statistics(socket: &Path) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(b"show stat\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// The column `stot` of a listener's line.
fn total(statistics: &str, listener: &str) -> Option<u64> {
    let mut lines = statistics.lines();
    let column = lines.next()?.split(',').position(|name| name == "stot")?;
    let line = lines.find(|line| line.starts_with(&format!("{listener},FRONTEND,")))?;
    line.split(',').nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn the_total_is_found_by_name() {
        let text = "# pxname,svname,scur,stot\nshop,FRONTEND,1,42\nshop,BACKEND,1,7\n";
        assert_eq!(total(text, "shop"), Some(42));
        assert_eq!(total(text, "other"), None);
    }
}
