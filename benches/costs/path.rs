//! The whole path, without sockets: a publisher's burst is decoded, authorised by the shipped ACL, routed and
//! delivered, its answers are made, and the subscribers' output is taken. Subscribers acknowledge at the next call.

use std::hint::black_box;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use smallvec::smallvec;
use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tombolo::acl::compile::CompileOptions;
use tombolo::acl::confine::ListenerRole;
use tombolo::acl::eval::RuleSet;
use tombolo::auth::scram::DecoyKey;
use tombolo::broker::Broker;
use tombolo::broker::Limits;
use tombolo::broker::authenticate::Authentication;
use tombolo::broker::authenticate::Credentials;
use tombolo::broker::client::Client;
use tombolo::broker::connection::Connection;
use tombolo::broker::connection::Parts;
use tombolo::broker::identity::Identity;
use tombolo::broker::identity::Policy;
use tombolo::broker::identity::Proof;
use tombolo::broker::link_ingress::LinkIngress;
use tombolo::broker::links::Links;
use tombolo::broker::packets::Turn;
use tombolo::broker::reasons::ReasonStrings;
use tombolo::config;
use tombolo::config::Environment;
use tombolo::config::settings::SHIPPED_ACL;
use tombolo::link::message;
use tombolo::link::name;
use tombolo::link::seen::SEEN_MAX;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::Subscribe;
use tombolo::mqtt::packet::SubscribeFilter;
use tombolo::mqtt::packet::SubscriptionOptions;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::PropertiesBuf;
use tombolo::net::address::PeerAddr;
use tombolo::net::transport::Transport;
use tombolo::session::Attachment;
use tombolo::session::outbound::Output;
use tombolo::session::tally::Tally;

use crate::BURST;
use crate::NOW;
use crate::PAYLOAD;
use crate::TOPIC;
use crate::client;
use crate::harness::Bench;
use crate::harness::Body;
use crate::link;

pub(crate) const BENCHES: &[Bench] = &[
    Bench { name: "path: 64 B, QoS 0, to 1", operations: 64, make: || plain(QoS::AtMostOnce, 1) },
    Bench { name: "path: 64 B, QoS 1, to 1", operations: 64, make: || plain(QoS::AtLeastOnce, 1) },
    Bench { name: "path: 64 B, QoS 2, to 1", operations: 64, make: || plain(QoS::ExactlyOnce, 1) },
    Bench { name: "path: 64 B, QoS 0, to nobody", operations: 64, make: || plain(QoS::AtMostOnce, 0) },
    Bench { name: "path: 1 KiB, QoS 0, to 1", operations: 64, make: large },
    Bench { name: "path: 5.0 with properties, QoS 0, to 1", operations: 64, make: properties },
    Bench {
        name: "path: 64 B, QoS 0, to 100, per delivery",
        operations: 6_400,
        make: || plain(QoS::AtMostOnce, 100),
    },
    Bench {
        name: "path: 64 B, QoS 1, to 100, per delivery",
        operations: 6_400,
        make: || plain(QoS::AtLeastOnce, 100),
    },
    Bench { name: "path: 64 topics in turn, QoS 0, to 1", operations: 64, make: rotating },
    Bench { name: "path: one message per burst, QoS 0, to 1", operations: 1, make: single },
    Bench { name: "path: into the spool of a link, QoS 1", operations: 64, make: to_link },
    Bench { name: "path: out of a link, QoS 1, to 1", operations: 64, make: from_link },
];

/// The shipped file for a cluster that B is linked to: the one without links keeps everybody out of `$LINK/`.
const LINKED_ACL: &str = include_str!("../../acl/cluster-a.conf");

const SETTINGS: &str = r#"
[cluster]
name = "lab"
[data]
dir = "unused"
durability = "memory"
[mqtt]
max_inflight = 1000
[authentication]
allow_anonymous = true
[[cluster.links]]
name = "B"
server = "127.0.0.1:1"
topics = ["site/#"]
[cluster.links.peer]
username = "clink-user:B"
[cluster.links.spool]
max_bytes = "64KB"
[cluster.links.ssl]
enable = false
"#;

struct Lab {
    /// Its sockets carry nothing: a connection has to have one.
    runtime: Runtime,
    broker: Arc<Broker>,
    others: Vec<UnixStream>,
}

impl Lab {
    fn new(acl: &str) -> Self {
        let settings = config::parse("bench", SETTINGS, &Environment::default()).unwrap();
        let rules = RuleSet::compile(acl, &CompileOptions::default()).unwrap();
        let policy = Policy::new(rules, Arc::default());
        let authentication = Authentication::new(Credentials::default(), DecoyKey::new([7; 32]));
        let limits = Limits::new(&settings);
        let broker = Broker::new(policy, authentication, limits, Box::default(), None, NOW);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        // Its tasks are never polled: the link has no connection.
        let link = settings.cluster.links[0].clone();
        runtime.block_on(Links::start(&broker, link, ("lab", "lab@host"), Duration::ZERO));
        Self { runtime, broker, others: Vec::new() }
    }

    fn connect(&mut self, client_id: &str, version: Version, bound_to: Option<&str>) -> Party {
        let identity = Arc::new(Identity {
            client_id: client_id.into(),
            username: Some("machine".into()),
            peer: PeerAddr::Ip("192.0.2.7:40000".parse().unwrap()),
            listener: "tcp:default".into(),
            role: if bound_to.is_some() { ListenerRole::Link } else { ListenerRole::Client },
            common_name: None,
            attributes: None,
            is_superuser: false,
            bound_to: bound_to.map(Arc::from),
            version,
            is_bridge: false,
            by_scram: false,
            connected_unix_ms: NOW.unix_ms,
            keep_alive_seconds: 0,
            clean_start: true,
            expires_mono_ms: None,
            proof: Proof::default(),
        });
        let output = Output {
            version,
            max_packet_size: u32::MAX,
            receive_maximum: 1_000,
            bytes: Vec::new(),
            aliases: None,
        };
        let attachment = Attachment {
            output,
            session_expiry_seconds: 0,
            silence_allowed_ms: None,
            will: None,
            kept: false,
        };
        let attached = self.broker.attach(&identity, true, attachment, NOW).unwrap();
        let _inside = self.runtime.enter();
        let (ours, other) = UnixStream::pair().unwrap();
        self.others.push(other);
        let connection = Connection::new(Parts {
            broker: Arc::clone(&self.broker),
            client: Arc::clone(&attached.client),
            epoch: attached.epoch,
            identity,
            version,
            reason_strings: ReasonStrings::new(version, true, u32::MAX),
            ingress: bound_to.and_then(|peer| LinkIngress::new(&self.broker, peer, client_id)).map(Box::new),
            limits: self.broker.limits(),
            home: None,
            transport: Transport::Unix(ours),
            enhanced: None,
            throttle: None,
            tail: Vec::new(),
            greeting: Vec::new(),
            greeting_in: 0,
        });
        let client = attached.client;
        Party {
            connection,
            client,
            version,
            tally: Tally::default(),
            out: Vec::new(),
            answers: Vec::new(),
            acks: Vec::new(),
        }
    }

    fn subscribers(&mut self, filter: &str, qos: QoS, version: Version, count: usize) -> Vec<Party> {
        (0..count)
            .map(|n| {
                let mut party = self.connect(&format!("subscriber-{n}"), version, None);
                party.subscribe(filter, qos);
                party
            })
            .collect()
    }
}

/// A connection and the client at its other end.
struct Party {
    connection: Connection,
    client: Arc<Client>,
    version: Version,
    tally: Tally,
    out: Vec<u8>,
    answers: Vec<u8>,
    acks: Vec<u8>,
}

impl Party {
    fn subscribe(&mut self, filter: &str, qos: QoS) {
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        let packet = Packet::Subscribe(Subscribe {
            packet_id: NonZeroU16::MIN,
            properties: Properties::default(),
            filters: smallvec![SubscribeFilter { filter, options }],
        });
        self.handle(&client::encoded(&packet, self.version));
        self.answers.clear();
    }

    fn handle(&mut self, burst: &[u8]) {
        let used = Turn::new(&mut self.connection, NOW).handle(burst, &client::limits(self.version));
        assert_eq!(used.ok(), Some(burst.len()));
        self.answers.clear();
        self.connection.take_answers(&mut self.answers);
    }

    fn acknowledge(&mut self) {
        if !self.acks.is_empty() {
            let acks = std::mem::take(&mut self.acks);
            self.handle(&acks);
            self.acks = acks;
        }
    }

    fn take(&mut self) {
        self.out.clear();
        self.client.lock().session.take_output(&mut self.out, NOW, &mut self.tally);
        black_box(&self.out);
    }

    fn answer(&mut self) {
        self.acks.clear();
        client::respond(&self.answers, self.version, &mut self.acks);
        client::respond(&self.out, self.version, &mut self.acks);
        self.answers.clear();
    }
}

/// A publisher and a subscriber with a topic of their own on `broker`, driven by the calling thread, whichever it is.
pub(crate) fn pair(broker: &Arc<Broker>, name: &str, qos: QoS) -> Box<dyn Body> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut lab = Lab { runtime, broker: Arc::clone(broker), others: Vec::new() };
    let topic = format!("{name}/12/machine/7/state");
    let burst = client::burst(|_| topic.clone(), &PAYLOAD, qos, Version::V311, &PropertiesBuf::new());
    let mut subscriber = lab.connect(&format!("{name}-subscriber"), Version::V311, None);
    subscriber.subscribe(&format!("{name}/#"), qos);
    let publisher = lab.connect(&format!("{name}-publisher"), Version::V311, None);
    let expected = 64 * PAYLOAD.len();
    Box::new(Flow { publisher, subscribers: vec![subscriber], burst, expected, _lab: lab })
}

/// A broker with the shipped ACL, for [`pair`].
pub(crate) fn broker() -> Arc<Broker> {
    Lab::new(SHIPPED_ACL).broker
}

struct Flow {
    publisher: Party,
    subscribers: Vec<Party>,
    burst: Vec<u8>,
    /// Bytes that each subscriber gets by a call, at least: it is the path that is measured, not a refusal.
    expected: usize,
    _lab: Lab,
}

impl Body for Flow {
    fn prepare(&mut self) {
        for subscriber in &mut self.subscribers {
            subscriber.answer();
        }
    }

    fn run(&mut self) {
        self.publisher.handle(&self.burst);
        for subscriber in &mut self.subscribers {
            subscriber.acknowledge();
            subscriber.take();
            assert!(subscriber.out.len() >= self.expected);
        }
    }
}

fn flow(
    mut lab: Lab,
    burst: Vec<u8>,
    qos: QoS,
    version: Version,
    count: usize,
    expected: usize,
) -> Box<dyn Body> {
    let subscribers = lab.subscribers("site/#", qos, version, count);
    let publisher = lab.connect("publisher", version, None);
    Box::new(Flow { publisher, subscribers, burst, expected, _lab: lab })
}

fn one_topic(payload: &[u8], qos: QoS) -> Vec<u8> {
    client::burst(|_| TOPIC.to_owned(), payload, qos, Version::V311, &PropertiesBuf::new())
}

fn plain(qos: QoS, count: usize) -> Box<dyn Body> {
    flow(Lab::new(SHIPPED_ACL), one_topic(&PAYLOAD, qos), qos, Version::V311, count, 64 * PAYLOAD.len())
}

fn large() -> Box<dyn Body> {
    let burst = one_topic(&[b'x'; 1_024], QoS::AtMostOnce);
    flow(Lab::new(SHIPPED_ACL), burst, QoS::AtMostOnce, Version::V311, 1, 64 * 1_024)
}

fn properties() -> Box<dyn Body> {
    let properties = client::typical_properties();
    let burst = client::burst(|_| TOPIC.to_owned(), &PAYLOAD, QoS::AtMostOnce, Version::V5, &properties);
    flow(Lab::new(SHIPPED_ACL), burst, QoS::AtMostOnce, Version::V5, 1, 64 * PAYLOAD.len())
}

fn rotating() -> Box<dyn Body> {
    let topic = |n| format!("site/12/machine/{n}/state");
    let burst = client::burst(topic, &PAYLOAD, QoS::AtMostOnce, Version::V311, &PropertiesBuf::new());
    flow(Lab::new(SHIPPED_ACL), burst, QoS::AtMostOnce, Version::V311, 1, 64 * PAYLOAD.len())
}

fn single() -> Box<dyn Body> {
    let packet = client::publish(TOPIC, &PAYLOAD, QoS::AtMostOnce, 0, Properties::default());
    let burst = client::encoded(&packet, Version::V311);
    flow(Lab::new(SHIPPED_ACL), burst, QoS::AtMostOnce, Version::V311, 1, PAYLOAD.len())
}

/// The link is not connected: its spool is full after the warm-up, and each message displaces the oldest.
fn to_link() -> Box<dyn Body> {
    let lab = Lab::new(SHIPPED_ACL);
    let link = lab.broker.links.get("B").unwrap();
    lab.broker.routes.add_link_route(link.id, "site/#");
    flow(lab, one_topic(&PAYLOAD, QoS::AtLeastOnce), QoS::AtLeastOnce, Version::V311, 0, 0)
}

fn from_link() -> Box<dyn Body> {
    let mut lab = Lab::new(LINKED_ACL);
    let mut wrapped = Vec::new();
    message::put(&mut wrapped, &link::outgoing(TOPIC));
    let topic = name::message_topic("B");
    let burst =
        client::burst(|_| topic.clone(), &wrapped, QoS::AtLeastOnce, Version::V5, &PropertiesBuf::new());
    let subscribers = lab.subscribers("site/#", QoS::AtLeastOnce, Version::V311, 1);
    let publisher = lab.connect("clink-B-0", Version::V5, Some("B"));
    {
        // As after some time: for each id that comes one goes, and none is looked up.
        let link = lab.broker.links.get("B").unwrap();
        let mut seen = link.incoming.seen.lock();
        let place = seen.place("clink-B-0", NOW);
        for id in 0..SEEN_MAX as u128 {
            seen.is_new(place, (u128::MAX - id).to_be_bytes());
        }
    }
    let flow = Flow { publisher, subscribers, burst, expected: 64 * PAYLOAD.len(), _lab: lab };
    let id = link::outgoing(TOPIC).id;
    let ids: Vec<usize> = (0..flow.burst.len()).filter(|at| flow.burst[*at..].starts_with(&id)).collect();
    assert_eq!(ids.len(), usize::from(BURST));
    Box::new(Forwarded { flow, ids, next: 0 })
}

/// Messages of a peer: each has its own id, since one that comes again is not delivered again.
struct Forwarded {
    flow: Flow,
    /// Where in the burst they stand.
    ids: Vec<usize>,
    next: u128,
}

impl Body for Forwarded {
    fn prepare(&mut self) {
        for at in &self.ids {
            self.next += 1;
            self.flow.burst[*at..*at + 16].copy_from_slice(&self.next.to_be_bytes());
        }
        self.flow.prepare();
    }

    fn run(&mut self) {
        self.flow.run();
    }
}
