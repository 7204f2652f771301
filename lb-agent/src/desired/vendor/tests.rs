//! `docs/reference/annotations.md` lists every annotation that policy reads, and what its value means.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::super::{hazard, mode, proxy_protocol, selection};
use super::header::{self, Stated};
use super::{LABELS, RULES, Reading};

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const PAGE: &str = "docs/reference/annotations.md";

const HEAD: &str = "# Annotations and labels

<!-- Written by LB_REWRITE=1 cargo test -p lb-agent --lib -- vendor -->

Of a Service's annotations only these are kept in memory, and what `--proxy-annotation` names.

## Ours

| annotation | value | meaning |
|---|---|---|
";

const VENDORS: &str = "
## Kubernetes'

| label or annotation | on | meaning |
|---|---|---|
| `service.kubernetes.io/service-proxy-name` | Service | Another proxy serves it, unless `--service-proxy-name` has this value. |
| `service.kubernetes.io/headless` | Service, EndpointSlice | Not served, with any value. |
| `kubernetes.io/service-name` | EndpointSlice | The Service that it belongs to. Without it the slice is a warning. |
| `endpointslice.kubernetes.io/skip-mirror` | Endpoints, in a folder | With `true` it is not mirrored. |
| `topology.kubernetes.io/zone` | Node | The zone that topology hints are compared with. |

## Vendors', with `--vendor-annotations=on`

The first line that decides counts. A value that is not in the table decides nothing.

| annotation | value | mode |
|---|---|---|
";

const HEADERS: &str = "
## PROXY headers, with `--proxy-protocol=vendor`

The version that a vendor's balancer writes. Annotations that state none, and those with TLVs (`v2-ssl`), are not among them.

| annotation | value and version |
|---|---|
";

const TLS: &str = "
With one of these the balancer terminates TLS, which no header replaces: the Service is left to the balancer.

| annotation |
|---|
";

const WARNINGS: &str = "
## For warnings only

These show that a balancer keeps its clients' addresses, where the mode Proxy hurts.

| annotation |
|---|
";

/// The values that decide, and the modes that they lead to.
fn meaning(reading: Reading) -> (String, &'static str) {
    let quoted = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    match reading {
        Reading::Mode => ("`VIP`, `Proxy`".to_owned(), "as it says"),
        Reading::ModeInAnyCase => ("`VIP`, `Proxy`, in upper or lower case".to_owned(), "as it says"),
        Reading::True => ("`true`, `True`, `TRUE`, `t`, `T`, `1`".to_owned(), "Proxy"),
        Reading::Word(words) => (quoted(words), "Proxy"),
        Reading::Present => ("any, but for the empty one".to_owned(), "Proxy"),
        Reading::Item(words) => (format!("a list with {}", quoted(words)), "Proxy"),
        Reading::Protocol(words) => {
            (format!("a list with `PORT:PROTOCOL` or `PROTOCOL:PORT`, for {}", quoted(words)), "Proxy")
        }
        Reading::PortNames => ("`*`, true, or the names of all ports".to_owned(), "Proxy"),
        Reading::Ports => ("`*`, true, or the numbers of all ports".to_owned(), "Proxy"),
        Reading::PassThrough => ("`true`; `onlyLocal` with externalTrafficPolicy Local".to_owned(), "Proxy"),
        Reading::TrueForAllPorts { filter } => (format!("true, and no annotation `{filter}`"), "Proxy"),
    }
}

/// The values that state a version, and the versions.
fn versions(stated: Stated) -> String {
    match stated {
        Stated::Words(words) => {
            words.iter().map(|(word, version)| format!("`{word}`: {}", version.name())).collect::<Vec<_>>().join(", ")
        }
        Stated::True(version) => format!("true: {}", version.name()),
        Stated::Ports(version) => format!("`*`, true, or numbers of ports: {}", version.name()),
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let ours = [
        (
            mode::ANNOTATION,
            "`VIP`, `Proxy`, `Split`, `Router`, in upper or lower case",
            "The mode of all addresses of the Service.",
        ),
        (
            proxy_protocol::ANNOTATION,
            "`v1`, `v2`, in upper or lower case; or with TCP ports of the Service, `v2:443,8443`",
            "This node adds a PROXY header, and serves these ports whatever the mode is, unless `lb-agent.io/ip-mode` says Proxy. \
             See `--proxy-protocol`.",
        ),
        (
            selection::ANNOTATION,
            "`random`, `maglev`, in upper or lower case",
            "How a backend is chosen, instead of `--lb-algorithm`.",
        ),
    ];
    for (key, values, meaning) in ours {
        writeln!(page, "| `{key}` | {values} | {meaning} |").expect("a string takes all");
    }
    page.push_str(VENDORS);
    for (key, reading) in RULES {
        let label = if LABELS.contains(key) { " (label)" } else { "" };
        let (values, mode) = meaning(*reading);
        writeln!(page, "| `{key}`{label} | {values} | {mode} |").expect("a string takes all");
    }
    page.push_str(HEADERS);
    for (key, stated) in header::RULES {
        writeln!(page, "| `{key}` | {} |", versions(*stated)).expect("a string takes all");
    }
    page.push_str(TLS);
    for key in header::tls_keys() {
        writeln!(page, "| `{key}` |").expect("a string takes all");
    }
    page.push_str(WARNINGS);
    for key in hazard::KEYS {
        writeln!(page, "| `{key}` |").expect("a string takes all");
    }
    page
}

#[test]
fn the_reference_lists_every_annotation() {
    let (wanted, path) = (page(), Path::new(TOP).join(PAGE));
    if std::env::var_os("LB_REWRITE").is_some() {
        fs::write(&path, &wanted).expect("the page is writable");
    }
    let found = fs::read_to_string(&path).expect("the page exists");
    assert!(found == wanted, "LB_REWRITE=1 cargo test -p lb-agent --lib -- vendor writes this:\n{wanted}");
}
