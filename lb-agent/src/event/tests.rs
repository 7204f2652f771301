//! Events as lines and as JSON, and what filters mean.

use lb_common::addr::Proto;
use lb_common::table::EDGE_UPLINK;

use super::*;

fn told(reason: Counter) -> Told {
    let addr = |last| {
        let mut addr = [0; 16];
        addr[..4].copy_from_slice(&[10, 0, 0, last]);
        addr
    };
    Told {
        at_ns: 1,
        src: addr(9),
        dst: addr(1),
        backend: [0; 16],
        sport: 40_000,
        dport: 80,
        backend_port: 0,
        proto: Proto::TCP,
        version: 4,
        frontend: 7,
        edge: EDGE_UPLINK,
        reason: reason as u32,
        bytes: 60,
    }
}

fn names() -> Names {
    Names { time: "2026-01-02T03:04:05.678Z".into(), service: Some("shop/web:http".into()), interface: "veth1".into() }
}

#[test]
fn a_drop_reads_as_a_line_and_as_json() {
    let event = Event::of(&told(Counter::DropSourceRange), names()).expect("it is told");
    let line = event.line();
    let cells: Vec<_> = line.split_whitespace().collect();
    assert_eq!(
        cells,
        [
            "2026-01-02T03:04:05.678Z",
            "drop",
            "drop_source_range",
            "tcp",
            "10.0.0.9:40000",
            "10.0.0.1:80",
            "-",
            "shop/web:http",
            "veth1"
        ]
    );
    let title = Event::titles().find("SERVICE").expect("a title");
    assert_eq!(line.find("shop/web"), Some(title), "under its title");
    let json = serde_json::to_value(&event).expect("JSON");
    assert_eq!((&json["event"], &json["reason"]), (&"drop".into(), &"drop_source_range".into()), "{json}");
    assert!(json.get("backend").is_none() && json.get("detail").is_none(), "{json}");
}

#[test]
fn a_dial_of_the_node_has_no_client_and_a_flow_has_a_backend() {
    let mut record = told(Counter::SocketTranslated);
    (record.src, record.sport) = ([0; 16], 0);
    record.backend[..4].copy_from_slice(&[10, 1, 0, 5]);
    record.backend_port = 8080;
    let event = Event::of(&record, names()).expect("it is told");
    assert_eq!((event.event, event.client), (EventKind::Flow, None));
    assert_eq!(event.backend, "10.1.0.5:8080".parse().ok());
}

#[test]
fn what_no_version_tells_is_left_out() {
    for reason in [Counter::RequestTranslated as u32, 63] {
        let record = Told { reason, ..told(Counter::Rejected) };
        assert_eq!(Event::of(&record, names()), None, "{reason}");
    }
}

#[test]
fn a_reason_is_one_that_is_told() {
    let error = "drop_everything".parse::<Reason>().expect_err("there is none");
    assert!(error.contains("drop_source_range") && !error.contains("request_translated"), "{error}");
}
