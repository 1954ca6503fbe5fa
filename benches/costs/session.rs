//! One client's Session State: deliveries, acknowledgements, and what waits for a client that is away.

use std::hint::black_box;

use tombolo::mqtt::decode;
use tombolo::mqtt::decode::Decoded;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::Version;
use tombolo::session::Attachment;
use tombolo::session::Bounds;
use tombolo::session::Ending;
use tombolo::session::Session;
use tombolo::session::frames::Run;
use tombolo::session::frames::RunFrames;
use tombolo::session::message::Publication;
use tombolo::session::outbound::Grant;
use tombolo::session::outbound::Output;
use tombolo::session::queue::QueueLimits;
use tombolo::session::queue::WhenFull;
use tombolo::session::tally::Tally;

use crate::BURST;
use crate::NOW;
use crate::PAYLOAD;
use crate::TOPIC;
use crate::client;
use crate::harness::Bench;
use crate::harness::Body;

pub(crate) const BENCHES: &[Bench] = &[
    Bench { name: "session: deliver QoS 0", operations: 64, make: || delivering(QoS::AtMostOnce, 0) },
    Bench {
        name: "session: deliver QoS 1, acknowledged",
        operations: 64,
        make: || delivering(QoS::AtLeastOnce, 0),
    },
    Bench {
        name: "session: deliver QoS 2, acknowledged",
        operations: 64,
        make: || delivering(QoS::ExactlyOnce, 0),
    },
    Bench {
        name: "session: deliver QoS 1, persistent, acknowledged",
        operations: 64,
        make: || delivering(QoS::AtLeastOnce, 3_600),
    },
    Bench {
        name: "session: queue QoS 1 for a client that is away",
        operations: 64,
        make: || Box::new(Away(receiver(QoS::AtLeastOnce, 3_600))),
    },
    Bench {
        name: "session: drain QoS 1 to a client that came back",
        operations: 64,
        make: || Box::new(Back(receiver(QoS::AtLeastOnce, 3_600))),
    },
];

/// A session with a client that acknowledges at the next call.
struct Receiver {
    session: Session,
    qos: QoS,
    expiry_seconds: u32,
    frames: RunFrames,
    tally: Tally,
    out: Vec<u8>,
    acks: Vec<u8>,
}

fn receiver(qos: QoS, expiry_seconds: u32) -> Receiver {
    let limits = QueueLimits {
        messages_max: 100_000,
        bytes_max: 1 << 30,
        wait_ms_max: None,
        when_full: WhenFull::DropOldest,
    };
    let mut receiver = Receiver {
        session: Session::new(Bounds::new(limits, true)),
        qos,
        expiry_seconds,
        frames: RunFrames::default(),
        tally: Tally::default(),
        out: Vec::new(),
        acks: Vec::new(),
    };
    receiver.attach();
    receiver
}

fn delivering(qos: QoS, expiry_seconds: u32) -> Box<dyn Body> {
    Box::new(receiver(qos, expiry_seconds))
}

impl Receiver {
    fn attach(&mut self) {
        let output = Output {
            version: Version::V311,
            max_packet_size: u32::MAX,
            receive_maximum: u16::MAX,
            bytes: Vec::new(),
            aliases: None,
        };
        let session_expiry_seconds = self.expiry_seconds;
        self.session.attach(
            Attachment { output, session_expiry_seconds, silence_allowed_ms: None, will: None, kept: false },
            NOW,
        );
    }

    fn deliver(&mut self) {
        let publication = Publication {
            topic: TOPIC,
            properties: &[],
            payload: &PAYLOAD,
            qos: self.qos,
            retain: false,
            expiry: None,
        };
        let grant = Grant { qos: self.qos, retain_as_published: false, subscription_ids: &[], shared: None };
        let publications = [publication; BURST as usize];
        let mut run = Run::new(&publications, &mut self.frames, NOW);
        self.session.deliver_run(&mut run, &grant, NOW, &mut self.tally);
    }

    fn take(&mut self) {
        self.out.clear();
        self.session.take_output(&mut self.out, NOW, &mut self.tally);
        black_box(&self.out);
    }

    /// As a driver: every acknowledgement is decoded and told. PUBCOMP follows PUBREC at once here.
    fn acknowledge(&mut self) {
        let mut rest = &self.acks[..];
        while let Ok(Decoded::Packet { packet, len }) = decode::decode(rest, &client::limits(Version::V311)) {
            rest = &rest[len..];
            let done = match packet {
                Packet::PubAck(ack) => self.session.handle_puback(ack.packet_id),
                Packet::PubRec(ack) => {
                    self.session.handle_pubrec(ack.packet_id, ack.reason);
                    self.session.handle_pubcomp(ack.packet_id)
                }
                _ => false,
            };
            assert!(done);
        }
    }

    fn answer(&mut self) {
        self.acks.clear();
        client::respond(&self.out, Version::V311, &mut self.acks);
    }
}

impl Body for Receiver {
    fn prepare(&mut self) {
        self.answer();
    }

    fn run(&mut self) {
        self.acknowledge();
        self.deliver();
        self.take();
    }
}

struct Away(Receiver);

impl Body for Away {
    fn prepare(&mut self) {
        self.0.attach();
        self.0.take();
        self.0.answer();
        self.0.acknowledge();
        self.0.session.detach(Ending::WithWill, NOW);
    }

    fn run(&mut self) {
        self.0.deliver();
    }
}

struct Back(Receiver);

impl Body for Back {
    fn prepare(&mut self) {
        self.0.answer();
        self.0.acknowledge();
        self.0.session.detach(Ending::WithWill, NOW);
        self.0.deliver();
        self.0.attach();
    }

    fn run(&mut self) {
        self.0.take();
    }
}
