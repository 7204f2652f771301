//! Which ports of a Service are served by the shortcut, with the PROXY header that the balancer would write
//! (`lb-agent.io/proxy-protocol`, `--proxy-protocol`).

use std::borrow::Cow;

use lb_common::table::{HeaderVersion, Mode, Origin, Rule};

use super::claim::Claim;
use super::header::{Header, Headers, Ports};
use super::mode;
use super::policy::{HeadersFrom, Policy};
use super::vendor;
use crate::model::{Service, ServicePort, Warning, WarningKind};
use crate::printable::quoted;

/// `v1`, `v2`, or one of them with ports: `v2:443,8443`.
pub const ANNOTATION: &str = "lb-agent.io/proxy-protocol";

/// What becomes of the ports that a header is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They are served with the header.
    Served(Headers),
    /// They are left to the balancer. `ip-mode: Proxy` asks for that, or the balancer does work besides the header.
    Left { headers: Headers, why: Why },
}

/// Why ports are left to the balancer although a header is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// `lb-agent.io/ip-mode: Proxy`.
    IpMode,
    /// The balancer terminates TLS by this annotation.
    Tls(&'static str),
}

/// The decision for a Service; `None` if no header is asked for.
pub fn of_service(service: &Service, policy: &Policy) -> Option<Decision> {
    let ours = || Some(Headers(vec![parse(service.annotations.get(ANNOTATION)?).ok()?]));
    let headers = match policy.headers_from {
        HeadersFrom::Nothing => None,
        HeadersFrom::Annotation => ours(),
        HeadersFrom::Vendor => ours().or_else(|| vendor::header::stated(service)),
    }?;
    let asked = service.annotations.get(mode::ANNOTATION).and_then(|value| mode::parse(value));
    let tls = vendor::header::terminates_tls(service);
    Some(match (asked, tls) {
        (Some(Mode::Proxy), _) => Decision::Left { headers, why: Why::IpMode },
        (_, Some(key)) => Decision::Left { headers, why: Why::Tls(key) },
        _ => Decision::Served(headers),
    })
}

/// What is wrong with the wish of a Service, or why it is not fulfilled.
pub fn warnings(service: &Service, policy: &Policy) -> Vec<Warning> {
    if policy.headers_from == HeadersFrom::Nothing {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    let about = |key: &str, kind, problem: String, remedy: &'static str| {
        let warning = Warning::new(kind, problem, remedy).of(format_args!("Service {}", service.name));
        warning.at(format!("metadata.annotations[{key}]"))
    };
    if let Some(Err(problem)) = service.annotations.get(ANNOTATION).map(|value| parse(value)) {
        let remedy = "write v1 or v2, and ports as in v2:443,8443 unless all ports of TCP are meant";
        warnings.push(about(ANNOTATION, WarningKind::BadField, problem, remedy));
    }
    let Some(decision) = of_service(service, policy) else { return warnings };
    for header in &decision.headers().0 {
        match &decision {
            Decision::Left { why: Why::IpMode, .. } => {
                let problem =
                    format!("has no effect: {} says Proxy, so the balancer adds the header", mode::ANNOTATION);
                warnings.push(about(header.key, WarningKind::Ignored, problem, "remove one of the two annotations"));
            }
            Decision::Left { why: Why::Tls(tls), .. } => {
                let problem = format!("has no effect: by {tls} the balancer terminates TLS, which no header replaces");
                let remedy = "leave the Service to the balancer, or terminate TLS in its pods";
                warnings.push(about(header.key, WarningKind::Ignored, problem, remedy));
            }
            Decision::Served(_) => warnings.extend(header.missing(service).map(|port| {
                let problem = format!("names port {port}, but the Service has no such port of TCP");
                about(header.key, WarningKind::BadField, problem, "name ports of the Service (spec.ports[].port)")
            })),
        }
    }
    warnings
}

impl Decision {
    const fn headers(&self) -> &Headers {
        let (Self::Served(headers) | Self::Left { headers, .. }) = self;
        headers
    }

    /// The annotation that decides the mode of a port, if `of_mode` decides for the Service.
    pub fn key_of<'a>(&self, port: &ServicePort, of_mode: Option<&'a str>) -> Option<&'a str> {
        let Some(header) = self.headers().of_port(port) else { return of_mode };
        match self {
            Self::Left { why: Why::IpMode, .. } => of_mode,
            Self::Left { why: Why::Tls(key), .. } => Some(key),
            // It may limit who is served.
            Self::Served(_) if of_mode == Some(mode::ANNOTATION) => of_mode,
            Self::Served(_) => Some(header.key),
        }
    }

    /// The claim to an address, for one port of the Service.
    pub fn of_port(&self, claim: Claim, port: &ServicePort) -> Claim {
        let header = self.headers().of_port(port).filter(|_| claim.origin == Origin::LoadBalancer);
        let Some(header) = header else { return claim };
        let decided_by = if header.key == ANNOTATION { Rule::ProxyProtocol } else { Rule::VendorHeader };
        match self {
            Self::Left { why: Why::IpMode, .. } => claim,
            Self::Left { why: Why::Tls(_), .. } => Claim { mode: Mode::Proxy, decided_by, ..claim },
            // The annotation for the mode may limit who is served.
            Self::Served(_) if claim.decided_by == Rule::Annotation => Claim { header: Some(header.version), ..claim },
            Self::Served(_) => Claim { mode: Mode::VIP, decided_by, header: Some(header.version), ..claim },
        }
    }
}

/// The claims as the ports of the Service have them, each once.
pub fn of_ports<'a>(header: Option<&Decision>, claims: &'a [Claim], service: &Service) -> Cow<'a, [Claim]> {
    let Some(decision) = header else { return Cow::Borrowed(claims) };
    let mut of_ports = Vec::with_capacity(claims.len());
    for claim in claims.iter().flat_map(|claim| service.ports.iter().map(|port| decision.of_port(*claim, port))) {
        if !of_ports.contains(&claim) {
            of_ports.push(claim);
        }
    }
    Cow::Owned(of_ports)
}

fn parse(value: &str) -> Result<Header, String> {
    let bad = || format!("{} is no version of the PROXY protocol and is ignored", quoted(value));
    let (version, ports) = match value.split_once(':') {
        Some((version, ports)) => (version, Some(ports)),
        None => (value, None),
    };
    let version = match version.trim() {
        word if word.eq_ignore_ascii_case("v1") => HeaderVersion::V1,
        word if word.eq_ignore_ascii_case("v2") => HeaderVersion::V2,
        _ => return Err(bad()),
    };
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0);
    let ports = match ports {
        None => Ports::All,
        Some(ports) => Ports::Only(
            ports
                .split(',')
                .map(port)
                .collect::<Option<_>>()
                .ok_or_else(|| format!("{} lists something that is no port, and is ignored", quoted(value)))?,
        ),
    };
    Ok(Header { version, ports, key: ANNOTATION })
}

#[cfg(test)]
mod tests {
    use lb_common::addr::Proto;

    use super::*;

    #[test]
    fn the_deciding_annotation_is_that_of_the_port() {
        const VENDORS: &str = "example.com/tls";
        let port = |port| ServicePort { name: "".into(), proto: Proto::TCP, port, node_port: None };
        let headers =
            Headers(vec![Header { version: HeaderVersion::V2, ports: Ports::Only(vec![443]), key: ANNOTATION }]);
        let left = |why| Decision::Left { headers: headers.clone(), why };
        for (decision, of_mode, expected) in [
            (Decision::Served(headers.clone()), None, Some(ANNOTATION)),
            (Decision::Served(headers.clone()), Some("example.com/proxy"), Some(ANNOTATION)),
            (Decision::Served(headers.clone()), Some(mode::ANNOTATION), Some(mode::ANNOTATION)),
            (left(Why::IpMode), Some(mode::ANNOTATION), Some(mode::ANNOTATION)),
            (left(Why::Tls(VENDORS)), Some("example.com/proxy"), Some(VENDORS)),
        ] {
            assert_eq!(decision.key_of(&port(443), of_mode), expected, "{decision:?}");
            assert_eq!(decision.key_of(&port(80), of_mode), of_mode, "a port without a header");
        }
    }

    #[test]
    fn a_version_may_be_limited_to_ports() {
        let header = |version, ports| Ok(Header { version, ports, key: ANNOTATION });
        for (value, expected) in [
            ("v1", header(HeaderVersion::V1, Ports::All)),
            (" V2 ", header(HeaderVersion::V2, Ports::All)),
            ("v2:443, 8443", header(HeaderVersion::V2, Ports::Only(vec![443, 8443]))),
        ] {
            assert_eq!(parse(value), expected, "{value}");
        }
        for (value, word) in
            [("v3", "version"), ("", "version"), ("v1:", "port"), ("v2:443,x", "port"), ("v2:0", "port")]
        {
            assert!(parse(value).expect_err(value).contains(word), "{value}");
        }
    }
}
