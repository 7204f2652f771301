//! The pinned maps as `bpftool map dump` prints them, for operators without the agent's tools.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::netns::run;

/// The pinned maps of one agent.
pub struct Dump {
    maps: PathBuf,
}

impl Dump {
    pub fn of(agent: &Agent) -> Self {
        Self { maps: agent.maps() }
    }

    /// All elements of a map, each with `key` and `value`.
    #[track_caller]
    pub fn map(&self, name: &str) -> Vec<Value> {
        let text = run(Command::new("bpftool").args(["map", "dump", "pinned"]).arg(self.maps.join(name)));
        match serde_json::from_str(&text) {
            Ok(elements) => elements,
            Err(error) => panic!("bpftool prints no list of elements of {name}: {error}\n{text}"),
        }
    }

    /// The frontend at an address and port.
    #[track_caller]
    pub fn frontend(&self, at: SocketAddr, proto: &str) -> Option<Value> {
        let is_it = |element: &Value| {
            let key = &element["key"];
            key["addr"] == octets(at.ip()) && key["port"] == at.port() && key["proto"] == proto
        };
        self.map(of_family("frontends", at.ip())).into_iter().find(is_it)
    }

    /// The backends of a frontend for pods of the node, slot by slot.
    #[track_caller]
    pub fn slots(&self, at: SocketAddr, proto: &str) -> Vec<(String, u64)> {
        let frontend = self.frontend(at, proto).unwrap_or_else(|| panic!("no frontend at {at}/{proto}"));
        let id = &frontend["value"]["id"];
        let scopes = self.map("scopes").into_iter().find(|scopes| scopes["key"] == *id).expect("every id has scopes");
        let scope = &scopes["value"]["workload"];
        let pools = self.map(of_family("pools", at.ip()));
        let count = scope["count"].as_u64().expect("a number");
        let backend = |slot: u64| {
            let is_it = |value: &&Value| value["pool"] == scope["pool"] && value["slot"] == slot;
            let value =
                pools.iter().map(|element| &element["value"]).find(is_it).expect("every slot below the count exists");
            (value["addr"].to_string(), value["port"].as_u64().expect("a number"))
        };
        (0..count).map(backend).collect()
    }
}

/// An address as bpftool prints it.
pub fn octets(address: IpAddr) -> Value {
    match address {
        IpAddr::V4(address) => json!(address.octets()),
        IpAddr::V6(address) => json!(address.octets()),
    }
}

fn of_family(table: &str, address: IpAddr) -> &'static str {
    match (table, address.is_ipv4()) {
        ("frontends", true) => "frontends4",
        ("frontends", false) => "frontends6",
        ("pools", true) => "pools4",
        ("pools", false) => "pools6",
        _ => panic!("no table {table} per family"),
    }
}
