//! The query of the page `/known`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::known::{Asked, Target};
use crate::model::ObjectName;

pub const USAGE: &str =
    "write /known?client=IP&address=IP&port=NUMBER, or &service=NAMESPACE/NAME instead of the address\n";

/// The question of a query. `None` if it is not as [`USAGE`] says.
pub fn parse(query: &BTreeMap<String, String>) -> Option<Asked> {
    if query.keys().any(|key| !["client", "address", "port", "service"].contains(&key.as_str())) {
        return None;
    }
    let address = |key: &str| query.get(key).map(|text| text.parse::<IpAddr>().ok());
    let port = match query.get("port") {
        None => None,
        Some(text) => Some(text.parse().ok()?),
    };
    let target = match (address("address"), query.get("service")) {
        (None, None) => None,
        (Some(address), None) => Some(Target::Address(address?, port)),
        (None, Some(name)) => {
            let (namespace, name) =
                name.split_once('/').filter(|(first, last)| !first.is_empty() && !last.is_empty())?;
            Some(Target::Service(ObjectName::new(namespace, name)))
        }
        (Some(_), Some(_)) => return None,
    };
    let client = match address("client") {
        None => None,
        Some(client) => Some(client?),
    };
    Some(Asked { client, target })
}
