//! A client that takes less than it is sent: what waits for it, in which order, and what is dropped at last.

use super::*;

const LARGE: usize = 300_000;

/// Serial and QoS of what is in the output, in order.
fn arrived(bench: &mut Bench) -> Vec<(u32, QoS)> {
    let mut bytes = Vec::new();
    bench.session.take_output(&mut bytes, bench.now, &mut bench.tally);
    let limits = DecodeLimits { version: Some(Version::V5), max_packet_size: u32::MAX };
    let mut rest = &bytes[..];
    let mut seen = Vec::new();
    while let Ok(Decoded::Packet { packet: Packet::Publish(publish), len }) = decode::decode(rest, &limits) {
        rest = &rest[len..];
        seen.push((u32::from_be_bytes(*publish.payload.first_chunk().unwrap()), publish.qos));
    }
    assert!(rest.is_empty());
    seen
}

fn all(bench: &mut Bench) -> Vec<(u32, QoS)> {
    let mut seen = Vec::new();
    loop {
        let more = arrived(bench);
        if more.is_empty() {
            return seen;
        }
        seen.extend(more);
    }
}

fn publish(bench: &mut Bench, serial: u32, qos: QoS) {
    let mut payload = serial.to_be_bytes().to_vec();
    payload.resize(LARGE, 0);
    deliver(&mut bench.session, &[publication(&payload, qos)], bench.now, &mut bench.tally);
}

fn bench(limits: QueueLimits) -> Bench {
    let mut bench = Bench { session: Session::new(Bounds::new(limits, true)), ..Bench::new() };
    bench.attach(1_000, u32::MAX);
    bench
}

#[test]
fn qos_0_beyond_the_output_waits_and_is_not_lost() {
    let mut bench = bench(LIMITS);
    for serial in 0..60 {
        publish(&mut bench, serial, QoS::AtMostOnce);
    }
    assert!(bench.session.output.as_ref().unwrap().bytes.len() <= outbound::OUTPUT_BYTES_HARD);
    assert!(bench.session.queued() > 40, "{}", bench.session.queued());
    assert!(bench.tally.crowded);
    let serials: Vec<u32> = all(&mut bench).into_iter().map(|(serial, _)| serial).collect();
    assert_eq!(serials, (0..60).collect::<Vec<_>>());
    assert_eq!((bench.tally.dropped_total(), bench.tally.sent[0], bench.session.queued()), (0, 60, 0));
    publish(&mut bench, 60, QoS::AtMostOnce);
    assert_eq!(bench.session.queued(), 0, "it goes straight out again");
}

#[test]
fn nothing_overtakes_a_qos_0_message_that_waits() {
    let mut bench = bench(LIMITS);
    let full = 14;
    for serial in 0..full {
        publish(&mut bench, serial, QoS::AtMostOnce);
    }
    let qos = |serial: u32| QOS[serial as usize % 3];
    for serial in full..50 {
        publish(&mut bench, serial, qos(serial));
    }
    let expected: Vec<_> =
        (0..50).map(|serial| (serial, if serial < full { QoS::AtMostOnce } else { qos(serial) })).collect();
    assert_eq!(all(&mut bench), expected);
    assert_eq!(bench.tally.dropped_total(), 0);
}

#[test]
fn qos_0_that_waits_is_dropped_with_its_reason_when_the_queue_is_full() {
    for when_full in [WhenFull::DropOldest, WhenFull::DropNew, WhenFull::Disconnect] {
        let mut bench = bench(QueueLimits { messages_max: 5, when_full, ..LIMITS });
        for serial in 0..40 {
            publish(&mut bench, serial, QoS::AtMostOnce);
        }
        let dropped = bench.dropped(DropReason::SlowConsumer);
        assert!(dropped > 10 && bench.dropped(DropReason::QueueFull) == 0, "{when_full:?}");
        assert_eq!(bench.session.overran(), when_full == WhenFull::Disconnect);
        let seen = all(&mut bench);
        assert_eq!(seen.len() as u64 + dropped, 40, "{when_full:?}");
        assert!(seen.is_sorted());
        assert_eq!(seen.last().unwrap().0 == 39, when_full != WhenFull::DropNew, "{when_full:?}");
    }
}

#[test]
fn what_was_promised_does_not_give_way_to_qos_0() {
    let mut bench = bench(QueueLimits { messages_max: 10, ..LIMITS });
    for serial in 0..20 {
        publish(&mut bench, serial, QoS::AtMostOnce);
    }
    for serial in 20..40 {
        publish(&mut bench, serial, if serial % 2 == 0 { QoS::AtLeastOnce } else { QoS::AtMostOnce });
    }
    let promised: Vec<u32> = all(&mut bench)
        .into_iter()
        .filter(|(_, qos)| *qos == QoS::AtLeastOnce)
        .map(|(serial, _)| serial)
        .collect();
    assert_eq!(promised, (20..40).step_by(2).collect::<Vec<_>>());
    assert_eq!(bench.dropped(DropReason::QueueFull), 0);
}

#[test]
fn a_queue_is_pressed_when_half_of_its_messages_or_bytes_are_used_until_it_overflows() {
    for limits in [QueueLimits { messages_max: 8, ..LIMITS }, QueueLimits { bytes_max: 8 * 101, ..LIMITS }] {
        let mut bench = Bench::new();
        bench.session = Session::new(Bounds::new(limits, true));
        bench.attach(1, u32::MAX);
        bench.deliver("in flight", QoS::AtLeastOnce, None);
        let mut pressed = Vec::new();
        for _ in 0..10 {
            bench.deliver(&"x".repeat(100), QoS::AtLeastOnce, None);
            pressed.push(std::mem::take(&mut bench.tally.pressed));
        }
        let expected = [[false; 4], [true; 4]].concat();
        assert_eq!((&pressed[..8], &pressed[8..]), (&expected[..], &[false; 2][..]), "{limits:?}");
    }
}
