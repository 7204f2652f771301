//! What is drawn of a state, and what keys make of it.

use lb_common::table::CounterValue;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::sample::{Frontend, Sample};
use super::*;
use crate::dataplane::pins::Fill;

/// A node after so many seconds of steady traffic.
fn sample(secs: u64) -> Sample {
    let frontend = |name: &str, mode: &str, [flows, packets, bytes, passed, drops]: [u64; 5]| Frontend {
        name: name.into(),
        mode: mode.into(),
        flows: 1_000 + flows * secs,
        packets: 20_000 + packets * secs,
        bytes: 3_000_000 + bytes * secs,
        passed: passed * secs,
        drops: drops * secs,
    };
    let frontends = [
        (1, frontend("shop/web:http", "VIP", [12, 1_500, 1_230_000, 0, 0])),
        (2, frontend("shop/web:http", "VIP", [3, 20, 2_000, 0, 3])),
        (3, frontend("shop/login:https", "Proxy", [0, 0, 0, 4, 2])),
        (4, frontend("kube-system/dns:dns", "-", [40, 80, 9_000, 0, 0])),
    ];
    let count = |packets: u64| CounterValue { packets: packets * secs, bytes: 0 };
    let counters = [
        (Counter::FlowCreated, count(55)),
        (Counter::RequestTranslated, count(800)),
        (Counter::ReplyTranslated, count(800)),
        (Counter::PassedProxy, count(4)),
        (Counter::DropSourceRange, count(2)),
        (Counter::DropNoLocalEndpoint, count(3)),
    ];
    Sample {
        at_secs: f64::from(u32::try_from(secs).expect("few")),
        frontends: frontends.into(),
        counters: counters.into(),
        fill: vec![
            Fill { map: "frontends4", entries: 12, capacity: 1_024 },
            Fill { map: "flows4", entries: 2_210, capacity: 262_144 },
        ],
        warnings: Some(3),
    }
}

fn state() -> State {
    let mut state = State::default();
    state.take(sample(10));
    state.take(sample(12));
    state
}

fn press(state: &mut State, keys: &[KeyCode]) -> bool {
    keys.iter().all(|key| state.press(KeyEvent::new(*key, KeyModifiers::NONE)))
}

/// The screen as text, without trailing blanks.
fn drawn(state: &State, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it is only memory");
    terminal.draw(|frame| draw(frame, state)).expect("it is only memory");
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned() + "\n";
    (0..height).map(line).collect()
}

/// `LB_REWRITE=1` writes the picture into the pages.
#[test]
fn the_pages_show_what_is_drawn() {
    const BLOCK: &str = "```text\n";
    let picture = drawn(&state(), (100, 10));
    for name in ["README.md", "docs/top.md"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
        let page = std::fs::read_to_string(&path).expect("the page exists");
        let begin = page.find(&format!("{BLOCK}top   ")).expect("it has a picture") + BLOCK.len();
        let length = page[begin..].find("```\n").expect("it ends");
        if std::env::var_os("LB_REWRITE").is_some() {
            let page = format!("{}{picture}{}", &page[..begin], &page[begin + length..]);
            std::fs::write(path, page).expect("the checkout can be written to");
            continue;
        }
        assert_eq!(&page[begin..begin + length], picture, "{name}: LB_REWRITE=1 writes it");
    }
}

#[test]
fn services_are_ordered_by_what_the_keys_say() {
    let mut state = state();
    let names = |state: &State| state.lines().into_iter().map(|line| line.name).collect::<Vec<_>>();
    assert_eq!(names(&state), ["shop/web:http", "kube-system/dns:dns", "shop/login:https"]);
    let web = state.lines().remove(0);
    assert_eq!((web.addresses, web.flows, web.packets), (2, 15.0, 1_520.0));
    press(&mut state, &[KeyCode::Char('s'), KeyCode::Char('s')]);
    assert_eq!((state.order, names(&state)[0].as_str()), (Order::Passed, "shop/login:https"));
    press(&mut state, &[KeyCode::Char('s')]);
    assert_eq!(
        (state.order, names(&state)),
        (Order::Drops, vec!["shop/web:http".into(), "shop/login:https".into(), "kube-system/dns:dns".into()])
    );
    press(&mut state, &[KeyCode::Char('/'), KeyCode::Char('W'), KeyCode::Char('e'), KeyCode::Enter]);
    assert_eq!(names(&state), ["shop/web:http"]);
    assert!(drawn(&state, (100, 10)).contains("filter: We"));
    press(&mut state, &[KeyCode::Esc]);
    assert_eq!(names(&state).len(), 3);
}

#[test]
fn a_narrow_terminal_shows_the_rates() {
    let drawn = drawn(&state(), (80, 10));
    let rows: Vec<Vec<&str>> = drawn.lines().skip(4).take(2).map(|line| line.split_whitespace().collect()).collect();
    let titles = ["SERVICE", "MODE", "FLOWS/S", "PACKETS/S*", "BYTES/S", "PASSED/S", "DROPS/S"];
    assert_eq!(rows, [titles, ["shop/web:http", "VIP", "15", "1.5k", "1.2M", "0", "3"]], "{drawn}");
}

#[test]
fn a_pause_keeps_the_picture() {
    let mut state = state();
    let before = drawn(&state, (100, 10));
    press(&mut state, &[KeyCode::Char('p')]);
    let paused = drawn(&state, (100, 10));
    state.take(sample(100));
    assert_eq!(drawn(&state, (100, 10)), paused);
    press(&mut state, &[KeyCode::Char('p')]);
    assert_eq!(drawn(&state, (100, 10)), before);
}

#[test]
fn the_keys_that_end_it() {
    let mut state = state();
    assert!(press(&mut state, &[KeyCode::Char('h')]));
    assert!(drawn(&state, (100, 24)).contains("Press any key."));
    assert!(press(&mut state, &[KeyCode::Char('q')]), "any key ends the help only");
    assert!(!press(&mut state, &[KeyCode::Char('q')]));
    assert!(!state.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
}

#[test]
fn it_is_drawn_at_any_size() {
    let mut state = State::default();
    for size in [(1, 1), (20, 3), (300, 80)] {
        drawn(&state, size);
    }
    state.take(Sample { warnings: None, ..sample(10) });
    let first = drawn(&state, (100, 10));
    assert!(first.contains("no agent answers") && first.contains("new flows 0/s"), "{first}");
    press(&mut state, &[KeyCode::Down; 9]);
    assert_eq!(state.first, 2, "the last line stays");
}

#[test]
fn numbers_are_short() {
    let texts = [0.0, 0.04, 0.5, 2.0, 9.96, 999.0, 1_234.0, 34_000_000.0, 2e12].map(short);
    assert_eq!(texts, ["0", "0", "0.5", "2", "10", "999", "1.2k", "34M", "2000G"]);
}
