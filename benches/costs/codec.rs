//! Bytes to packets and back.

use std::hint::black_box;
use std::num::NonZeroU16;

use smallvec::smallvec;
use tombolo::mqtt::decode;
use tombolo::mqtt::decode::DecodeLimits;
use tombolo::mqtt::decode::Decoded;
use tombolo::mqtt::encode;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::Subscribe;
use tombolo::mqtt::packet::SubscribeFilter;
use tombolo::mqtt::packet::SubscriptionOptions;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::PropertiesBuf;

use tombolo::session::frames::Run;
use tombolo::session::frames::RunFrames;
use tombolo::session::message::Publication;

use crate::BURST;
use crate::NOW;
use crate::PAYLOAD;
use crate::TOPIC;
use crate::client;
use crate::harness::Bench;
use crate::harness::Body;

pub(crate) const BENCHES: &[Bench] = &[
    Bench {
        name: "codec: decode PUBLISH 3.1.1 QoS 0",
        operations: 64,
        make: || publishes(QoS::AtMostOnce, Version::V311, false),
    },
    Bench {
        name: "codec: decode PUBLISH 3.1.1 QoS 1",
        operations: 64,
        make: || publishes(QoS::AtLeastOnce, Version::V311, false),
    },
    Bench {
        name: "codec: decode PUBLISH 5.0 QoS 0",
        operations: 64,
        make: || publishes(QoS::AtMostOnce, Version::V5, false),
    },
    Bench {
        name: "codec: decode PUBLISH 5.0 with properties",
        operations: 64,
        make: || publishes(QoS::AtMostOnce, Version::V5, true),
    },
    Bench { name: "codec: decode CONNECT 5.0", operations: 64, make: connect },
    Bench { name: "codec: decode SUBSCRIBE of 2", operations: 64, make: subscribe },
    Bench { name: "codec: encode PUBLISH 3.1.1", operations: 64, make: encode_publish },
    Bench { name: "codec: frame of a run, laid out once", operations: 64, make: layout },
    Bench { name: "codec: frame of a run, copied and patched", operations: 6_400, make: patch },
];

fn decode_all(bytes: &[u8], limits: &DecodeLimits) -> usize {
    let (mut rest, mut count) = (bytes, 0);
    while let Ok(Decoded::Packet { packet, len }) = decode::decode(black_box(rest), limits) {
        black_box(&packet);
        rest = &rest[len..];
        count += 1;
    }
    count
}

fn decoding(bytes: Vec<u8>, limits: DecodeLimits) -> Box<dyn Body> {
    Box::new(move || assert_eq!(decode_all(&bytes, &limits), usize::from(BURST)))
}

fn publishes(qos: QoS, version: Version, with_properties: bool) -> Box<dyn Body> {
    let properties = if with_properties { client::typical_properties() } else { PropertiesBuf::new() };
    let bytes = client::burst(|_| TOPIC.to_owned(), &PAYLOAD, qos, version, &properties);
    decoding(bytes, client::limits(version))
}

fn connect() -> Box<dyn Body> {
    let packet = Packet::Connect(Box::new(Connect {
        version: Version::V5,
        bridge: false,
        clean_start: true,
        keep_alive_seconds: 60,
        properties: Properties::default(),
        client_id: "machine-0007",
        will: None,
        username: Some("machine"),
        password: Some(b"a password of some length"),
    }));
    let bytes = client::encoded(&packet, Version::V5).repeat(usize::from(BURST));
    decoding(bytes, DecodeLimits { version: None, max_packet_size: 65_536 })
}

fn subscribe() -> Box<dyn Body> {
    let filter = |filter| SubscribeFilter { filter, options: SubscriptionOptions::default() };
    let packet = Packet::Subscribe(Subscribe {
        packet_id: NonZeroU16::MIN,
        properties: Properties::default(),
        filters: smallvec![filter("site/+/machine/#"), filter(TOPIC)],
    });
    let bytes = client::encoded(&packet, Version::V311).repeat(usize::from(BURST));
    decoding(bytes, client::limits(Version::V311))
}

fn encode_publish() -> Box<dyn Body> {
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        for _ in 0..BURST {
            let packet = client::publish(TOPIC, &PAYLOAD, QoS::AtLeastOnce, 7, Properties::default());
            encode::encode(black_box(&packet), Version::V311, &mut out).unwrap();
        }
    })
}

fn publication() -> Publication<'static> {
    Publication {
        topic: TOPIC,
        properties: &[],
        payload: &PAYLOAD,
        qos: QoS::AtLeastOnce,
        retain: false,
        expiry: None,
    }
}

fn layout() -> Box<dyn Body> {
    let (publications, mut frames) = ([publication(); BURST as usize], RunFrames::default());
    Box::new(move || {
        let mut run = Run::new(black_box(&publications), &mut frames, NOW);
        black_box(run.layout(Version::V311, true));
    })
}

struct Patch {
    publications: [Publication<'static>; BURST as usize],
    frames: RunFrames,
    out: Vec<u8>,
}

/// The frames are laid out by the first receiver; what is asked is what another one costs, so 100 take each.
impl Body for Patch {
    fn run(&mut self) {
        let mut run = Run::new(&self.publications, &mut self.frames, NOW);
        let layout = run.layout(Version::V311, true);
        for _ in 0..100 {
            self.out.clear();
            for index in 0..usize::from(BURST) {
                let id = NonZeroU16::new(index as u16 + 1);
                layout.append(index, &mut self.out, QoS::AtLeastOnce, false, id);
            }
        }
        black_box(&self.out);
    }
}

fn patch() -> Box<dyn Body> {
    Box::new(Patch {
        publications: [publication(); BURST as usize],
        frames: RunFrames::default(),
        out: Vec::new(),
    })
}
