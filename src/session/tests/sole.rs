//! A run is delivered alike to every version, and to who gets it alone: then its frames are written where they go, after
//! one another's likeness.

use proptest::prelude::*;

use super::*;

fn message() -> impl Strategy<Value = (usize, usize, QoS, bool, bool)> {
    let qos = prop::sample::select(&QOS[..]);
    (
        0..2_usize,
        prop::sample::select(vec![0, 5, 5, 5, 6, 200]),
        qos,
        any::<bool>(),
        prop::bool::weighted(0.2),
    )
}

proptest! {
    /// It is sent what it would be sent among others, whatever the messages have in common.
    #[test]
    fn one_that_is_alone_gets_what_it_would_get_among_others(
        messages in prop::collection::vec(message(), 1..12),
        version in prop::sample::select(&VERSIONS[..]),
        (granted, retain_as_published) in (prop::sample::select(&QOS[..]), any::<bool>()),
        (receive_maximum, max_packet_size) in (1..8_u16, prop::sample::select(vec![8, 14, 30, u32::MAX])),
        ids in prop::sample::select(vec![&[][..], &[7]]),
    ) {
        let (topics, payload) = (["t/1", "t/22"], [b'x'; 200]);
        let now = Now { mono_ms: 5_000, unix_ms: 0 };
        let publications: Vec<_> = messages
            .iter()
            .map(|&(topic, length, qos, retain, expires)| Publication {
                topic: topics[topic],
                properties: &[],
                payload: &payload[..length],
                qos,
                retain,
                expiry: expires.then_some(Expiry { interval_seconds: 9, received_mono_ms: 4_000 }),
            })
            .collect();
        let grant = Grant { qos: granted, retain_as_published, subscription_ids: ids, shared: None };
        let [alone, among_others] = [true, false].map(|sole| {
            let mut session = Session::new(Bounds::new(LIMITS, true));
            session.attach(attachment(output(version, receive_maximum, max_packet_size)), Now::default());
            let (mut tally, mut frames, mut out) = (Tally::default(), RunFrames::default(), Vec::new());
            for publications in [&publications[..], &publications[..1]] {
                let mut run = Run::new(publications, &mut frames, now);
                run.set_sole(sole);
                session.deliver_run(&mut run, &grant, now, &mut tally);
            }
            session.take_output(&mut out, now, &mut tally);
            (out, tally)
        });
        prop_assert_eq!(alone.0, among_others.0);
        prop_assert_eq!(format!("{:?}", alone.1), format!("{:?}", among_others.1));
    }
}

#[test]
fn a_run_is_delivered_alike_to_every_version() {
    for version in VERSIONS {
        let mut session = Session::new(Bounds::new(LIMITS, true));
        session.attach(attachment(output(version, 10, u32::MAX)), Now::default());
        let mut tally = Tally::default();
        let run: Vec<_> = QOS.iter().map(|qos| publication(b"x", *qos)).collect();
        deliver(&mut session, &run, Now::default(), &mut tally);
        assert_eq!(take(&mut session, version, Now::default(), &mut tally), ["0 x", "1 x", "2 x"]);
        assert_eq!(session.handle_pubrec(id(2), ReasonCode::Success), Some(ReasonCode::Success));
    }
}
