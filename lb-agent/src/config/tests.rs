//! The command line as a contract: defaults, spellings, refusals.

use clap::{CommandFactory as _, Parser as _};
use lb_common::table::Mode;

use super::{Config, Error, Source};
use crate::args::{Command, CommandLine};
use crate::dataplane::bpf_log;
use crate::dataplane::{BpfLog, Repair, Sizes, SocketLb, Timeouts};
use crate::desired::{
    Algorithm, ExternalIps, HealthCheckPorts, NodePortAddresses, Selection, Services, VendorAnnotations,
};
use crate::guard::Guarding;
use crate::interfaces::Globs;
use crate::source::claim::Claim;

fn parse(flags: &str) -> Result<Config, Error> {
    let line = format!("lb-agent run --node-name n1 {flags}");
    let parsed = CommandLine::try_parse_from(line.split_whitespace());
    match parsed.unwrap_or_else(|error| panic!("{line}: {error}")).command {
        Command::Run(args) => (*args).try_into(),
        other => panic!("{other:?}"),
    }
}

fn config(flags: &str) -> Config {
    parse(&format!("--source dir:/x {flags}")).unwrap_or_else(|error| panic!("{flags}: {error}"))
}

#[test]
fn clap_accepts_the_definition() {
    CommandLine::command().debug_assert();
}

#[test]
fn defaults() {
    let config = config("");
    assert_eq!(config.source, Source::Directory { path: "/x".into(), claim: Claim::Unlabelled });
    assert_eq!(config.policy.node_name, "n1");
    assert_eq!(config.policy.default_ip_mode, Mode::VIP);
    assert_eq!(config.policy.vendor_annotations, VendorAnnotations::Ignored);
    assert_eq!(config.interfaces.workload, Globs::Auto);
    assert_eq!(config.interfaces.uplink, Globs::None);
    assert_eq!(config.dataplane.pin_path.to_str(), Some("/sys/fs/bpf/lb-agent"));
    assert_eq!((config.dataplane.sizes, config.dataplane.timeouts), (Sizes::default(), Timeouts::default()));
    assert_eq!(config.http.to_string(), "127.0.0.1:10356");
    assert_eq!(config.dataplane.sockets, SocketLb::Host);
    assert_eq!((config.policy.external_ips, &config.policy.cluster_ranges[..]), (ExternalIps::Guarded, &[][..]));
    assert_eq!(config.guard, Guarding::On);
    assert!(config.limits.frontend_ids_max > config.limits.frontends_max);
    assert_eq!(config.limits.namespace_percent, 75);
    assert_eq!(config.policy.selection, Selection::default());
    assert_eq!(config.dataplane.repair, Repair::Off);
}

/// Beside a kube-proxy, kube-proxy answers.
#[test]
fn health_checks_are_answered_in_place_of_kube_proxy() {
    for (line, ports, healthz) in [
        ("", HealthCheckPorts::Left, None),
        ("--services all", HealthCheckPorts::Served, Some("0.0.0.0:10256")),
        ("--health-check-node-ports on --healthz [::1]:7", HealthCheckPorts::Served, Some("[::1]:7")),
        ("--services all --health-check-node-ports off --healthz OFF", HealthCheckPorts::Left, None),
        ("--services all --health-check-node-ports Auto", HealthCheckPorts::Served, Some("0.0.0.0:10256")),
    ] {
        let config = config(line);
        let at = config.healthz.map(|at| at.to_string());
        assert_eq!((config.policy.health_checks, at.as_deref()), (ports, healthz), "{line}");
    }
    for text in ["10256", "0.0.0.0", "0.0.0.0:0", "on"] {
        let line = ["lb-agent", "run", "--source", "dir:/x", "--healthz", text];
        let refused = CommandLine::try_parse_from(line).expect_err(text).to_string();
        assert!(refused.contains("ADDRESS:PORT"), "{refused}");
    }
}

#[test]
fn settings_arrive() {
    let config = config(
        "--services lb --workload-interfaces veth*,cali* --uplink-interfaces auto --pin-path /p --http [::1]:1 \
         --default-ip-mode Router --vendor-annotations on --proxy-annotation a/b --proxy-annotation c=d=e \
         --flows-max 1000 --frontends-max 10 --backends-max 20 --tcp-established-secs 5 --tcp-closing-secs 6 \
         --tcp-syn-secs 7 --udp-secs 8 --audit-secs 9 --apply-interval-ms 0 --rejects-per-sec 11 --log-level debug \
         --kubeconfig /k --lb-algorithm maglev --maglev-table-size 4093 --repair-evicted-flows on \
         --namespace-share 50 --external-ips off --cluster-cidrs 10.96.0.0/12,fd00:10::/108 --cluster-cidrs 10.244.0.0/16",
    );
    assert_eq!((config.policy.external_ips, config.limits.namespace_percent), (ExternalIps::Off, 50));
    let ranges: Vec<String> = config.policy.cluster_ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.96.0.0/12", "fd00:10::/108", "10.244.0.0/16"]);
    let Selection { algorithm, maglev_table_size } = config.policy.selection;
    assert_eq!((algorithm, maglev_table_size.slots()), (Algorithm::Maglev, 4093));
    assert_eq!(config.dataplane.repair, Repair::On);
    assert_eq!(config.interfaces.workload.to_string(), "veth*,cali*");
    assert_eq!(config.interfaces.uplink, Globs::Auto);
    assert_eq!(config.policy.default_ip_mode, Mode::Router);
    assert_eq!(config.policy.vendor_annotations, VendorAnnotations::Honoured);
    let annotations: Vec<_> =
        config.policy.proxy_annotations.iter().map(|wanted| (&*wanted.key, wanted.value.as_deref())).collect();
    assert_eq!(annotations, [("a/b", None), ("c", Some("d=e"))]);
    let sizes = Sizes { frontends_max: 10, backends_max: 20, flows_max: 1000, embryos_max: 62, ..Sizes::default() };
    assert_eq!(config.dataplane.sizes, sizes);
    let timeouts = Timeouts { tcp_established_secs: 5, tcp_closing_secs: 6, tcp_syn_secs: 7, udp_secs: 8 };
    assert_eq!(config.dataplane.timeouts, timeouts);
    assert_eq!(config.dataplane.rejects_per_sec, 11);
    assert_eq!((config.times.audit_interval.as_secs(), config.times.apply_interval.as_millis()), (9, 0));
    assert_eq!(config.http.to_string(), "[::1]:1");
}

#[test]
fn node_ports_are_served_at_one_word_or_at_prefixes() {
    let of = |line: &str| config(line).policy.node_ports;
    assert_eq!(of("--services all"), NodePortAddresses::Primary);
    assert_eq!(of("--nodeport-addresses Primary"), NodePortAddresses::Primary);
    assert_eq!(of("--nodeport-addresses ALL"), NodePortAddresses::All);
    let NodePortAddresses::In(prefixes) =
        of("--nodeport-addresses 192.0.2.9/24,2001:db8::/64 --nodeport-addresses 10.0.0.0/8")
    else {
        panic!("a list")
    };
    let prefixes: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["192.0.2.0/24", "2001:db8::/64", "10.0.0.0/8"]);
    for text in ["primary,all", "all,10.0.0.0/8", "10.0.0.0/8,primary"] {
        let error = parse(&format!("--source dir:/x --nodeport-addresses {text}")).expect_err(text).to_string();
        assert!(error.starts_with("--nodeport-addresses: primary and all go with nothing else"), "{error}");
    }
    for text in ["", "192.0.2.1", "10.0.0.0/33", "eth0", "all,"] {
        let line = ["lb-agent", "run", "--source", "dir:/x", "--nodeport-addresses", text];
        let refused = CommandLine::try_parse_from(line).expect_err(text).to_string();
        assert!(refused.contains("write primary, all, or address/length"), "{refused}");
    }
}

#[test]
fn table_sizes_are_primes_of_a_list() {
    for text in ["0", "7", "1022", "131071", "x"] {
        let line = ["lb-agent", "run", "--source", "dir:/x", "--maglev-table-size", text];
        let refused = CommandLine::try_parse_from(line).expect_err(text).to_string();
        assert!(refused.contains("251, 509, 1021"), "{refused}");
    }
}

#[test]
fn the_last_one_of_a_flag_counts() {
    let config = config("--flows-max 1 --flows-max 2 --uplink-interfaces none --uplink-interfaces eth0");
    assert_eq!(config.dataplane.sizes.flows_max, 2);
    assert_eq!(config.interfaces.uplink.to_string(), "eth0");
}

#[test]
fn modes_in_any_case() {
    for (text, mode) in [("VIP", Mode::VIP), ("vip", Mode::VIP), ("proxy", Mode::Proxy), ("Split", Mode::Split)] {
        assert_eq!(config(&format!("--default-ip-mode {text}")).policy.default_ip_mode, mode);
    }
}

#[test]
fn words_in_any_case() {
    let config = config(
        "--services ALL --lb-algorithm Maglev --vendor-annotations ON --guard Off --repair-evicted-flows On \
         --uplink-interfaces None --workload-interfaces AUTO",
    );
    assert_eq!((config.policy.services, config.policy.selection.algorithm), (Services::All, Algorithm::Maglev));
    assert_eq!(config.policy.vendor_annotations, VendorAnnotations::Honoured);
    assert_eq!((config.guard, config.dataplane.repair), (Guarding::Off, Repair::On));
    assert_eq!((config.interfaces.uplink, config.interfaces.workload), (Globs::None, Globs::Auto));
    for line in ["lb-agent show Frontends -o JSON", "lb-agent explain --from pod --to 192.0.2.1:80/TCP -o Table"] {
        CommandLine::try_parse_from(line.split_whitespace()).expect(line);
    }
    assert!(matches!(parse("--source KUBE"), Ok(Config { source: Source::Kube(_), .. })));
}

/// The programs of most builds have no debug channel. The answer says how to get one.
#[test]
fn the_debug_channel_needs_its_feature() {
    assert_eq!(config("").dataplane.bpf_log, BpfLog::Off);
    match parse("--source dir:/x --bpf-log") {
        Ok(config) => assert!(bpf_log::IS_BUILT && config.dataplane.bpf_log == BpfLog::On),
        Err(error) => {
            let text = error.to_string();
            assert!(
                !bpf_log::IS_BUILT && text.starts_with("--bpf-log: ") && text.contains("--features bpf-log"),
                "{text}"
            );
        }
    }
}

/// The kube crate's errors repeat with each request during an outage; our log has one line.
#[test]
fn kube_is_quiet_unless_asked_for() {
    let filter = |level: &str| {
        let line = ["lb-agent", "run", "--source", "dir:/x", "--log-level", level];
        match CommandLine::try_parse_from(line).expect(level).command {
            Command::Run(args) => args.observe.log_level.to_string(),
            other => panic!("{other:?}"),
        }
    };
    for (level, kube) in [("error", "off"), ("warn", "off"), ("info", "off"), ("debug", "warn"), ("trace", "warn")] {
        assert!(filter(level).split(',').any(|part| part == format!("kube={kube}")), "{}", filter(level));
    }
    assert!(!filter("info,kube=debug").contains("kube=off"));
}

/// As kubelet registers the node, and as kube-proxy looks for it.
#[test]
fn the_node_name_is_lowered_and_trimmed() {
    let named = |name: &str| {
        let line = ["lb-agent", "run", "--source", "dir:/x", "--node-name", name];
        match CommandLine::try_parse_from(line).expect(name).command {
            Command::Run(args) => Config::try_from(*args).map(|config| config.policy.node_name),
            other => panic!("{other:?}"),
        }
    };
    for name in ["n1.example.com", "N1.Example.COM", " n1.example.com\n"] {
        assert_eq!(named(name).expect(name), "n1.example.com");
    }
    for name in ["", " ", "n_1", "n1,n2", "n1\u{1b}", "n1-"] {
        let error = named(name).expect_err(name).to_string();
        assert!(error.starts_with("--node-name: ") && !error.contains('\u{1b}'), "{error}");
    }
}

/// `--host-sockets` is the old name of the flag.
#[test]
fn sockets_are_served_as_asked() {
    for (line, expected) in [
        ("--socket-lb off", SocketLb::Off),
        ("--socket-lb host", SocketLb::Host),
        ("--socket-lb all", SocketLb::All),
        ("--host-sockets on", SocketLb::Host),
        ("--host-sockets off", SocketLb::Off),
    ] {
        assert_eq!(config(line).dataplane.sockets, expected, "{line}");
    }
    assert_eq!(config("--sockets-max 7").dataplane.sizes.sockets_max, 7);
}

/// Without kube-proxy the agent must serve the network too.
#[test]
fn all_services_come_with_uplinks() {
    let all = config("--services all");
    assert_eq!((all.policy.services, all.interfaces.uplink), (Services::All, Globs::Auto));
    assert_eq!(config("--services all --uplink-interfaces none").interfaces.uplink, Globs::None);
    let beside_kube_proxy = config("");
    assert_eq!(beside_kube_proxy.policy.services, Services::LoadBalancers);
}

#[test]
fn the_api_is_a_source() {
    let flags = "--source kube --kubeconfig /k --node-name n --service-proxy-name lb-agent";
    let Source::Kube(settings) = config(flags).source else { panic!("it is asked for") };
    assert_eq!(settings.kubeconfig.as_deref(), Some(std::path::Path::new("/k")));
    assert_eq!((settings.node_name.as_str(), settings.claim), ("n", Claim::Named("lb-agent".into())));
}

#[test]
fn mistakes_are_named() {
    for (flags, flag) in [
        ("--source dir:", "--source"),
        ("--source /x", "--source"),
        ("--source dir:/x --proxy-annotation =x", "--proxy-annotation"),
    ] {
        let error = parse(flags).expect_err(flags);
        assert!(matches!(error, Error::Invalid { flag: found, .. } if found == flag), "{error}");
    }
    for line in [
        "lb-agent",
        "lb-agent run",
        "lb-agent run --source dir:/x --udp-secs 0",
        "lb-agent run --source kube --service-proxy-name a,b",
        "lb-agent run --source dir:/x --flows-max 0",
        "lb-agent run --source dir:/x --http localhost",
        "lb-agent run --source dir:/x --log-level loud",
        "lb-agent run --source dir:/x --log-level info,lb_agent=loud",
        "lb-agent run --source dir:/x --workload-interfaces eth[0",
        "lb-agent show maps",
        "lb-agent explain --from 10.0.0.1 --to 1.2.3.4",
        "lb-agent explain --from 10.0.0.1 --to 2001:db8::1/tcp",
        "lb-agent explain --from nowhere --to 1.2.3.4:80/tcp",
    ] {
        let error = CommandLine::try_parse_from(line.split_whitespace()).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn every_subcommand_parses() {
    for line in [
        "lb-agent show frontends",
        "lb-agent show flows -o json --pin-path /p",
        "lb-agent show warnings --http 127.0.0.1:1",
        "lb-agent explain --from pod --to 1.2.3.4:80/tcp",
        "lb-agent explain --from 10.0.0.1 --to [2001:db8::1]:53/udp --pin-path /p -o json",
        "lb-agent explain --from external:203.0.113.2 --to 1.2.3.4:80/sctp",
        "lb-agent check --pin-path /p",
        "lb-agent unload --pin-path /p",
    ] {
        CommandLine::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn nothing_is_guarded_where_kube_proxy_serves_nothing() {
    assert_eq!(config("--guard off").guard, Guarding::Off);
    assert_eq!(config("--service-proxy-name ours").guard, Guarding::Off);
}

#[test]
fn sizes_of_the_policy_tables_arrive() {
    let config = config("--source-ranges-max 7 --affinity-max 9");
    assert_eq!((config.dataplane.sizes.source_ranges_max, config.dataplane.sizes.affinity_max), (7, 9));
    assert_eq!(config.limits.source_ranges_max, 7);
}
