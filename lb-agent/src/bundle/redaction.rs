//! Replaces addresses and known names, each by the same word throughout.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::part::Part;

/// Replaces in all parts.
pub fn redact(parts: &mut [Part]) {
    let mut words = Words::of(&names(parts));
    for part in parts {
        part.text = words.replaced(&part.text);
        part.problem = part.problem.as_deref().map(|problem| words.replaced(problem));
    }
}

/// Namespaces and names of Services, and the name of the node, as the agent says.
fn names(parts: &[Part]) -> Vec<String> {
    let text = |name: &str| parts.iter().find(|part| part.name == name).map_or("", |part| &*part.text);
    let services: Value = serde_json::from_str(text("agent/services.json")).unwrap_or_default();
    let services = services["names"].as_object().into_iter().flat_map(|names| names.values()).filter_map(Value::as_str);
    let services = services.flat_map(|name| name.split(['/', ':']).take(2)).map(str::to_owned);
    let node = text("agent/config.yaml").lines().find_map(|line| line.strip_prefix("node-name: "));
    let node = node.and_then(|rest| rest.split_whitespace().next()).map(|name| name.trim_matches('"').to_owned());
    services.chain(node).collect()
}

/// What replaces what.
struct Words {
    names: BTreeMap<String, String>,
    addresses: BTreeMap<IpAddr, String>,
}

impl Words {
    fn of(names: &[String]) -> Self {
        let mut words = Self { names: BTreeMap::new(), addresses: BTreeMap::new() };
        // `default` and `kube-system` tell nothing, and occur elsewhere.
        for name in names.iter().filter(|name| !matches!(&***name, "default" | "kube-system")) {
            let number = words.names.len() + 1;
            words.names.entry(name.clone()).or_insert_with(|| format!("name-{number}"));
        }
        words
    }

    fn replaced(&mut self, text: &str) -> String {
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_');
        let mut replaced = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(is_word) {
            replaced.push_str(&rest[..start]);
            rest = &rest[start..];
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            replaced.push_str(&self.word(word));
            rest = after;
        }
        replaced + rest
    }

    /// A word: an address, an address with a port, names with a colon between them, or anything else.
    fn word(&mut self, word: &str) -> String {
        if let Some(address) = self.address(word) {
            return address;
        }
        if let Some((start, end)) = word.rsplit_once(':') {
            return format!("{}:{}", self.word(start), self.word(end));
        }
        self.names.get(word).cloned().unwrap_or_else(|| word.to_owned())
    }

    fn address(&mut self, word: &str) -> Option<String> {
        let address: IpAddr = word.parse().ok()?;
        if address.is_loopback() || address.is_unspecified() {
            return Some(word.to_owned());
        }
        let number = self.addresses.len() + 1;
        let family = if address.is_ipv4() { "ip4" } else { "ip6" };
        Some(self.addresses.entry(address).or_insert_with(|| format!("{family}-{number}")).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_replaced_by_the_same() {
        let part = |name: &str, text: &str| Part { name: name.into(), text: text.into(), problem: None };
        let mut parts = [
            part("agent/services.json", r#"{"names": {"7": "shop/web:http", "9": "default/bank:"}}"#),
            part("agent/config.yaml", "udp-secs: 7\nnode-name: node-1.example  # flag\n"),
            part("show/frontends.json", r#"{"service": "shop/web:http", "address": "203.0.113.7", "mode": "VIP"}"#),
            part(
                "log",
                "[2001:db8::7]:443 203.0.113.7:80 127.0.0.1:10356 2001:DB8:0::7 12:30:01 shopping node-1.example",
            ),
        ];
        redact(&mut parts);
        let texts: Vec<&str> = parts.iter().map(|part| &*part.text).collect();
        let [services, config, frontends, log] = texts[..] else { panic!("four") };
        assert_eq!(services, r#"{"names": {"7": "name-1/name-2:http", "9": "default/name-3:"}}"#);
        assert_eq!(config, "udp-secs: 7\nnode-name: name-4  # flag\n");
        assert_eq!(frontends, r#"{"service": "name-1/name-2:http", "address": "ip4-1", "mode": "VIP"}"#);
        assert_eq!(log, "[ip6-2]:443 ip4-1:80 127.0.0.1:10356 ip6-2 12:30:01 shopping name-4");
    }
}
