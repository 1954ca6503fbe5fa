//! The ledger, the order and the window of a lane.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::mqtt::decode::DecodeLimits;
use crate::mqtt::decode::Decoded;
use crate::mqtt::decode::decode;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::Publish;
use crate::mqtt::packet::Version;

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: 0 }
}

fn lane(limit: u64, config: LaneConfig) -> Lane {
    Lane::new(config, SpoolBudget::new(limit))
}

fn push(lane: &mut Lane, now: u64, qos: QoS, text: &str) -> Pushed {
    lane.push(at(now), qos, |out| out.extend_from_slice(text.as_bytes()))
}

fn send(lane: &mut Lane) -> Option<(u16, bool, String)> {
    let sent = lane.next_to_send(at(0))?;
    let text = String::from_utf8(sent.message().to_vec()).unwrap();
    Some((sent.packet_id.map_or(0, PacketId::get), sent.dup, text))
}

fn ack(lane: &mut Lane, id: u16, reason: u8) -> Acked {
    lane.handle_ack(PacketId::new(id).unwrap(), reason)
}

const ONE: QoS = QoS::AtLeastOnce;

#[test]
fn the_window_is_the_smaller_of_both_sides() {
    let mut lane = lane(10_000, LaneConfig { max_inflight: Some(3), ..LaneConfig::default() });
    for text in ["a", "b", "c", "d"] {
        assert_eq!(push(&mut lane, 0, ONE, text), Pushed::Spooled);
    }
    assert_eq!(send(&mut lane), None, "no connection");
    lane.handle_connected(2, None);
    assert_eq!(send(&mut lane), Some((1, false, "a".into())));
    assert_eq!(send(&mut lane), Some((2, false, "b".into())));
    assert_eq!(send(&mut lane), None);
    assert_eq!(ack(&mut lane, 2, 0x10), Acked::Delivered { pushed_ms: 0 });
    assert_eq!(ack(&mut lane, 2, 0), Acked::Unknown);
    assert_eq!(ack(&mut lane, 9, 0), Acked::Unknown);
    assert_eq!(send(&mut lane), Some((3, false, "c".into())));
    assert_eq!(lane.oldest_in_flight(), PacketId::new(1));
    assert_eq!(ack(&mut lane, 1, 0x87), Acked::Failed { reason: 0x87 });
    assert_eq!(lane.oldest_in_flight(), PacketId::new(3));
    let counters = lane.counters();
    assert_eq!((counters.acked, counters.failed, lane.queued(), lane.in_flight()), (1, 1, 1, 1));
    assert_eq!(lane.unaccounted(), 0);
}

#[test]
fn a_spool_raises_the_alarm_at_four_fifths_once() {
    let mut filling = false;
    let steps = [(79, false), (80, true), (75, true), (100, true), (70, true), (69, false), (79, false)];
    for (bytes, expected) in steps {
        filling = is_filling(filling, bytes, 100);
        assert_eq!(filling, expected, "{bytes}");
    }
    assert!(is_filling(false, u64::MAX, u64::MAX));
}

#[test]
fn a_lane_that_is_held_sends_nothing_and_keeps_the_order() {
    let mut lane = lane(10_000, LaneConfig { max_inflight: Some(2), ..LaneConfig::default() });
    lane.handle_connected(10, None);
    for text in ["a", "b", "c"] {
        push(&mut lane, 0, ONE, text);
    }
    assert_eq!(send(&mut lane), Some((1, false, "a".into())));
    lane.hold(Hold::Wait);
    assert_eq!(ack(&mut lane, 1, 0), Acked::Delivered { pushed_ms: 0 }, "what is in flight goes on");
    assert_eq!((send(&mut lane), lane.is_open(), lane.is_connected()), (None, false, true));
    assert_eq!(push(&mut lane, 0, QoS::AtMostOnce, "0"), Pushed::Dropped(DropReason::Offline));
    push(&mut lane, 0, ONE, "d");
    lane.hold(Hold::Doubt);
    assert_eq!(push(&mut lane, 0, QoS::AtMostOnce, "e"), Pushed::Spooled, "it will not take long");
    lane.handle_disconnected();
    lane.handle_connected(10, None);
    assert_eq!(send(&mut lane), None, "a new connection changes nothing");
    lane.hold(Hold::None);
    assert_eq!(send(&mut lane), Some((1, false, "b".into())));
    assert_eq!(send(&mut lane), Some((2, false, "c".into())));
    assert_eq!((send(&mut lane), lane.unaccounted()), (None, 0));
}

#[test]
fn a_lane_takes_over_what_another_has_in_order_and_whatever_its_budget() {
    let mut older = lane(10_000, LaneConfig::default());
    for text in ["a", "b", "c"] {
        push(&mut older, 5, ONE, text);
    }
    older.handle_connected(2, None);
    send(&mut older);
    send(&mut older);
    ack(&mut older, 1, 0);
    let budget = SpoolBudget::new(60);
    let mut newer = Lane::new(LaneConfig::default(), Arc::clone(&budget));
    push(&mut newer, 6, ONE, "d");
    newer.take_over(older);
    assert_eq!((newer.queued(), newer.unaccounted(), budget.used()), (3, 0, newer.bytes()));
    newer.handle_connected(9, None);
    assert_eq!(send(&mut newer), Some((1, true, "b".into())));
    assert_eq!(send(&mut newer), Some((2, false, "c".into())));
    assert_eq!(send(&mut newer), Some((3, false, "d".into())));
    for id in 1..=3 {
        ack(&mut newer, id, 0);
    }
    assert_eq!((newer.bytes(), budget.used(), newer.unaccounted()), (0, 0, 0));
}

#[test]
fn a_large_budget_is_used_in_steps_and_to_its_end() {
    let limit = 64 * 1024 * 1024;
    let budget = SpoolBudget::new(limit);
    let step = budget.step();
    assert!(step > 0 && SpoolBudget::new(1024 * 1024).step() == 0);
    let config = LaneConfig { on_full: OnFull::DropNew, ..LaneConfig::default() };
    let mut lanes = [(); 2].map(|()| Lane::new(config.clone(), Arc::clone(&budget)));
    for lane in &mut lanes {
        lane.handle_connected(9, None);
        for _ in 0..1_000 {
            assert_eq!(
                lane.push(at(0), QoS::AtMostOnce, |out| out.resize(out.len() + 346, 0)),
                Pushed::Spooled
            );
        }
        assert_eq!((lane.bytes(), lane.credit <= 2 * step), (400_000, true));
    }
    let credit = |lanes: &[Lane]| lanes.iter().map(|lane| lane.credit).sum::<u64>();
    assert_eq!(budget.used(), 800_000 + credit(&lanes));
    for lane in &mut lanes {
        while lane.next_to_send(at(0)).is_some() {
            assert!(lane.credit <= 2 * step);
        }
    }
    assert_eq!((lanes[0].bytes() + lanes[1].bytes(), budget.used()), (0, credit(&lanes)));
    // What one of them does not use is all that the other cannot have.
    let large = |out: &mut Vec<u8>| out.resize(out.len() + 1_000_000, 0);
    while lanes[0].push(at(0), ONE, large) == Pushed::Spooled {}
    assert!(lanes[0].bytes() + 1_000_057 + lanes[1].credit > limit);
    assert!(budget.used() <= limit);
    drop(lanes);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_lane_is_split_by_publishers_in_order() {
    let mut old = lane(10_000, LaneConfig::default());
    for number in 0..12_u32 {
        old.push_from(number % 4, at(0), ONE, |out| out.extend_from_slice(number.to_string().as_bytes()));
    }
    old.handle_connected(1, None);
    send(&mut old);
    let mut lanes = [lane(10_000, LaneConfig::default()), lane(10_000, LaneConfig::default())];
    let bytes = old.bytes();
    assert_eq!(old.split(&mut lanes, |_| None, |_, _| ()), 0);
    assert_eq!(lanes.iter().map(Lane::bytes).sum::<u64>(), bytes);
    for (lane, expected) in
        lanes.iter_mut().zip([["0", "2", "4", "6", "8", "10"], ["1", "3", "5", "7", "9", "11"]])
    {
        assert_eq!((lane.queued(), lane.unaccounted(), lane.budget.used()), (6, 0, lane.bytes()));
        lane.handle_connected(9, None);
        for text in expected {
            let (_, dup, sent) = send(lane).unwrap();
            assert_eq!((&*sent, dup), (text, text == "0"));
        }
    }
}

#[test]
fn what_was_not_acknowledged_goes_first_on_the_next_connection() {
    let mut lane = lane(10_000, LaneConfig::default());
    for text in ["a", "b", "c", "d"] {
        push(&mut lane, 0, QoS::ExactlyOnce, text);
    }
    lane.handle_connected(65_535, None);
    (0..3).for_each(|_| drop(send(&mut lane)));
    ack(&mut lane, 2, 0);
    lane.handle_disconnected();
    lane.handle_connected(65_535, None);
    assert_eq!(send(&mut lane), Some((1, true, "a".into())));
    assert_eq!(send(&mut lane), Some((2, true, "c".into())));
    assert_eq!(send(&mut lane), Some((3, false, "d".into())));
    assert_eq!((lane.counters().resent, lane.counters().sent), (2, 6));
}

#[test]
fn qos_0_waits_for_a_connection_only_if_told_to() {
    for qos0 in [false, true] {
        let mut lane = lane(10_000, LaneConfig { qos0, ..LaneConfig::default() });
        let offline = if qos0 { Pushed::Spooled } else { Pushed::Dropped(DropReason::Offline) };
        assert_eq!(push(&mut lane, 0, QoS::AtMostOnce, "a"), offline);
        lane.handle_connected(1, None);
        assert_eq!(push(&mut lane, 0, QoS::AtMostOnce, "b"), Pushed::Spooled);
        lane.handle_disconnected();
        assert_eq!(lane.queued(), if qos0 { 2 } else { 0 });
        lane.handle_connected(1, None);
        while send(&mut lane).is_some() {}
        assert_eq!(lane.counters().fired, if qos0 { 2 } else { 0 });
        assert_eq!((lane.unaccounted(), lane.bytes()), (0, 0));
    }
}

#[test]
fn a_full_spool_drops_or_refuses_as_told() {
    let room_for_two = 2 * (ENTRY_BYTES + 8);
    for (on_full, third, left) in [
        (OnFull::DropOldest, Pushed::Spooled, "bc"),
        (OnFull::DropNew, Pushed::Dropped(DropReason::SpoolFull), "ab"),
        (OnFull::Refuse, Pushed::Refused, "ab"),
    ] {
        let mut lane = lane(room_for_two, LaneConfig { on_full, ..LaneConfig::default() });
        push(&mut lane, 0, ONE, "a");
        push(&mut lane, 0, ONE, "b");
        assert_eq!(push(&mut lane, 0, ONE, "c"), third);
        assert_eq!(lane.counters().dropped[DropReason::SpoolFull.index()], 1);
        lane.handle_connected(9, None);
        let sent: String = std::iter::from_fn(|| send(&mut lane)).map(|(_, _, text)| text).collect();
        assert_eq!(sent, left);
        assert_eq!(lane.unaccounted(), 0);
    }
    // The budget is the link's: another lane's messages are not dropped for ours.
    let budget = SpoolBudget::new(room_for_two);
    let mut one = Lane::new(LaneConfig::default(), budget.clone());
    let mut other = Lane::new(LaneConfig::default(), budget.clone());
    push(&mut one, 0, ONE, "a");
    push(&mut one, 0, ONE, "b");
    assert_eq!(push(&mut other, 0, ONE, "c"), Pushed::Dropped(DropReason::SpoolFull));
    drop(one);
    assert_eq!(budget.used(), 0);
    assert_eq!(push(&mut other, 0, ONE, "c"), Pushed::Spooled);
}

#[test]
fn what_is_too_old_or_too_large_is_not_sent() {
    let config = LaneConfig { max_age_ms: Some(100), topic: "12345678".into(), ..LaneConfig::default() };
    let mut lane = lane(10_000, config);
    push(&mut lane, 0, ONE, "old");
    push(&mut lane, 50, ONE, &"x".repeat(500));
    push(&mut lane, 60, ONE, "c");
    assert_eq!(lane.poll_timeout(), Some(100));
    lane.handle_connected(9, Some(100));
    assert_eq!(push(&mut lane, 60, ONE, &"y".repeat(90)), Pushed::Dropped(DropReason::TooLarge));
    let sent = lane.next_to_send(at(120)).unwrap();
    assert_eq!(sent.message(), b"c");
    assert_eq!(lane.oldest_age_ms(at(120)), Some(60));
    let dropped = lane.counters().dropped;
    assert_eq!((dropped[DropReason::Expired.index()], dropped[DropReason::TooLarge.index()]), (1, 2));
    assert_eq!(lane.unaccounted(), 0);
}

#[test]
fn packet_identifiers_run_around() {
    let mut lane = lane(1_000_000, LaneConfig::default());
    lane.handle_connected(9, None);
    push(&mut lane, 0, ONE, "first");
    let mut last = send(&mut lane).unwrap().0;
    for _ in 0..70_000 {
        push(&mut lane, 0, ONE, "x");
        let (id, dup, _) = send(&mut lane).unwrap();
        assert_eq!((id, dup), (last % 65_535 + 1, false));
        assert_eq!(ack(&mut lane, last, 0), Acked::Delivered { pushed_ms: 0 });
        last = id;
    }
}

/// The packets that a lane gave to be sent.
fn published(mut bytes: &[u8]) -> Vec<Publish<'_>> {
    let limits = DecodeLimits { version: Some(Version::V5), max_packet_size: u32::MAX };
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let Ok(Decoded::Packet { packet: Packet::Publish(publish), len }) = decode(bytes, &limits) else {
            panic!("not a PUBLISH: {bytes:?}");
        };
        bytes = &bytes[len..];
        all.push(publish);
    }
    all
}

#[test]
fn messages_of_qos_0_are_handed_over_with_the_memory_they_lie_in() {
    let mut lane = lane(10_000_000, LaneConfig { topic: "t".into(), ..LaneConfig::default() });
    lane.handle_connected(9, None);
    let mut out = Vec::new();
    for round in 0..5_u8 {
        let count = if round == 3 { 200 } else { 20 };
        for number in 0..count {
            // In the last round somebody acknowledges what stands in the middle.
            let qos = if round == 4 && number == 10 { ONE } else { QoS::AtMostOnce };
            lane.push(at(0), qos, |out| out.extend_from_slice(&[number; 1_000]));
        }
        let mut sent = Vec::new();
        while lane.queued() > 0 {
            out.clear();
            out.reserve(200_000);
            let memory = out.as_ptr();
            lane.fill(at(0), &mut out, 100_000);
            assert_eq!(out.as_ptr() != memory, round < 4, "round {round}");
            sent.extend(published(&out).iter().map(|publish| publish.payload[0]));
        }
        assert_eq!(sent, (0..count).collect::<Vec<u8>>(), "round {round}");
        assert_eq!((lane.unaccounted(), lane.counters().sent), (0, lane.counters().pushed));
    }
    assert_eq!((lane.in_flight(), lane.budget.used() - lane.credit), (1, lane.bytes()));
    assert!(lane.arena.memory() <= 4 * 128 * 1024, "{}", lane.arena.memory());
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8, usize),
    Send,
    Fill(usize),
    Ack(usize, u8),
    Connected(u16, u32),
    Disconnected,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_u8, 1..3_000_usize).prop_map(|(qos, length)| Step::Push(qos, length)),
        6 => Just(Step::Send),
        2 => (1..10_000_usize).prop_map(Step::Fill),
        4 => (0..8_usize, prop::sample::select(vec![0_u8, 0x10, 0x10, 0x97]))
            .prop_map(|(index, reason)| Step::Ack(index, reason)),
        1 => (1..6_u16, 1_000..4_000_u32).prop_map(|(window, size)| Step::Connected(window, size)),
        1 => Just(Step::Disconnected),
        1 => (1..4_000_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn every_message_is_accounted_for_and_order_is_kept(
        on_full in prop::sample::select(vec![OnFull::DropOldest, OnFull::DropNew, OnFull::Refuse]),
        qos0 in any::<bool>(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let config = LaneConfig { max_inflight: Some(4), max_age_ms: Some(10_000), on_full, qos0, topic: "a topic of 20 bytes.".into(), ..LaneConfig::default() };
        let budget = SpoolBudget::new(20_000);
        let mut lane = Lane::new(config, budget.clone());
        let (mut now, mut number, mut window) = (0, 0_u64, 0);
        // In flight: packet identifier to message number; and the last number sent on this connection.
        let mut in_flight = BTreeMap::new();
        let mut last_sent = None;
        let mut out = Vec::new();
        for step in steps {
            out.clear();
            match step {
                Step::Push(qos, length) => {
                    number += 1;
                    let body = [number.to_be_bytes().to_vec(), vec![qos; length]].concat();
                    lane.push(at(now), QoS::from_u8(qos).unwrap(), |out| out.extend_from_slice(&body));
                }
                Step::Send => if let Some(sent) = lane.next_to_send(at(now)) {
                    out.extend_from_slice(sent.packet);
                },
                Step::Fill(bytes_max) => lane.fill(at(now), &mut out, bytes_max),
                Step::Ack(index, reason) => {
                    if let Some(id) = in_flight.keys().nth(index).copied() {
                        in_flight.remove(&id);
                        let acked = lane.handle_ack(id, reason);
                        prop_assert_eq!(matches!(acked, Acked::Failed { .. }), reason == 0x97);
                        prop_assert!(acked != Acked::Unknown);
                    }
                }
                Step::Connected(receive_maximum, size) => {
                    lane.handle_connected(receive_maximum, Some(size));
                    window = usize::from(receive_maximum.min(4));
                    in_flight.clear();
                    last_sent = None;
                }
                Step::Disconnected => {
                    lane.handle_disconnected();
                    in_flight.clear();
                    last_sent = None;
                }
                Step::Pass(ms) => {
                    now += ms;
                    lane.handle_timeout(at(now));
                }
            }
            for sent in published(&out) {
                let number = u64::from_be_bytes(sent.payload[..8].try_into().unwrap());
                prop_assert!(sent.payload[8..].iter().all(|byte| (*byte > 0) == sent.packet_id.is_some()));
                prop_assert!(last_sent < Some(number), "{last_sent:?} then {number}");
                last_sent = Some(number);
                if let Some(id) = sent.packet_id {
                    prop_assert!(in_flight.insert(id, number).is_none());
                }
            }
            prop_assert_eq!(lane.unaccounted(), 0);
            prop_assert_eq!(lane.in_flight(), in_flight.len());
            prop_assert!(in_flight.len() <= window);
            prop_assert_eq!(lane.bytes(), budget.used());
            prop_assert!(budget.used() <= budget.limit());
        }
        drop(lane);
        prop_assert_eq!(budget.used(), 0);
    }
}
