//! A peer that does what a test says, on a real socket of the loopback interface.

use std::future::Future;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::broker::links::Link;
use crate::broker::links::Links;
use crate::config::settings;
use crate::config::settings::DialledBy;
use crate::config::settings::Export;
use crate::config::settings::OnFull;
use crate::config::settings::Secret;
use crate::config::settings::ServerAddr;
use crate::metrics::Metrics;
use crate::mqtt::packet::ConnAck;
use crate::mqtt::packet::PacketId;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::property::Property;
use crate::net::clock;

/// What a step of a test may take before the test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn in_time<T>(step: impl Future<Output = T>) -> T {
    timeout(PATIENCE, step).await.expect("the step did not come about in time")
}

/// A packet of ours as the peer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Connect { client_id: String, username: Option<String>, password: Option<Vec<u8>> },
    Subscribe { id: PacketId, filter: String, qos: QoS },
    Publish(SeenPublish),
    PubAck(u16),
    Disconnect(u8),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenPublish {
    pub(crate) id: Option<PacketId>,
    pub(crate) dup: bool,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) response_topic: Option<String>,
    pub(crate) correlation_data: Option<Vec<u8>>,
}

fn seen(packet: &Packet<'_>) -> Seen {
    match packet {
        Packet::Connect(connect) => {
            assert!(connect.clean_start && connect.version == Version::V5);
            assert_eq!(connect.keep_alive_seconds, 60);
            Seen::Connect {
                client_id: connect.client_id.to_owned(),
                username: connect.username.map(ToOwned::to_owned),
                password: connect.password.map(ToOwned::to_owned),
            }
        }
        Packet::Subscribe(subscribe) => Seen::Subscribe {
            id: subscribe.packet_id,
            filter: subscribe.filters[0].filter.to_owned(),
            qos: subscribe.filters[0].options.qos,
        },
        Packet::Publish(publish) => {
            assert!(!publish.retain);
            Seen::Publish(SeenPublish {
                id: publish.packet_id,
                dup: publish.dup,
                topic: publish.topic.to_owned(),
                payload: publish.payload.to_vec(),
                response_topic: publish.properties.response_topic().map(ToOwned::to_owned),
                correlation_data: publish.properties.correlation_data().map(ToOwned::to_owned),
            })
        }
        Packet::PubAck(ack) => Seen::PubAck(ack.packet_id.get()),
        Packet::Disconnect(disconnect) => Seen::Disconnect(disconnect.reason.as_u8()),
        other => panic!("a link does not send {other:?}"),
    }
}

/// Where links dial.
pub(crate) struct Peer {
    listener: TcpListener,
}

impl Peer {
    pub(crate) async fn bind() -> Self {
        Self { listener: TcpListener::bind(("127.0.0.1", 0)).await.unwrap() }
    }

    pub(crate) fn address(&self) -> ServerAddr {
        let port = self.listener.local_addr().unwrap().port();
        ServerAddr { host: "127.0.0.1".to_owned(), port }
    }

    pub(crate) async fn accept(&self) -> Served {
        let (stream, _) = in_time(self.listener.accept()).await.unwrap();
        Served { stream, bytes: Vec::new(), version: None }
    }

    /// Accepts a connection and answers its CONNECT.
    pub(crate) async fn welcome(&self, reason: ReasonCode, properties: &[Property<'_>]) -> Served {
        let mut served = self.accept().await;
        assert!(matches!(served.next().await, Seen::Connect { .. }));
        served.connack(reason, properties).await;
        served
    }
}

/// The peer's end of one connection.
pub(crate) struct Served {
    stream: TcpStream,
    bytes: Vec<u8>,
    version: Option<Version>,
}

impl Served {
    /// The next packet; panics when the connection ends instead.
    pub(crate) async fn next(&mut self) -> Seen {
        self.read().await.expect("the link closed the connection")
    }

    /// The next packet, or `None` at the end of the connection.
    pub(crate) async fn read(&mut self) -> Option<Seen> {
        loop {
            let limits = DecodeLimits { version: self.version, max_packet_size: u32::MAX };
            let packet = match decode(&self.bytes, &limits).unwrap() {
                Decoded::Packet { packet, len } => Some((seen(&packet), len)),
                Decoded::NeedMore { .. } => None,
            };
            if let Some((packet, len)) = packet {
                self.bytes.drain(..len);
                self.version = Some(Version::V5);
                return Some(packet);
            }
            if in_time(self.stream.read_buf(&mut self.bytes)).await.unwrap() == 0 {
                return None;
            }
        }
    }

    pub(crate) async fn publish(&mut self) -> SeenPublish {
        match self.next().await {
            Seen::Publish(publish) => publish,
            other => panic!("not a PUBLISH: {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        encode(packet, Version::V5, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    pub(crate) async fn connack(&mut self, reason: ReasonCode, properties: &[Property<'_>]) {
        let mut buffer = PropertiesBuf::new();
        for property in properties {
            buffer.push(*property);
        }
        let connack = ConnAck { session_present: false, reason, properties: buffer.as_properties() };
        self.send(&Packet::ConnAck(connack)).await;
    }

    pub(crate) async fn ack(&mut self, packet_id: PacketId, reason: ReasonCode) {
        self.send(&Packet::PubAck(Ack { packet_id, reason, properties: Properties::EMPTY })).await;
    }
}

/// A link of cluster `A` to cluster `B`.
pub(crate) fn settings(servers: Vec<ServerAddr>) -> settings::Link {
    settings::Link {
        name: "B".to_owned(),
        enable: true,
        servers,
        dialled_by: DialledBy::Both,
        clientid: "clink-A-".to_owned(),
        username: Some("clink-user:A".to_owned()),
        password: Some(Secret::new("hunter2")),
        topics: vec!["t/#".to_owned()],
        export: Export::Entitled,
        relay: false,
        reach: Vec::new(),
        retained: false,
        pool_size: 1,
        max_inflight: Some(32),
        trust: settings::Trust::Configured,
        told: settings::Told::default(),
        demanded: crate::link::extension::Capabilities::NONE,
        granted: None,
        peer: settings::Peer {
            clientid: "clink-B-".to_owned(),
            username: None,
            cert_sha256: Vec::new(),
            cert_cn: None,
            allow_unauthenticated: true,
        },
        quota: settings::Quota {
            connections: 16,
            actors: 4,
            routes: 1_000,
            rates: settings::RateLimits::default(),
        },
        spool: settings::Spool {
            max_bytes: 1_000_000,
            max_age: None,
            on_full: OnFull::DropOldest,
            qos0: false,
        },
        ssl: None,
        allow_insecure: true,
        of_emqx: serde_json::Value::Null,
        written: settings::Written::default(),
    }
}

pub(crate) fn link(settings: settings::Link) -> Arc<Link> {
    Links::default().build(settings, "A", "a@host", &Metrics::new(clock::now()))
}

fn client_of(address: &ServerAddr) -> Dialer {
    Dialer::new(link(settings(vec![address.clone()])), "client")
}

#[tokio::test]
async fn connack_sets_the_limits_and_refusals_name_their_kind() {
    let peer = Peer::bind().await;
    let dialer = client_of(&peer.address());
    let properties = [Property::ReceiveMaximum(7), Property::MaximumPacketSize(5_000)];
    let (dialled, _served) = tokio::join!(dialer.dial(), peer.welcome(ReasonCode::Success, &properties));
    let (_, accepted) = dialled.unwrap();
    assert_eq!(accepted, Accepted { receive_maximum: 7, maximum_packet_size: Some(5_000) });
    let table = [
        (ReasonCode::BadUserNameOrPassword, LinkState::Unauthenticated, ReconnectReason::Auth),
        (ReasonCode::NotAuthorized, LinkState::Unauthenticated, ReconnectReason::Auth),
        (ReasonCode::ServerBusy, LinkState::Unreachable, ReconnectReason::Refused),
        (ReasonCode::QuotaExceeded, LinkState::Rejected, ReconnectReason::Refused),
    ];
    for (code, state, reason) in table {
        let (dialled, _served) = tokio::join!(dialer.dial(), peer.welcome(code, &[]));
        let error = dialled.unwrap_err();
        assert_eq!((error.link_state(), error.reason()), (state, reason), "{error}");
        assert_eq!(error.reason_code(), Some(code.as_u8()));
    }
}

#[tokio::test]
async fn a_port_without_a_server_and_a_server_of_another_protocol_are_told_apart() {
    let peer = Peer::bind().await;
    let dialer = client_of(&peer.address());
    let answer = async {
        let mut served = peer.accept().await;
        served.next().await;
        served.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        served
    };
    let (dialled, _served) = tokio::join!(dialer.dial(), answer);
    assert_eq!(dialled.unwrap_err().reason(), ReconnectReason::Protocol);
    drop(peer);
    let error = dialer.dial().await.unwrap_err();
    assert_eq!((error.link_state(), error.reason()), (LinkState::Unreachable, ReconnectReason::Refused));
}

#[tokio::test]
async fn a_peer_that_floods_us_is_not_read_while_it_takes_no_answers() {
    const COUNT: usize = 100_000;
    let peer = Peer::bind().await;
    let dialer = client_of(&peer.address());
    let (dialled, served) = tokio::join!(dialer.dial(), peer.welcome(ReasonCode::Success, &[]));
    let (mut client, _) = dialled.unwrap();
    let mut packet = Vec::new();
    let publish = Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "t",
        packet_id: Some(PacketId::MIN),
        properties: Properties::EMPTY,
        payload: b"",
    });
    encode(&publish, Version::V5, &mut packet).unwrap();
    let (mut from_us, mut to_us) = served.stream.into_split();
    let flood = tokio::spawn(async move { to_us.write_all(&packet.repeat(COUNT)).await.map(|()| to_us) });
    // Nothing is written yet: what was read is all that can have been answered.
    in_time(poll_fn(|cx| {
        loop {
            let read = client.read(cx, clock::now(), |_| ()).unwrap();
            if !read && client.unsent.len() > ANSWER_BYTES_MAX {
                return Poll::Ready(());
            }
            if !read {
                return Poll::Pending;
            }
        }
    }))
    .await;
    assert!(client.unsent.len() <= ANSWER_BYTES_MAX + SCRATCH_BYTES, "{}", client.unsent.len());
    // Once the answers are out, reading goes on to the end.
    let mut answered = 0;
    let mut moving = poll_fn(|cx| {
        let now = clock::now();
        while client.write(cx, now).unwrap() > 0 || client.read(cx, now, |_| ()).unwrap() {}
        Poll::<()>::Pending
    });
    in_time(async {
        let mut bytes = vec![0; 64 * 1024];
        while answered < COUNT * 4 {
            tokio::select! {
                () = &mut moving => unreachable!(),
                read = from_us.read(&mut bytes) => answered += read.unwrap(),
            }
        }
    })
    .await;
    flood.await.unwrap().unwrap();
}

#[test]
fn keep_alive_asks_before_it_gives_up() {
    let now = Now { mono_ms: 1_000, unix_ms: 0 };
    let mut keep_alive = KeepAlive::new(60_000, now);
    assert_eq!(keep_alive.poll_timeout(), 46_000);
    // While we send, only what is heard counts.
    keep_alive.sent_ms = 40_000;
    assert_eq!(keep_alive.poll_timeout(), 46_000);
    keep_alive.pinged = true;
    assert_eq!(keep_alive.poll_timeout(), 91_000);
}
