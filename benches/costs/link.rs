//! Cluster links without a connection: external terms, and the lane that a message waits in.

use std::hint::black_box;

use tombolo::link::compress::Deflater;
use tombolo::link::compress::Inflater;
use tombolo::link::lane::Lane;
use tombolo::link::lane::LaneConfig;
use tombolo::link::lane::SpoolBudget;
use tombolo::link::message;
use tombolo::link::message::Envelope;
use tombolo::link::message::MessageProperties;
use tombolo::link::message::Outgoing;
use tombolo::link::payload;
use tombolo::link::payload::Control;
use tombolo::link::payload::RouteBatch;
use tombolo::link::payload::RouteOp;
use tombolo::mqtt::packet::QoS;

use crate::NOW;
use crate::PAYLOAD;
use crate::TOPIC;
use crate::harness::Bench;
use crate::harness::Body;

pub(crate) const BENCHES: &[Bench] = &[
    Bench { name: "etf: encode a route batch, per route", operations: 100, make: encode_routes },
    Bench { name: "etf: decode a route batch, per route", operations: 100, make: decode_routes },
    Bench { name: "etf: wrap a message", operations: 64, make: wrap },
    Bench { name: "etf: unwrap a message", operations: 64, make: unwrap },
    Bench { name: "lane: a message in and out, QoS 0", operations: 64, make: || lane(QoS::AtMostOnce) },
    Bench {
        name: "lane: a message in, out and acknowledged, QoS 1",
        operations: 64,
        make: || lane(QoS::AtLeastOnce),
    },
];

fn route_batch(filters: &[String]) -> Vec<u8> {
    let mut batch = RouteBatch::new("a@host", 1);
    for filter in filters {
        batch.push(&RouteOp { delete: false, topic: filter.as_bytes(), id: b"" });
    }
    batch.finish(&mut Deflater::default(), usize::MAX)
}

fn filters() -> Vec<String> {
    (0..100).map(|n| format!("site/{n:02}/machine/+/state")).collect()
}

fn encode_routes() -> Box<dyn Body> {
    let filters = filters();
    Box::new(move || drop(black_box(route_batch(black_box(&filters)))))
}

fn decode_routes() -> Box<dyn Body> {
    let (bytes, mut inflater) = (route_batch(&filters()), Inflater::default());
    Box::new(move || {
        let Control::Route(update) = payload::parse_control(inflater.open(&bytes).unwrap()).unwrap() else {
            panic!("a route update");
        };
        assert_eq!(update.ops.inspect(|op| _ = black_box(op)).count(), 100);
    })
}

pub(crate) fn outgoing(topic: &str) -> Outgoing<'_> {
    Outgoing {
        id: [7; 16],
        qos: QoS::AtLeastOnce,
        from: Some("machine-0007"),
        username: Some("machine"),
        peer: Some([192, 0, 2, 7].into()),
        retain: false,
        topic,
        payload: &PAYLOAD,
        timestamp_ms: NOW.unix_ms,
        properties: MessageProperties::default(),
    }
}

/// A run of one publisher.
fn wrap() -> Box<dyn Body> {
    let (mut out, mut envelope) = (Vec::new(), Envelope::default());
    Box::new(move || {
        envelope.address(black_box(&outgoing(TOPIC)));
        envelope.describe(black_box(&outgoing(TOPIC)), &[]);
        for number in 0..64 {
            out.clear();
            envelope.put(&mut out, [number; 16], black_box(&PAYLOAD));
        }
    })
}

fn unwrap() -> Box<dyn Body> {
    let (mut bytes, mut inflater) = (Vec::new(), Inflater::default());
    message::put(&mut bytes, &outgoing(TOPIC));
    Box::new(move || {
        for _ in 0..64 {
            let message = message::parse(inflater.open(black_box(&bytes)).unwrap()).unwrap();
            assert_eq!(black_box(message).topic, TOPIC);
        }
    })
}

fn lane(qos: QoS) -> Box<dyn Body> {
    let config = LaneConfig { max_inflight: Some(64), ..LaneConfig::default() };
    let mut lane = Lane::new(config, SpoolBudget::new(1 << 30));
    lane.handle_connected(64, None);
    let mut envelope = Envelope::default();
    envelope.address(&outgoing(TOPIC));
    let mut out = Vec::new();
    Box::new(move || {
        envelope.describe(&outgoing(TOPIC), lane.head(qos));
        for number in 0..64 {
            lane.push_packet(0, NOW, qos, |out, _| envelope.put(out, [number; 16], black_box(&PAYLOAD)));
        }
        out.clear();
        lane.fill(NOW, &mut out, usize::MAX);
        assert!(black_box(&out).len() > 64 * PAYLOAD.len());
        while let Some(id) = lane.oldest_in_flight() {
            lane.handle_ack(id, 0);
        }
    })
}
