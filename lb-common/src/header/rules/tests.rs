//! The table of rules, row by row.

use super::*;

const X: u32 = 5_000;
const H: u8 = 28;
/// The number of the header's first byte.
const BEGIN: u32 = X + 1 - H as u32;
const NOW: u32 = 1_000;
const REPEAT: u32 = 100;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const SYN_ACK: u8 = TcpFlags::SYN | TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN | TcpFlags::ACK;
const RST: u8 = TcpFlags::RST;

const fn segment(flags: u8, seq: u32, payload_len: u32) -> Segment {
    Segment { flags, seq, ack: 77, payload_len, window: 500 }
}

const fn answer(flags: u8, ack: u32) -> Segment {
    Segment { flags, seq: 77, ack, payload_len: 0, window: 500 }
}

const fn fresh() -> ProxyHeader {
    ProxyHeader::new(H, true, false).request(&segment(SYN, X, 0), NOW, REPEAT).row
}

const fn answered() -> ProxyHeader {
    fresh().reply(&answer(SYN_ACK, BEGIN)).row
}

/// The header was sent just now, with data behind it.
const fn sent() -> ProxyHeader {
    answered().request(&segment(ACK, X + 1, 100), NOW, REPEAT).row
}

fn request(row: ProxyHeader, segment: Segment) -> (Act, u32) {
    let edit = row.request(&segment, NOW, REPEAT);
    assert_eq!((edit.ack, edit.window, edit.is_acknowledged), (77, 500, false), "requests keep these");
    (edit.act, edit.seq)
}

fn reply(row: ProxyHeader, segment: Segment) -> (u32, u16, bool) {
    let edit = row.reply(&segment);
    assert_eq!((edit.act, edit.seq), (Act::Renumber, 77), "replies keep these");
    (edit.ack, edit.window, edit.is_acknowledged)
}

#[test]
fn a_syn_makes_room_for_the_header() {
    assert_eq!(request(ProxyHeader::new(H, true, false), segment(SYN, X, 0)), (Act::Open, X - 28));
    assert_eq!(request(answered(), segment(SYN, X, 0)), (Act::Open, X - 28), "again");
    assert_eq!(request(sent(), segment(SYN, 9, 500)), (Act::Open, 9_u32.wrapping_sub(28)), "another, with data");
}

#[test]
fn the_answer_becomes_one_to_the_syn() {
    assert_eq!(reply(fresh(), answer(SYN_ACK, BEGIN)), (X + 1, 472, false), "the right edge of the window stays");
    assert_eq!(reply(sent(), answer(SYN_ACK, BEGIN)), (X + 1, 472, false), "again");
    assert_eq!(reply(sent(), answer(ACK, BEGIN)), (X + 1, 500, false), "the header was lost");
    assert_eq!(reply(sent(), answer(ACK, X)), (X + 1, 500, false), "a part of it was");
    assert_eq!(reply(fresh(), answer(RST | ACK, BEGIN)), (X + 1, 500, false), "the port is closed");
    assert_eq!(reply(fresh(), answer(RST, BEGIN)), (BEGIN, 500, false), "a reset without an acknowledgement");
    let narrow = Segment { window: 28, ..answer(SYN_ACK, BEGIN) };
    assert_eq!(reply(fresh(), narrow), (X + 1, 28, false), "no window below zero");
    assert_eq!(reply(fresh(), answer(ACK, BEGIN)), (BEGIN, 500, false), "only a SYN answers a SYN");
    assert_eq!(reply(fresh(), answer(SYN_ACK, BEGIN + 1)), (BEGIN + 1, 500, false), "of an older connection");
}

#[test]
fn the_header_goes_before_the_first_byte() {
    for (row, expected) in [(answered(), "first"), (sent(), "again, however soon")] {
        assert_eq!(request(row, segment(ACK, X + 1, 0)), (Act::Carry, BEGIN), "{expected}");
        assert_eq!(request(row, segment(ACK, X + 1, 9)), (Act::Precede, BEGIN), "{expected}");
        assert_eq!(request(row, segment(FIN, X + 1, 0)), (Act::Precede, BEGIN), "{expected}");
    }
    assert_eq!(request(answered(), segment(ACK, X + 50, 9)), (Act::Precede, BEGIN), "the first byte was lost");
}

/// Its answer is the header's acknowledgement, or the backend's request for it.
#[test]
fn a_keep_alive_brings_the_header() {
    for row in [answered(), sent()] {
        assert_eq!(request(row, segment(ACK, X, 0)), (Act::Carry, BEGIN));
        assert_eq!(request(row, segment(ACK, X, 1)).0, Act::Drop, "with a byte, it may be forged");
        assert_eq!(request(row, segment(ACK, X - 1, 0)), (Act::Renumber, X - 1), "of an older connection");
    }
}

#[test]
fn later_data_brings_the_header_if_it_is_due() {
    assert_eq!(request(sent(), segment(ACK, X + 101, 9)), (Act::Renumber, X + 101));
    assert_eq!(request(sent(), segment(ACK, X + 101, 0)), (Act::Renumber, X + 101));
    let asked = sent().reply(&answer(ACK, BEGIN)).row;
    assert_eq!(request(asked, segment(ACK, X + 101, 9)), (Act::Precede, BEGIN), "the backend asked");
    assert_eq!(request(asked, segment(ACK, X + 101, 0)), (Act::Carry, BEGIN));
    let given = asked.request(&segment(ACK, X + 101, 0), NOW, REPEAT).row;
    assert_eq!(request(given, segment(ACK, X + 101, 9)), (Act::Renumber, X + 101), "once for each time it asks");
    for (later, expected) in [(REPEAT, Act::Renumber), (REPEAT + 1, Act::Precede)] {
        let edit = sent().request(&segment(ACK, X + 101, 9), NOW + later, REPEAT);
        assert_eq!(edit.act, expected, "{later} jiffies later");
    }
    let unasked = answered().reply(&answer(ACK, BEGIN)).row;
    assert_eq!(unasked.wanted, 0, "the backend repeats its answer: the header was never sent");
}

#[test]
fn a_reset_fits_whatever_the_backend_has() {
    for seq in [X + 1, X + 101] {
        assert_eq!(request(sent(), segment(RST, seq, 0)), (Act::Double, BEGIN));
    }
    for seq in [X, X + 102, BEGIN] {
        assert_eq!(request(sent(), segment(RST, seq, 0)), (Act::Renumber, seq), "of an older connection");
    }
    assert_eq!(request(fresh(), segment(RST, X + 1, 0)), (Act::Renumber, X + 1), "before any answer");
}

#[test]
fn an_acknowledgement_ends_it() {
    for (ack, expected) in [(X + 1, true), (X + 101, true), (X + 102, false), (X + 1 + (1 << 31), false)] {
        assert_eq!(reply(sent(), answer(ACK, ack)), (ack, 500, expected), "{ack}");
        assert_eq!(reply(answered(), answer(ACK, ack)), (ack, 500, false), "nothing was sent yet");
    }
    let repeated = sent().request(&segment(ACK, X + 1, 9), NOW, REPEAT).row;
    assert!(reply(repeated, answer(ACK, X + 101)).2, "a part that is sent again moves no bound back");
    let closed = answered().request(&segment(FIN, X + 1, 0), NOW, REPEAT).row;
    assert_eq!(reply(closed, answer(ACK, X + 2)), (X + 2, 500, true), "a FIN counts one");
    let stray = sent().request(&segment(ACK, X + 1 + 100 + AHEAD_MAX + 1, 50), NOW, REPEAT).row;
    assert_eq!(stray.snd_max, X + 101, "a segment of an older connection moves no bound");
    let ahead = sent().request(&segment(ACK, X + 1 + 100 + AHEAD_MAX, 50), NOW, REPEAT).row;
    assert_eq!(ahead.snd_max, X + 151 + AHEAD_MAX, "the network lost much");
}

#[test]
fn a_forged_header_is_dropped() {
    for row in [answered(), sent()] {
        for (seq, len) in [(BEGIN, 28), (BEGIN, 1), (X, 1), (BEGIN - 9, 10), (BEGIN - 9, 900), (X, 5), (BEGIN + 3, 90)]
        {
            assert_eq!(request(row, segment(ACK, seq, len)).0, Act::Drop, "{len} bytes at {seq}");
        }
        assert_eq!(request(row, segment(FIN, X, 0)).0, Act::Drop, "the end of the stream in its place");
        assert_eq!(request(row, segment(SYN_ACK, BEGIN, 9)).0, Act::Drop, "a SYN counts one");
        assert_eq!(request(row, segment(ACK, BEGIN - 9, 9)), (Act::Renumber, BEGIN - 9), "before it");
    }
    for forged in [segment(ACK, X + 1, 9), segment(ACK, BEGIN, 28), segment(FIN, X + 1, 0)] {
        assert_eq!(request(fresh(), forged).0, Act::Drop, "no client sends data before the answer");
    }
}

/// The backend decides which of two SYNs it accepts. Until then the rules of the first one apply.
#[test]
fn a_second_syn_does_not_unlock_the_numbers_of_the_first() {
    const Y: u32 = X - 5;
    let contested = sent().request(&segment(SYN, Y, 0), NOW, REPEAT).row;
    assert_eq!(request(contested, segment(ACK, BEGIN, 28)).0, Act::Drop);
    assert_eq!(reply(contested, answer(SYN_ACK, BEGIN)), (X + 1, 472, false), "an answer to the first");
    let switched = contested.reply(&answer(SYN_ACK, BEGIN - 5));
    assert_eq!((switched.ack, switched.row.isn), (Y + 1, Y), "an answer to the second");
    assert_eq!(request(switched.row, segment(ACK, Y + 1, 0)), (Act::Carry, BEGIN - 5), "its header was not sent");
    assert_eq!(
        request(switched.row, segment(ACK, Y + 50, 9)),
        (Act::Precede, BEGIN - 5),
        "nor was its first byte seen"
    );
    let begun = switched.row.request(&segment(ACK, Y + 1, 0), NOW, REPEAT).row;
    assert_eq!(reply(begun, answer(ACK, Y + 100)), (Y + 100, 500, false), "the first one's data is not its own");
}

/// A SYN on a flow whose header was acknowledged may be a late or forged one: the connection continues.
#[test]
fn a_connection_continues_until_the_backend_accepts_another() {
    let renewed = ProxyHeader::new(H, false, true).request(&segment(SYN, X, 0), NOW, REPEAT).row;
    assert_eq!(request(renewed, segment(ACK, 123_456, 9)), (Act::Renumber, 123_456));
    assert_eq!(request(renewed, segment(FIN, BEGIN, 0)), (Act::Renumber, BEGIN));
    assert_eq!(reply(renewed, answer(ACK, 123_456)), (123_456, 500, false), "a challenge");
    let accepted = renewed.reply(&answer(SYN_ACK, BEGIN)).row;
    assert_eq!(request(accepted, segment(ACK, X + 1, 9)), (Act::Precede, BEGIN));
    assert_eq!(request(accepted, segment(ACK, BEGIN, 9)).0, Act::Drop);
}

#[test]
fn segments_of_older_connections_only_get_the_new_tuple() {
    for seq in [X - 5_000, X + (1 << 30), X + 2 + AHEAD_MAX] {
        assert_eq!(request(answered(), segment(ACK, seq, 9)), (Act::Renumber, seq));
        assert_eq!(request(answered(), segment(ACK, seq, 0)), (Act::Renumber, seq));
    }
}

/// It would open the backend's connection without the header: the row may have missed the answer.
#[test]
fn an_acknowledgement_before_any_answer_is_dropped() {
    for seq in [X, X + 1, X + 101, X - 5_000] {
        assert_eq!(request(fresh(), segment(ACK, seq, 0)).0, Act::Drop);
    }
    assert_eq!(sent().with_syn_of(&fresh()), Some(sent()), "the SYN was repeated");
    let later = fresh().request(&segment(SYN, X + 9, 0), NOW, REPEAT).row;
    assert_eq!(sent().with_syn_of(&later), Some(ProxyHeader { next_isn: X + 9, ..sent() }), "another SYN");
    for (known, other) in [(answered(), sent()), (fresh(), fresh()), (sent(), ProxyHeader::new(H, true, true))] {
        assert_eq!(known.with_syn_of(&other), None, "no answer was missed");
    }
}

/// Two SYNs whose headers overlap: the backend accepts one.
#[test]
fn an_answer_to_another_syn_is_not_the_connection_s() {
    let repeated = sent().request(&segment(SYN, X, 0), NOW, REPEAT).row;
    assert_eq!(reply(repeated, answer(SYN_ACK, BEGIN)), (X + 1, 472, false));
    for ack in [BEGIN + 1, BEGIN + 5, X] {
        assert_eq!(reply(repeated, answer(SYN_ACK, ack)), (ack, 500, false));
        assert_eq!(reply(repeated, answer(ACK, ack)), (X + 1, 500, false), "a part of the header");
    }
}

#[test]
fn a_repeated_syn_is_known() {
    for row in [fresh(), answered(), sent()] {
        assert!(row.is_of_syn(&segment(SYN, X, 0)));
        assert!(!row.is_of_syn(&segment(SYN, X + 1, 0)));
        assert!(!row.is_of_syn(&segment(ACK, X, 0)));
    }
}

/// The whole handshake, where each number of it wraps.
#[test]
fn numbers_wrap() {
    for isn in (0..=40).map(|back| 20_u32.wrapping_sub(back)) {
        let (first, begin) = (isn.wrapping_add(1), isn.wrapping_sub(27));
        let opened = ProxyHeader::new(H, true, false).request(&segment(SYN, isn, 0), NOW, REPEAT);
        assert_eq!(opened.seq, begin.wrapping_sub(1));
        let accepted = opened.row.reply(&answer(SYN_ACK, begin));
        assert_eq!(accepted.ack, first);
        assert_eq!(request(accepted.row, segment(ACK, begin, 9)).0, Act::Drop);
        assert_eq!(request(accepted.row, segment(ACK, begin.wrapping_sub(9), 9)).0, Act::Renumber);
        let carried = accepted.row.request(&segment(ACK, first, 60), NOW, REPEAT);
        assert_eq!((carried.act, carried.seq, carried.row.snd_max), (Act::Precede, begin, first.wrapping_add(60)));
        assert!(!carried.row.reply(&answer(ACK, isn)).is_acknowledged);
        assert!(!carried.row.reply(&answer(ACK, first.wrapping_add(61))).is_acknowledged);
        assert!(carried.row.reply(&answer(ACK, first)).is_acknowledged);
        assert!(carried.row.reply(&answer(ACK, first.wrapping_add(60))).is_acknowledged);
        assert_eq!(carried.row.quoted(begin.wrapping_sub(1)), isn);
        assert_eq!(carried.row.quoted(isn), first);
    }
    let row = answered().request(&segment(ACK, X + 1, 9), u32::MAX - 5, REPEAT).row;
    assert_eq!(row.request(&segment(ACK, X + 10, 9), 94, REPEAT).act, Act::Renumber, "the clock wraps as well");
    assert_eq!(row.request(&segment(ACK, X + 10, 9), 95, REPEAT).act, Act::Precede);
}

#[test]
fn an_icmp_error_quotes_what_the_client_sent() {
    for (quoted, expected) in [(X - 28, X), (BEGIN, X + 1), (X, X + 1), (X + 1, X + 1), (X - 29, X - 29), (0, 0)] {
        assert_eq!(sent().quoted(quoted), expected);
        assert_eq!(fresh().quoted(quoted), expected);
    }
    assert_eq!(ProxyHeader::new(H, true, false).quoted(BEGIN), BEGIN, "no SYN is known");
}
