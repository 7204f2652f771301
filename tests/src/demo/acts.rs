//! The acts of the demo, one for each step: each does what its title says and checks the result.

use super::Step;
use super::checks::{self, EDIT_LIMIT, code, counted, told};
use super::report::{Check, Report};
use super::stage::{Download, LOGIN, PLAIN, SHOP, Shop, Stage, UNSERVED, WEB};
use crate::deadline;
use crate::nginx::SLOW_BYTES;

/// curl's exit codes for an empty reply and for a connection that was reset.
const CURL_EMPTY_REPLY: i32 = 52;
const CURL_RECEIVE_FAILED: i32 = 56;

/// (a) The shortcut: the backend gets no PROXY header and closes the connection.
pub fn shortcut(stage: &Stage, report: &mut Report) {
    report.step(Step::A, "ipMode: VIP. The connection takes the shortcut to nginx, which misses the PROXY header");
    let before = stage.haproxy.connections(SHOP.name);
    let curl = stage.curl(&SHOP);
    report.check(
        Step::A,
        &Check {
            at: "curl in the pod",
            expected: format!("fails: exit code {CURL_RECEIVE_FAILED} or {CURL_EMPTY_REPLY}"),
            happened: told(&curl),
            holds: matches!(curl.code, Some(CURL_EMPTY_REPLY | CURL_RECEIVE_FAILED)),
        },
    );
    counted(&stage.haproxy, report, Step::A, &SHOP, before, 0);
}

/// (b) The cure: the status says Proxy, and connections go through the balancer again. Established ones stay.
pub fn cure(stage: &Stage, report: &mut Report, sabotage: Option<Step>) {
    report.step(Step::B, "status edited to ipMode: Proxy. The same connection goes out to the balancer");
    // It is VIP already, unless the step before was sabotaged.
    stage.publish(&SHOP, "VIP");
    deadline::within(EDIT_LIMIT, || (stage.curl(&SHOP).code != Some(0)).then_some(()));
    let mut download = open_download(stage);
    let (before, logged) = (stage.haproxy.connections(SHOP.name), stage.logged());
    if sabotage != Some(Step::B) {
        stage.publish(&SHOP, "Proxy");
    }
    let mut last = stage.curl(&SHOP);
    deadline::within(EDIT_LIMIT, || {
        if last.code != Some(0) {
            last = stage.curl(&SHOP);
        }
        (last.code == Some(0)).then_some(())
    });
    report.check(
        Step::B,
        &Check { at: "the same curl", expected: "succeeds".into(), happened: told(&last), holds: last.code == Some(0) },
    );
    counted(&stage.haproxy, report, Step::B, &SHOP, before, 1);
    logged_by_nginx(stage, report, Step::B, logged, Came::Announced);
    finish_download(&mut download, report);
}

/// (c) The annotation: the shortcut again. The node adds the header, so the backend learns the pod's address.
pub fn header(stage: &Stage, report: &mut Report, sabotage: Option<Step>) {
    report.step(
        Step::C,
        "the same Service with lb-agent.io/proxy-protocol: v2. The shortcut again; the node adds the header",
    );
    let annotation: &[_] = if sabotage == Some(Step::C) { &[] } else { &[("lb-agent.io/proxy-protocol", "v2")] };
    stage.publish_annotated(&SHOP, "Proxy", annotation);
    let is_shown = || stage.agent.ask(&["show", "frontends"]).stdout.contains("PROXYv2");
    deadline::within(EDIT_LIMIT, || is_shown().then_some(()));
    let (before, logged) = (stage.haproxy.connections(SHOP.name), stage.logged());
    succeeds(stage, report, Step::C, &SHOP);
    counted(&stage.haproxy, report, Step::C, &SHOP, before, 0);
    logged_by_nginx(stage, report, Step::C, logged, Came::AnnouncedByNode);
    // The steps below see the cure before.
    stage.publish(&SHOP, "Proxy");
    deadline::within(EDIT_LIMIT, || (!is_shown()).then_some(()));
}

/// (d) A plain Service: the shortcut is right, and the balancer gets no connection.
pub fn plain(stage: &Stage, report: &mut Report) {
    report.step(Step::D, "a plain Service in VIP mode. The node answers directly; the balancer sees no packet");
    direct(stage, report, Step::D, &PLAIN);
}

/// (e) One address with three ports: VIP, Proxy, and no Service.
pub fn neighbours(stage: &Stage, report: &mut Report) {
    report.step(
        Step::E,
        "two Services on one address: :80 is VIP, :8443 is Proxy; :9999 belongs to no Service and passes",
    );
    direct(stage, report, Step::E, &WEB);
    by_way_of_the_balancer(stage, report, &LOGIN, Came::Announced);
    by_way_of_the_balancer(stage, report, &UNSERVED, Came::FromBalancer);
}

/// (f) The operator's view.
pub fn tools(stage: &Stage, report: &mut Report, sabotage: Option<Step>) {
    report.step(Step::F, "what the tools show");
    // The mode is Proxy already, unless this step was sabotaged, or the one that should have edited it.
    let (mode, code) = if sabotage == Some(Step::F) { ("VIP", CURL_EMPTY_REPLY) } else { ("Proxy", 0) };
    stage.publish(&SHOP, mode);
    deadline::within(EDIT_LIMIT, || (stage.curl(&SHOP).code == Some(code)).then_some(()));
    shown(stage, report);
    explained(stage, report);
    dumped(stage, report);
}

fn shown(stage: &Stage, report: &mut Report) {
    let address = SHOP.at().ip().to_string();
    let shown = stage.agent.ask(&["show", "frontends"]);
    println!("    lb-agent show frontends");
    Report::quote(&shown.stdout);
    let line = shown.stdout.lines().find(|line| line.contains(&address)).unwrap_or(&shown.stderr);
    report.check(
        Step::F,
        &Check {
            at: "show frontends",
            expected: format!("{address} is in mode Proxy"),
            happened: format!(
                "exit code {}: {}",
                code(&shown),
                line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
            ),
            holds: shown.code == Some(0) && line.contains("Proxy"),
        },
    );
}

fn explained(stage: &Stage, report: &mut Report) {
    let (from, to) = (stage.client().to_string(), format!("{}/tcp", SHOP.at()));
    let explained = stage.agent.ask(&["explain", "--from", &from, "--to", &to]);
    println!("    lb-agent explain --from {from} --to {to}");
    Report::quote(&explained.stdout);
    let line = explained.stdout.lines().find(|line| line.contains("Proxy")).unwrap_or(&explained.stderr);
    report.check(
        Step::F,
        &Check {
            at: "explain",
            expected: "names the mode Proxy".into(),
            happened: format!("exit code {}: {}", code(&explained), line.trim()),
            holds: explained.code == Some(0) && line.contains("Proxy"),
        },
    );
}

fn dumped(stage: &Stage, report: &mut Report) {
    let octets: Vec<u8> = SHOP.at().ip().to_string().split('.').filter_map(|octet| octet.parse().ok()).collect();
    let dump = stage.dump("frontends4");
    let entries: Vec<serde_json::Value> = serde_json::from_str(&dump.stdout).unwrap_or_default();
    let is_shop = |entry: &&serde_json::Value| {
        entry["key"]["addr"] == serde_json::json!(octets) && entry["key"]["port"] == SHOP.port
    };
    let entry = entries.iter().find(is_shop).cloned().unwrap_or_default();
    println!("    bpftool map dump pinned .../maps/frontends4 (one of {} entries)", entries.len());
    Report::quote(&entry.to_string());
    report.check(
        Step::F,
        &Check {
            at: "bpftool map dump",
            expected: "port 80 of the address says \"mode\": \"Proxy\"".into(),
            happened: format!("exit code {}: \"mode\": {}", code(&dump), entry["value"]["mode"]),
            holds: entry["value"]["mode"] == "Proxy",
        },
    );
}

/// The expected way of a connection to nginx.
#[derive(Clone, Copy)]
enum Came {
    /// Directly from the client.
    Directly,
    /// Directly from the client, with the client in a PROXY header.
    AnnouncedByNode,
    /// From the balancer, with the client in a PROXY header.
    Announced,
    /// From the balancer, without a PROXY header.
    FromBalancer,
}

/// Checks that a Service is answered without the balancer.
fn direct(stage: &Stage, report: &mut Report, step: Step, shop: &Shop) {
    let (before, logged) = (stage.haproxy.connections(shop.name), stage.logged());
    succeeds(stage, report, step, shop);
    counted(&stage.haproxy, report, step, shop, before, 0);
    logged_by_nginx(stage, report, step, logged, Came::Directly);
}

/// Checks that the balancer answers an address.
fn by_way_of_the_balancer(stage: &Stage, report: &mut Report, shop: &Shop, came: Came) {
    let (before, logged) = (stage.haproxy.connections(shop.name), stage.logged());
    succeeds(stage, report, Step::E, shop);
    counted(&stage.haproxy, report, Step::E, shop, before, 1);
    logged_by_nginx(stage, report, Step::E, logged, came);
}

fn succeeds(stage: &Stage, report: &mut Report, step: Step, shop: &Shop) {
    checks::succeeds(report, step, "curl in the pod", &stage.curl(shop), shop);
}

/// Checks the one request that nginx has logged since `before`.
fn logged_by_nginx(stage: &Stage, report: &mut Report, step: Step, before: [usize; 2], came: Came) {
    let (client, balancer) = (stage.client(), Stage::balancer());
    let wanted = match came {
        Came::Directly => (client, None),
        Came::AnnouncedByNode => (client, Some(client)),
        Came::Announced => (balancer, Some(client)),
        Came::FromBalancer => (balancer, None),
    };
    checks::logged(report, step, || stage.logged_since(before), wanted);
}

/// Starts a download over the shortcut and waits for its first bytes.
fn open_download(stage: &Stage) -> Download {
    let mut download = stage.download(&SHOP);
    deadline::within(EDIT_LIMIT, || (download.bytes() > 0 || download.process.ended().is_some()).then_some(()));
    download
}

/// The download began before the edit and must end well after it.
fn finish_download(download: &mut Download, report: &mut Report) {
    let was_open = download.process.ended().is_none();
    let code = download.process.wait().code();
    let bytes = download.bytes();
    let state = if was_open { "open after the edit" } else { "over before the edit" };
    report.check(
        Step::B,
        &Check {
            at: "an open download",
            expected: format!("continues over the edit: {SLOW_BYTES} bytes, exit code 0"),
            happened: format!(
                "{state}; {bytes} bytes, exit code {}",
                code.map_or("none".into(), |code| code.to_string())
            ),
            holds: was_open && code == Some(0) && bytes == SLOW_BYTES,
        },
    );
}
