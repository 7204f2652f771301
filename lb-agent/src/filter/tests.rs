//! Which rows pass, and what is said if none does.

use super::*;

struct Row(&'static str, &'static str);

impl Filtered for Row {
    const FACETS: &'static [Facet] = &[Facet::Service, Facet::Address];

    fn facets(&self) -> Facets<'_> {
        let service = (!self.0.is_empty()).then_some(self.0);
        Facets { service, address: self.1.parse().ok(), ..Facets::default() }
    }
}

const ROWS: [Row; 3] = [
    Row("shop/web:http", "192.0.2.1:80"),
    Row("shop/web:dns", "192.0.2.1:53"),
    Row("bank/web:http", "[2001:db8::1]:80"),
];

fn service(text: &str) -> Filter {
    Filter { service: Some(text.parse().expect("a name")), ..Filter::default() }
}

fn address(text: &str) -> Filter {
    Filter { address: Some(text.parse().expect("an address")), ..Filter::default() }
}

fn passing(filter: &Filter) -> Vec<usize> {
    (0..ROWS.len()).filter(|index| filter.passes(&ROWS[*index].facets())).collect()
}

#[test]
fn rows_pass_all_filters() {
    assert_eq!(passing(&Filter::default()), [0, 1, 2]);
    for (filter, rows) in [
        (service("shop/web"), vec![0, 1]),
        (service("shop/web:dns"), vec![1]),
        (service("shop/we"), vec![]),
        (address("192.0.2.1"), vec![0, 1]),
        (address("192.0.2.1:80"), vec![0]),
        (address("192.0.2.1:80/tcp"), vec![0]),
        (address("2001:db8::1"), vec![2]),
        (address("[2001:db8::1]:80"), vec![2]),
        (Filter { address: service_address(), ..service("shop/web") }, vec![1]),
        (Filter { mode: Some("VIP".into()), ..Filter::default() }, vec![]),
    ] {
        assert_eq!(passing(&filter), rows, "{filter:?}");
    }
}

fn service_address() -> Option<AddressPattern> {
    "192.0.2.1:53".parse().ok()
}

#[test]
fn a_filter_in_vain_names_what_was_meant() {
    let said = |filter: &Filter| filter.in_vain(&ROWS).unwrap_or_default();
    assert_eq!(said(&service("shop/wep:http")), "no row matches --service shop/wep:http; did you mean shop/web:http?");
    assert_eq!(said(&service("shop/wep")), "no row matches --service shop/wep; did you mean shop/web?");
    assert_eq!(said(&address("192.0.2.1:81")), "no row matches --address 192.0.2.1:81; did you mean 192.0.2.1:80?");
    assert_eq!(
        said(&Filter { address: service_address(), ..service("bank/web") }),
        "none of 3 rows passes the filters"
    );
    assert!(service("a/b").in_vain(&[Row("", "192.0.2.1:80")]).is_some_and(|said| said.contains("running agent")));
    assert_eq!(service("a/b").in_vain::<Row>(&[]), None);
    assert_eq!(Filter::default().in_vain(&ROWS), None);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for text in ["web", "/web", "shop/", "a/b/c", ""] {
        let error = text.parse::<ServiceName>().expect_err(text);
        assert!(error.contains("NAMESPACE/NAME"), "{error}");
    }
    for text in ["10.0.0.1", "10.0.0.1:80", "fd00::1", "[fd00::1]:80"] {
        assert!(text.parse::<AddressPattern>().is_ok(), "{text}");
    }
    for text in ["", "web", "192.0.2.1:", "10.0.0.1:x", "2001:db8::1:65536", "192.0.2.300"] {
        assert!(text.parse::<AddressPattern>().is_err(), "{text}");
    }
}

#[test]
fn a_name_of_a_service_means_the_service_or_one_port() {
    let service: ServiceName = "shop/web".parse().expect("a Service");
    let port: ServiceName = "shop/web:http".parse().expect("a port");
    for (name, of_service, of_port) in [
        ("shop/web:http", true, true),
        ("shop/web:dns", true, false),
        ("shop/web2:http", false, false),
        ("shop/web", true, false),
    ] {
        assert_eq!([service.is_of(name), port.is_of(name)], [of_service, of_port], "{name}");
    }
}
