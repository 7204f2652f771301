//! The settings of a case: `name: value` lines, named as on the command line.

use anyhow::{Context, Result, bail};
use lb_agent::dataplane::Sizes;
use lb_agent::desired::Forwarding;
use lb_agent::desired::{
    Algorithm, ExternalIps, HeadersFrom, HealthCheckPorts, NodePortAddresses, Policy, Selection, Services, TableLimits,
    TableSize, VendorAnnotations,
};
use lb_agent::source::address::parse_prefix;
use lb_common::table::Mode;

/// The default node of the cases.
const NODE: &str = "node-1";

pub struct Settings {
    pub policy: Policy,
    pub limits: TableLimits,
}

pub fn parse(text: &str) -> Result<Settings> {
    let mut policy = Policy {
        node_name: NODE.to_owned(),
        services: Services::LoadBalancers,
        default_ip_mode: Mode::VIP,
        proxy_annotations: Vec::new(),
        vendor_annotations: VendorAnnotations::Ignored,
        headers_from: HeadersFrom::Annotation,
        external_ips: ExternalIps::Guarded,
        cluster_ranges: Vec::new(),
        selection: Selection::default(),
        health_checks: HealthCheckPorts::Left,
        node_ports: NodePortAddresses::Primary,
        forwarding: Forwarding::Off,
    };
    let mut sizes = Sizes::default();
    let mut namespace_percent = 100;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (name, value) = line.split_once(": ").with_context(|| format!("{line:?} is no setting"))?;
        match name {
            "node-name" => value.clone_into(&mut policy.node_name),
            "services" => policy.services = services(value)?,
            "default-ip-mode" => policy.default_ip_mode = mode(value)?,
            "proxy-annotation" => policy.proxy_annotations.push(value.parse().map_err(anyhow::Error::msg)?),
            "vendor-annotations" if value == "on" => policy.vendor_annotations = VendorAnnotations::Honoured,
            "proxy-protocol" => policy.headers_from = headers_from(value)?,
            "nodeport-addresses" => policy.node_ports = node_ports(value)?,
            "external-ips" => policy.external_ips = external_ips(value)?,
            "cluster-cidr" => policy.cluster_ranges.push(parse_prefix(value).context("no prefix")?),
            "lb-algorithm" => policy.selection.algorithm = algorithm(value)?,
            "maglev-table-size" => policy.selection.maglev_table_size = table_size(value)?,
            "frontends-max" => sizes.frontends_max = value.parse()?,
            "source-ranges-max" => sizes.source_ranges_max = value.parse()?,
            "namespace-share" => namespace_percent = value.parse()?,
            "backends-max" => sizes.backends_max = value.parse()?,
            _ => bail!("no setting {name:?}"),
        }
    }
    Ok(Settings { policy, limits: TableLimits { namespace_percent, ..TableLimits::from(&sizes) } })
}

fn headers_from(text: &str) -> Result<HeadersFrom> {
    match text {
        "off" => Ok(HeadersFrom::Nothing),
        "annotation" => Ok(HeadersFrom::Annotation),
        "vendor" => Ok(HeadersFrom::Vendor),
        _ => bail!("{text:?} is no value of proxy-protocol"),
    }
}

fn mode(text: &str) -> Result<Mode> {
    match text {
        "VIP" => Ok(Mode::VIP),
        "Proxy" => Ok(Mode::Proxy),
        _ => bail!("{text:?} is no mode"),
    }
}

fn algorithm(text: &str) -> Result<Algorithm> {
    match text {
        "random" => Ok(Algorithm::Random),
        "maglev" => Ok(Algorithm::Maglev),
        _ => bail!("{text:?} is no algorithm"),
    }
}

fn table_size(text: &str) -> Result<TableSize> {
    TableSize::new(text.parse()?).with_context(|| format!("{text} is no prime"))
}

fn node_ports(text: &str) -> Result<NodePortAddresses> {
    match text {
        "primary" => Ok(NodePortAddresses::Primary),
        "all" => Ok(NodePortAddresses::All),
        prefixes => {
            let prefixes = prefixes.split(',').map(|text| parse_prefix(text).with_context(|| format!("{text:?}")));
            Ok(NodePortAddresses::In(prefixes.collect::<Result<_>>()?))
        }
    }
}

fn external_ips(text: &str) -> Result<ExternalIps> {
    match text {
        "guarded" => Ok(ExternalIps::Guarded),
        "any" => Ok(ExternalIps::Any),
        "off" => Ok(ExternalIps::Off),
        _ => bail!("{text:?} are no externalIPs"),
    }
}

fn services(text: &str) -> Result<Services> {
    match text {
        "lb" => Ok(Services::LoadBalancers),
        "all" => Ok(Services::All),
        _ => bail!("{text:?} are no services"),
    }
}
