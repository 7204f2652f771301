//! Guesses which known name was meant.

/// The nearest of the known names, if one is near: different case, a typing mistake, or a part of the name.
pub fn likely<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text = plain(text);
    let rated = known.into_iter().filter_map(|name| Some((distance(&text, &plain(name))?, name)));
    rated.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// Only letters and digits, in lower case.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// `None` if a mistake is unlikely.
fn distance(text: &str, known: &str) -> Option<usize> {
    /// A longer text is not a typing mistake, and comparing it takes time.
    const LENGTH_MAX: usize = 80;
    /// This much of the end (or beginning) suffices to recognise a name.
    const ENDING_MIN: usize = 6;
    const BEGINNING_MIN: usize = 5;
    if text == known {
        return Some(0);
    }
    if text.len() > LENGTH_MAX {
        return None;
    }
    let slips = strsim::osa_distance(text, known);
    let slips_max = match known.len() {
        0..=3 => usize::from(text.len() != known.len()),
        length => (length / 4).min(3),
    };
    if slips <= slips_max {
        return Some(slips);
    }
    let is_cut =
        (text.len() >= ENDING_MIN && known.ends_with(text)) || (text.len() >= BEGINNING_MIN && known.starts_with(text));
    is_cut.then_some(slips_max + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_new_names_are_not() {
        let fields = ["hostname", "ip", "ipMode", "ports"];
        for (text, meant) in
            [("ipmode", "ipMode"), ("ip_mode", "ipMode"), ("ipMod", "ipMode"), ("hostName", "hostname")]
        {
            assert_eq!(likely(text, fields), Some(meant));
        }
        assert_eq!(likely("sourceRanges", ["loadBalancerSourceRanges"]), Some("loadBalancerSourceRanges"));
        assert_eq!(likely("proto", ["port", "protocol"]), Some("protocol"));
        assert_eq!(likely("loadbalancer", ["loadBalancer", "conditions"]), Some("loadBalancer"));
        for text in ["id", "trafficDistribution", "weight", ""] {
            assert_eq!(likely(text, fields), None, "{text}");
        }
        let kinds = ["Service", "Node", "EndpointSlice", "Endpoints"];
        for (text, meant) in [
            ("Servce", "Service"),
            ("services", "Service"),
            ("Endpoint", "Endpoints"),
            ("EndpointSlices", "EndpointSlice"),
        ] {
            assert_eq!(likely(text, kinds), Some(meant));
        }
        for text in ["Secret", "ServiceAccount", "ServiceCIDR", "Ingress", "Pod", "Role", "Job", "ServiceEntry"] {
            assert_eq!(likely(text, kinds), None, "{text}");
        }
    }
}
