//! Precedence, places of mistakes, and the file that `--print-config` writes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::CommandFactory as _;

use super::*;
use crate::args::settings::Given;
use crate::args::{Command, CommandLine};
use crate::config::Config;

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new(file: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("config.yaml"), file).expect("it is writable");
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    fn parse(&self, flags: &str, variables: &[(&str, &str)]) -> Result<(Command, Settings), Error> {
        let config = format!("--config={}", self.path().display());
        let words = ["lb-agent", "run", &config].into_iter().chain(flags.split_whitespace()).map(OsString::from);
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        parse::<CommandLine>(words, variables.collect()).map(|(line, settings)| (line.command, settings))
    }

    #[track_caller]
    fn settings(&self, flags: &str, variables: &[(&str, &str)]) -> Settings {
        self.parse(flags, variables).unwrap_or_else(|error| panic!("{flags}: {error}")).1
    }

    #[track_caller]
    fn refused(&self, flags: &str, variables: &[(&str, &str)]) -> String {
        self.parse(flags, variables).expect_err(flags).to_string().replace(&self.path().display().to_string(), "FILE")
    }
}

#[track_caller]
fn setting(settings: &Settings, key: &str) -> (Given, String) {
    let setting = settings.list.iter().find(|setting| setting.key == key).expect("a setting");
    let file = |origin: &Origin| match origin {
        Origin::File { line, .. } => format!("line {line}"),
        other => other.to_string(),
    };
    (setting.value.clone(), file(&setting.origin))
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let case = Case::new("source: dir:/f\nudp-secs: 7\ngc-secs: 7\naudit-secs: 7\nhost-sockets: on\nguard: off\n");
    let variables = [("LB_AGENT_UDP_SECS", "8"), ("LB_AGENT_GC_SECS", "8"), ("NODE_NAME", "n1")];
    let settings = case.settings("--udp-secs 9", &variables);
    let one = |value: &str| Given::One(value.to_owned());
    for (key, value, origin) in [
        ("udp-secs", one("9"), "flag"),
        ("gc-secs", one("8"), "environment LB_AGENT_GC_SECS"),
        ("audit-secs", one("7"), "line 4"),
        ("source", one("dir:/f"), "line 1"),
        ("socket-lb", one("on"), "line 5"),
        ("guard", one("off"), "line 6"),
        ("node-name", one("n1"), "environment NODE_NAME"),
        ("tcp-closing-secs", one("10"), "default"),
        ("kubeconfig", Given::Nothing, "default"),
    ] {
        assert_eq!(setting(&settings, key), (value, origin.to_owned()), "{key}");
    }
    let both = [("NODE_NAME", "n1"), ("LB_AGENT_NODE_NAME", "n2")];
    assert_eq!(setting(&case.settings("", &both), "node-name").1, "environment LB_AGENT_NODE_NAME");
    // The file may be named by the environment.
    let named = [("LB_AGENT_SOURCE", "kube")];
    assert_eq!(setting(&case.settings("", &named), "source").0, one("kube"));
}

/// A list of one layer replaces that of another: it is not appended.
#[test]
fn lists_are_lists() {
    let case = Case::new(
        "source: dir:/f\nproxy-annotation: [a/b, c=d]\ncluster-cidrs:\n- 10.0.0.0/8\n- fd00::/8\n\
         workload-interfaces: [veth*, cali*]\n",
    );
    let settings = case.settings("", &[("LB_AGENT_CLUSTER_CIDRS", "10.1.0.0/16,10.2.0.0/16")]);
    let many = |values: &[&str]| Given::Many(values.iter().map(ToString::to_string).collect());
    assert_eq!(setting(&settings, "proxy-annotation").0, many(&["a/b", "c=d"]));
    assert_eq!(setting(&settings, "cluster-cidrs").0, many(&["10.1.0.0/16", "10.2.0.0/16"]));
    assert_eq!(setting(&settings, "workload-interfaces").0, Given::One("veth*,cali*".into()));
    let settings = case.settings("--proxy-annotation x/y", &[]);
    assert_eq!(setting(&settings, "proxy-annotation").0, many(&["x/y"]));
    assert_eq!(setting(&settings, "cluster-cidrs").0, many(&["10.0.0.0/8", "fd00::/8"]));
}

#[test]
fn mistakes_name_file_line_key_and_the_likely_key() {
    let case = Case::new("source: dir:/f\nudp-sec: 7\nservices: both\nfrobnicate: 1\n");
    let said = case.refused("--services lb", &[]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert_eq!(lines[0], "FILE:2: udp-sec: is no setting: did you mean udp-secs?");
    assert_eq!(lines[1], "FILE:4: frobnicate: is no setting: `lb-agent run --print-config` lists all");
    assert!(lines[2].starts_with("FILE:3: invalid value 'both' for '--services") && lines[2].contains("lb, all"));
    for (text, expected) in [
        ("source: dir:/f\nguard: on\nguard: on\n", "FILE:3: guard: is set on line 2 already: keep one of them"),
        ("source: dir:/f\nsocket-lb: off\nhost-sockets: on\n", "FILE:3: host-sockets: is another name"),
        ("source: dir:/f\nudp-secs: [1, 2]\n", "FILE:2: invalid value '1,2' for '--udp-secs"),
        ("config: /x\n", "FILE:1: config: is no setting"),
        ("a: [\n", "FILE:2: is not YAML"),
    ] {
        let said = Case::new(text).refused("", &[]);
        assert!(said.starts_with(expected), "{text:?}: {said}");
    }
    let said = Case::new("source: dir:/f").refused("", &[("LB_AGENT_UDP_SECS", "0")]);
    assert!(said.starts_with("environment LB_AGENT_UDP_SECS: invalid value '0' for '--udp-secs"), "{said}");
    // What is required may be anywhere, but somewhere.
    let said = Case::new("").refused("", &[]);
    assert!(said.contains("--source"), "{said}");
    let absent = parse::<CommandLine>(["lb-agent", "run", "--config=/nonexistent"].map(OsString::from), Vec::new());
    assert!(absent.expect_err("no file").to_string().starts_with("/nonexistent: --config cannot be read"));
}

#[test]
fn unknown_variables_are_told_and_those_of_the_kubelet_are_not() {
    let case = Case::new("source: dir:/f");
    let variables = [
        ("LB_AGENT_UDP_SEC", "7"),
        ("LB_AGENT_SERVICE_HOST", "10.96.0.1"),
        ("LB_AGENT_METRICS_SERVICE_PORT_HTTP", "1"),
        ("LB_AGENT_PORT", "tcp://10.96.0.1:80"),
        ("LB_AGENT_PORT_80_TCP_ADDR", "10.96.0.1"),
        ("LB_AGENT_CONFIG", "/ignored, as the flag is given"),
        ("HOME", "/"),
    ];
    let unknown = case.settings("", &variables).unknown;
    assert_eq!(unknown, ["LB_AGENT_UDP_SEC: is no setting: did you mean LB_AGENT_UDP_SECS?"]);
}

#[test]
fn numbers_are_printed_plainly() {
    let case = Case::new("source: dir:/f\nflows-max: 64Ki\nudp-secs: 2m\n");
    let settings = case.settings("--apply-interval-ms 1s", &[("LB_AGENT_FRONTENDS_MAX", "10k")]);
    for (key, value) in
        [("flows-max", "65536"), ("udp-secs", "120"), ("apply-interval-ms", "1000"), ("frontends-max", "10000")]
    {
        assert_eq!(setting(&settings, key).0, Given::One(value.into()));
    }
    let said = case.refused("", &[("LB_AGENT_GC_SECS", "1h30m")]);
    assert!(said.contains("LB_AGENT_GC_SECS") && said.contains("as 300s, 5m, 2h or 1d"), "{said}");
}

/// Each value comes back, whatever YAML makes of words such as `off`.
#[test]
fn what_is_printed_is_read_again() {
    let case = Case::new(
        "source: 'dir:/a b: #c'\nguard: off\nproxy-annotation: ['a/b=\"x, y\"', c]\nlog-level: info,aya=debug\n\
         service-proxy-name: \"7\"\nhealthz: off\n",
    );
    let printed = case.settings("--workload-interfaces veth*,[a-b]? --http [::1]:7", &[("NODE_NAME", "n1")]);
    let again = Case::new(&printed.yaml()).settings("", &[]);
    let values = |settings: &Settings| -> Vec<_> {
        settings.list.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect()
    };
    assert_eq!(values(&again), values(&printed));
    assert!(printed.yaml().contains("\nguard: \"off\"  # "), "{}", printed.yaml());
    // Any reader of YAML has the same texts.
    let read: serde_json::Value = serde_yaml_ng::from_str(&printed.yaml()).expect("YAML");
    assert_eq!((&read["healthz"], &read["udp-secs"]), (&"off".into(), &120.into()));
    assert_eq!(read["proxy-annotation"][0], "a/b=\"x, y\"");
}

#[test]
fn the_environment_sets_every_flag_of_run() {
    let command = CommandLine::command();
    let run = command.find_subcommand(RUN).expect("it exists");
    let keys: Vec<&str> = flags(run).filter_map(key).collect();
    assert!(keys.len() > 40 && keys.contains(&"pin-path") && keys.contains(&"http"), "{keys:?}");
    let case = Case::new("source: dir:/f");
    let defaults = case.settings("", &[]);
    for Setting { key, value, .. } in &defaults.list {
        let Given::One(value) = value else { continue };
        let name = variable(key);
        let settings = case.settings("", &[(&name, value)]);
        let found = settings.list.iter().find(|setting| setting.key == *key).expect("the same flags");
        assert_eq!(found.origin, Origin::Environment(name), "{key}");
        assert_eq!(found.value, Given::One(value.clone()), "{key}");
    }
}

#[test]
fn derived_values_are_printed_and_places_are_found() {
    let case = Case::new("source: dir:/f\nproxy-annotation: [=x]\n");
    let (command, settings) = case.parse("", &[]).expect("clap takes any text");
    let Command::Run(args) = command else { panic!("it is run") };
    let error = Config::try_from(*args).expect_err("no annotation");
    assert_eq!(settings.place(error.flag()).map(|place| place.ends_with("config.yaml:2")), Some(true));
    let case = Case::new("source: dir:/f\nservices: all\n");
    let (command, mut settings) = case.parse("", &[("NODE_NAME", "N1")]).expect("right");
    let Command::Run(args) = command else { panic!("it is run") };
    Config::try_from(*args).expect("right").imply(&mut settings);
    let one = |value: &str| Given::One(value.into());
    let implied = "default: --services=all".to_owned();
    assert_eq!(setting(&settings, "uplink-interfaces"), (one("auto"), implied.clone()));
    assert_eq!(setting(&settings, "healthz"), (one("0.0.0.0:10256"), implied));
    assert_eq!(setting(&settings, "node-name").0, Given::One("N1".into()));
}
