//! The text format 0.0.4, which Prometheus and most tools read unless they ask for OpenMetrics.
//!
//! It is made of the OpenMetrics text: the two differ in the names of counters, in some types, and in the last line.

use std::fmt::Write as _;

/// The type of the text that [`classic`] writes.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The type of OpenMetrics text.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The same metrics in the older format.
pub fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(words) = line.strip_prefix("# HELP ") {
            // Written with the name that the type decides.
            help = words.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|words| words.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            // Writing to a string cannot fail.
            let _ = write!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Whether a client with this header `Accept` is to get OpenMetrics: it names the type, and prefers no other text.
pub fn wants_open_metrics(accept: &str) -> bool {
    let (mut open, mut plain) = (0.0_f32, 0.0_f32);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let mut quality = 1.0;
        let mut version = None;
        for (parameter, value) in parts.filter_map(|part| part.split_once('=')) {
            match parameter {
                "q" => quality = value.parse().unwrap_or(0.0),
                "version" => version = Some(value.trim_matches('"')),
                _ => {}
            }
        }
        match (name, version) {
            ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => open = open.max(quality),
            ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => plain = plain.max(quality),
            _ => {}
        }
    }
    open > 0.0 && open >= plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_information_have_the_names_of_the_older_format() {
        let open = "# HELP a_drops Dropped.\n# TYPE a_drops counter\na_drops_total{reason=\"x\"} 3\n\
            # HELP a_build Which.\n# TYPE a_build info\na_build_info{version=\"1\"} 1\n\
            # HELP a_seconds Took.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\na_seconds_count 1\n# EOF\n";
        let wanted = "# HELP a_drops_total Dropped.\n# TYPE a_drops_total counter\na_drops_total{reason=\"x\"} 3\n\
            # HELP a_build_info Which.\n# TYPE a_build_info gauge\na_build_info{version=\"1\"} 1\n\
            # HELP a_seconds Took.\n# TYPE a_seconds histogram\na_seconds_count 1\n";
        assert_eq!(classic(open), wanted);
    }

    #[test]
    fn who_asks_for_open_metrics_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert!(wants_open_metrics(prometheus));
        assert!(wants_open_metrics("application/openmetrics-text"));
        for other in [
            "",
            "*/*",
            "text/plain",
            "text/html, */*;q=0.8",
            "application/openmetrics-text;version=2.0.0, */*",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.2, text/plain;q=0.9",
        ] {
            assert!(!wants_open_metrics(other), "{other}");
        }
    }
}
