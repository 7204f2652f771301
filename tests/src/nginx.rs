//! nginx in a pod: one port that requires a PROXY header, one that takes plain HTTP, and a log with both client
//! addresses.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::http;
use crate::netns::Netns;
use crate::process::Process;

/// The port that requires the balancer's PROXY header at the start of each connection.
pub const PROXY_PORT: u16 = 8080;
/// The port that takes plain HTTP.
pub const PLAIN_PORT: u16 = 8081;

/// Bytes of the page `/slow`.
pub const SLOW_BYTES: usize = 300_000;

/// A running nginx.
pub struct Nginx {
    log: PathBuf,
    _process: Process,
}

/// A request as nginx logged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub port: u16,
    /// The client that the PROXY header names.
    pub announced: Option<IpAddr>,
    /// The address that opened the connection.
    pub peer: IpAddr,
    pub path: String,
}

impl Nginx {
    /// Starts nginx in a pod and waits until it answers.
    #[track_caller]
    pub fn start(netns: &Netns, name: &str, folder: &Path) -> Self {
        let home = folder.join(name);
        fs::create_dir_all(&home).expect("the folder is ours");
        fs::write(home.join("slow"), vec![b'.'; SLOW_BYTES]).expect("the folder is ours");
        let (log, settings) = (home.join("access.log"), home.join("nginx.conf"));
        fs::write(&settings, configuration(name, &home)).expect("the folder is ours");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&home).arg("-c").arg(&settings).arg("-e").arg("stderr");
        let mut process = Process::start(netns, name, folder, &mut command);
        let address = SocketAddr::from(([127, 0, 0, 1], PLAIN_PORT));
        process.wait_until_up(|| matches!(http::get(netns, address, "/up"), Some((200, _))));
        Self { log, _process: process }
    }

    /// The requests that it answered, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter_map(parse).collect()
    }
}

fn configuration(name: &str, home: &Path) -> String {
    let home = home.display();
    format!(
        r#"
daemon off;
master_process off;
pid {home}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    log_format who '$server_port $proxy_protocol_addr $remote_addr $uri';
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    default_type text/plain;
    server {{
        listen {PROXY_PORT} proxy_protocol;
        listen [::]:{PROXY_PORT} proxy_protocol;
        listen {PLAIN_PORT};
        listen [::]:{PLAIN_PORT};
        access_log {home}/access.log who;
        location = / {{ return 200 "{name}\n"; }}
        location = /up {{ access_log off; return 200 "up\n"; }}
        location = /slow {{ root {home}; limit_rate 100k; }}
    }}
}}
"#
    )
}

fn parse(line: &str) -> Option<Request> {
    let mut words = line.split(' ');
    let port = words.next()?.parse().ok()?;
    let announced = words.next()?.parse().ok();
    let peer = words.next()?.parse().ok()?;
    Some(Request { port, announced, peer, path: words.next()?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_read() {
        let request = parse("8080 10.0.0.1 192.0.2.1 /").expect("a request");
        assert_eq!(request.announced, Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(parse("8081 - 10.0.0.1 /").expect("a request").announced, None);
        assert_eq!(parse(""), None);
    }
}
