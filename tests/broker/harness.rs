//! What every chapter needs: a broker with its files in a folder of its own, and a client that speaks packets.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;

use tombolo::broker::server::ReloadError;
use tombolo::broker::server::Server;
use tombolo::config;
use tombolo::config::Diff;
use tombolo::config::Environment;
use tombolo::config::settings::Settings;
use tombolo::mqtt::decode;
use tombolo::mqtt::decode::DecodeLimits;
use tombolo::mqtt::decode::Decoded;
use tombolo::mqtt::encode;
use tombolo::mqtt::packet::Ack;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketId;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::Subscribe;
use tombolo::mqtt::packet::SubscribeFilter;
use tombolo::mqtt::packet::SubscriptionOptions;
use tombolo::mqtt::packet::Unsubscribe;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::PropertiesBuf;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::property::PropertyContext;
use tombolo::mqtt::reason::ReasonCode;
use tombolo::net::clock;
use tombolo::storage::Storage;

pub(crate) const Q0: QoS = QoS::AtMostOnce;
pub(crate) const Q1: QoS = QoS::AtLeastOnce;
pub(crate) const Q2: QoS = QoS::ExactlyOnce;
pub(crate) const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// The longest wait for anything: a bound, not a measure.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The files and settings of a broker that is to be started.
pub(crate) struct Setup {
    folder: TempDir,
    cluster: String,
    data: String,
    io: String,
    mqtt: String,
    authentication: String,
    authorization: String,
    listeners: String,
    links: String,
}

impl Setup {
    /// One plain listener, anonymous clients, everything allowed.
    pub(crate) fn new() -> Self {
        let setup = Self {
            folder: tempfile::tempdir().unwrap(),
            cluster: "A".to_owned(),
            // Nothing is stored unless a test is about that.
            data: "durability = \"memory\"".to_owned(),
            // So that what an answer says is in the metrics when it comes. `threads.rs` has more of them.
            io: "threads = 1".to_owned(),
            mqtt: String::new(),
            authentication: "allow_anonymous = true".to_owned(),
            authorization: String::new(),
            listeners: "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"".to_owned(),
            links: String::new(),
        };
        setup.acl("{allow, all}.")
    }

    /// Our cluster's name.
    pub(crate) fn cluster(mut self, name: &str) -> Self {
        self.cluster = name.to_owned();
        self
    }

    /// Settings of `[data]`, beside the directory.
    #[allow(dead_code, reason = "not every user of this file stores anything")]
    pub(crate) fn data(mut self, text: &str) -> Self {
        self.data = text.to_owned();
        self
    }

    /// Settings of `[io]`.
    pub(crate) fn io(mut self, text: &str) -> Self {
        self.io = text.to_owned();
        self
    }

    /// Settings of `[mqtt]`.
    pub(crate) fn mqtt(mut self, text: &str) -> Self {
        self.mqtt = text.to_owned();
        self
    }

    /// Settings of `[authentication]`.
    pub(crate) fn authentication(mut self, text: &str) -> Self {
        self.authentication = text.replace("{dir}", self.folder.path().to_str().unwrap());
        self
    }

    /// Further settings of `[authorization]`.
    pub(crate) fn authorization(mut self, text: &str) -> Self {
        self.authorization = text.to_owned();
        self
    }

    /// The listeners, as a whole.
    pub(crate) fn listeners(mut self, text: &str) -> Self {
        self.listeners = text.replace("{dir}", self.folder.path().to_str().unwrap());
        self
    }

    /// The links, as a whole.
    pub(crate) fn links(mut self, text: &str) -> Self {
        self.links = text.replace("{dir}", self.folder.path().to_str().unwrap());
        self
    }

    /// The rules.
    pub(crate) fn acl(self, text: &str) -> Self {
        self.file("acl.conf", text);
        self
    }

    /// Writes a file beside the rules.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Where such a file is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The settings as a file has them.
    pub(crate) fn text(&self) -> String {
        let dir = self.folder.path().display();
        let Self { cluster, data, io, mqtt, authentication, authorization, listeners, links, .. } = self;
        format!(
            "[cluster]\nname = \"{cluster}\"\n[data]\ndir = \"{dir}/data\"\n{data}\n[io]\n{io}\n{listeners}\n[mqtt]\n{mqtt}\n\
             [authentication]\n{authentication}\n\
             [authorization]\nfile = \"{dir}/acl.conf\"\n{authorization}\n{links}\n"
        )
    }

    pub(crate) fn settings(&self) -> Settings {
        let text = self.text();
        config::parse("test.toml", &text, &Environment::default())
            .unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"))
    }

    pub(crate) async fn start(self) -> Running {
        let server = Server::start(self.settings()).await.unwrap();
        Running { server, setup: Some(self) }
    }

    /// The same on a storage of the caller's.
    #[allow(dead_code, reason = "not every user of this file has one")]
    pub(crate) async fn start_on(self, storage: impl Storage + 'static) -> Running {
        let server = Server::start_on(self.settings(), Some(Box::new(storage))).await.unwrap();
        Running { server, setup: Some(self) }
    }
}

/// A broker that runs.
pub(crate) struct Running {
    pub(crate) server: Server,
    setup: Option<Setup>,
}

/// A broker with one plain listener that allows everything.
pub(crate) async fn broker() -> Running {
    Setup::new().start().await
}

impl Running {
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        self.server.address(listener).unwrap()
    }

    /// Where a file beside the rules is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.setup.as_ref().unwrap().path(name)
    }

    /// Stops, and starts again on the same files.
    #[allow(dead_code, reason = "not every user of this file does that")]
    pub(crate) async fn restart(self) -> Self {
        self.stop().await.start().await
    }

    /// Stops, and leaves the files.
    #[allow(dead_code, reason = "not every user of this file does that")]
    pub(crate) async fn stop(self) -> Setup {
        self.server.stop().await;
        self.setup.unwrap()
    }

    /// Puts a change of the files or settings in force.
    pub(crate) async fn reload(&mut self, change: impl FnOnce(Setup) -> Setup) -> Result<Diff, ReloadError> {
        let setup = change(self.setup.take().unwrap());
        let result = self.server.reload(setup.settings()).await;
        self.setup = Some(setup);
        result
    }

    /// A connection to a plain listener, without a CONNECT yet.
    pub(crate) async fn open_at(&self, listener: &str) -> Client {
        let stream = TcpStream::connect(self.address(listener)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client::over(stream)
    }

    pub(crate) async fn open(&self) -> Client {
        self.open_at("tcp:default").await
    }

    /// A connected client with a session of its own.
    pub(crate) async fn join(&self, version: Version, id: &str) -> Client {
        let mut client = self.open().await;
        assert_eq!(client.connect(&hello(version, id)).await, Got::ConnAck(false, 0));
        client
    }

    /// A connected client with a session that stays, in 5.0 for 1,000 seconds. Also whether there was one.
    pub(crate) async fn stay(&self, version: Version, id: &str) -> (Client, bool) {
        let expiry = properties(&[Property::SessionExpiryInterval(1_000)]);
        let asked = Connect {
            clean_start: false,
            properties: if version == Version::V5 { expiry.as_properties() } else { Properties::EMPTY },
            ..hello(version, id)
        };
        self.try_stay(&asked).await
    }

    pub(crate) async fn try_stay(&self, asked: &Connect<'_>) -> (Client, bool) {
        let mut client = self.open().await;
        match client.connect(asked).await {
            Got::ConnAck(present, 0) => (client, present),
            other => panic!("{other:?}"),
        }
    }

    /// One sample of the metrics: `name{labels}` as written there; 0 if it is not there.
    pub(crate) fn metric(&self, sample: &str) -> u64 {
        let text = self.server.broker().render_metrics(clock::now());
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    /// Waits until a sample has a value.
    pub(crate) async fn until_metric(&self, sample: &str, value: u64) {
        let reached = time::timeout(LIMIT, async {
            while self.metric(sample) != value {
                time::sleep(Duration::from_millis(2)).await;
            }
        });
        assert!(reached.await.is_ok(), "{sample} is {}, not {value}", self.metric(sample));
    }
}

/// The broker's clock has moved on, by two milliseconds at least.
#[allow(dead_code, reason = "not every user of this file waits for the clock")]
pub(crate) async fn a_moment() {
    let before = clock::now().mono_ms;
    while clock::now().mono_ms < before + 2 {
        tokio::task::yield_now().await;
    }
}

/// A CONNECT with Clean Start, Keep Alive off and nothing else.
pub(crate) fn hello(version: Version, id: &str) -> Connect<'_> {
    Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive_seconds: 0,
        properties: Properties::EMPTY,
        client_id: id,
        will: None,
        username: None,
        password: None,
    }
}

pub(crate) fn properties(list: &[Property<'_>]) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    for property in list {
        properties.push(*property);
    }
    properties
}

pub(crate) fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions { qos, ..SubscriptionOptions::default() }
}

pub(crate) fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

/// A QoS 0 PUBLISH.
pub(crate) fn message<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    Publish {
        dup: false,
        qos: Q0,
        retain: false,
        topic,
        packet_id: None,
        properties: Properties::EMPTY,
        payload,
    }
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) packet_id: Option<u16>,
    pub(crate) properties: Vec<u8>,
}

impl Message {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }

    pub(crate) fn properties(&self) -> Properties<'_> {
        Properties::parse(&self.properties, PropertyContext::Publish).unwrap()
    }
}

/// What came from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Got {
    /// Session Present and Reason Code; before 5.0 what the return code means.
    ConnAck(bool, u8),
    Publish(Message),
    Ack(PacketType, u16, u8),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16, Vec<u8>),
    PingResp,
    Disconnect(u8),
    /// Reason Code and Authentication Data.
    Auth(u8, Vec<u8>),
    Closed,
}

fn owned(packet: &Packet<'_>) -> Got {
    let ack = |kind, ack: &Ack<'_>| Got::Ack(kind, ack.packet_id.get(), ack.reason.as_u8());
    let codes = |reasons: &[ReasonCode]| reasons.iter().map(|reason| reason.as_u8()).collect();
    match packet {
        Packet::ConnAck(connack) => Got::ConnAck(connack.session_present, connack.reason.as_u8()),
        Packet::Publish(publish) => Got::Publish(Message {
            topic: publish.topic.to_owned(),
            payload: publish.payload.to_vec(),
            qos: publish.qos,
            dup: publish.dup,
            retain: publish.retain,
            packet_id: publish.packet_id.map(PacketId::get),
            properties: publish.properties.as_bytes().to_vec(),
        }),
        Packet::PubAck(packet) => ack(PacketType::PubAck, packet),
        Packet::PubRec(packet) => ack(PacketType::PubRec, packet),
        Packet::PubRel(packet) => ack(PacketType::PubRel, packet),
        Packet::PubComp(packet) => ack(PacketType::PubComp, packet),
        Packet::SubAck(suback) => Got::SubAck(suback.packet_id.get(), codes(&suback.reasons)),
        Packet::UnsubAck(unsuback) => Got::UnsubAck(unsuback.packet_id.get(), codes(&unsuback.reasons)),
        Packet::PingResp => Got::PingResp,
        Packet::Disconnect(disconnect) => Got::Disconnect(disconnect.reason.as_u8()),
        Packet::Auth(auth) => {
            let data = auth.properties.authentication_data().unwrap_or_default();
            Got::Auth(auth.reason.as_u8(), data.to_vec())
        }
        other => panic!("a Server does not send {other:?}"),
    }
}

pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A client that does what it is told and nothing by itself.
pub(crate) struct Client {
    pub(crate) io: Box<dyn Io>,
    pub(crate) version: Version,
    input: Vec<u8>,
    stash: VecDeque<Got>,
    next_id: u16,
    /// How long to wait for a packet.
    pub(crate) patience: Duration,
    /// The properties of the CONNACK, DISCONNECT, AUTH, SUBACK, PUBACK or PUBREC that came last.
    pub(crate) properties: Vec<u8>,
}

impl Client {
    pub(crate) fn over(io: impl Io + 'static) -> Self {
        Self {
            io: Box::new(io),
            version: Version::V5,
            input: Vec::new(),
            stash: VecDeque::new(),
            next_id: 0,
            patience: LIMIT,
            properties: Vec::new(),
        }
    }

    pub(crate) fn fresh_id(&mut self) -> PacketId {
        self.next_id += 1;
        id(self.next_id)
    }

    pub(crate) fn encoded(&self, packet: &Packet<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode::encode(packet, self.version, &mut bytes).unwrap();
        bytes
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        time::timeout(LIMIT, self.io.write_all(bytes)).await.expect("the broker reads").unwrap();
    }

    pub(crate) async fn send(&mut self, packet: &Packet<'_>) {
        let bytes = self.encoded(packet);
        self.write(&bytes).await;
    }

    /// Sends CONNECT and gives the answer.
    pub(crate) async fn connect(&mut self, connect: &Connect<'_>) -> Got {
        self.version = connect.version;
        self.send(&Packet::Connect(Box::new(connect.clone()))).await;
        self.next().await
    }

    /// The next packet, or the end of the connection.
    pub(crate) async fn next(&mut self) -> Got {
        match self.stash.pop_front() {
            Some(got) => got,
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Got {
        let limits = DecodeLimits { version: Some(self.version), max_packet_size: u32::MAX };
        loop {
            let decoded = match decode::decode(&self.input, &limits).unwrap() {
                Decoded::Packet { packet, len } => {
                    let properties = match &packet {
                        Packet::ConnAck(connack) => Some(connack.properties),
                        Packet::Disconnect(disconnect) => Some(disconnect.properties),
                        Packet::SubAck(suback) => Some(suback.properties),
                        Packet::Auth(auth) => Some(auth.properties),
                        Packet::PubAck(ack) | Packet::PubRec(ack) => Some(ack.properties),
                        _ => None,
                    };
                    if let Some(properties) = properties {
                        self.properties = properties.as_bytes().to_vec();
                    }
                    Some((owned(&packet), len))
                }
                Decoded::NeedMore { .. } => None,
            };
            if let Some((got, len)) = decoded {
                self.input.drain(..len);
                return got;
            }
            let mut bytes = vec![0; 64 * 1024];
            let read = time::timeout(self.patience, self.io.read(&mut bytes)).await;
            match read.unwrap_or_else(|_| panic!("nothing came in {:?}", self.patience)) {
                Ok(0) | Err(_) => return Got::Closed,
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
            }
        }
    }

    /// The next packet that `wanted` takes; what comes before stays for later.
    pub(crate) async fn seek(&mut self, wanted: impl Fn(&Got) -> bool) -> Got {
        let mut passed = VecDeque::new();
        loop {
            let got = self.next().await;
            if wanted(&got) {
                passed.append(&mut self.stash);
                self.stash = passed;
                return got;
            }
            assert_ne!(got, Got::Closed, "closed after {passed:?}");
            passed.push_back(got);
        }
    }

    /// The next packet, which is a message. It is not acknowledged.
    pub(crate) async fn take(&mut self) -> Message {
        match self.next().await {
            Got::Publish(message) => message,
            other => panic!("a message was expected, not {other:?}"),
        }
    }

    /// The next packet, which is a message; acknowledged to the end.
    pub(crate) async fn receive(&mut self) -> Message {
        let message = self.take().await;
        let Some(packet_id) = message.packet_id else { return message };
        if message.qos == Q1 {
            self.ack(PacketType::PubAck, packet_id, ReasonCode::Success).await;
            return message;
        }
        self.ack(PacketType::PubRec, packet_id, ReasonCode::Success).await;
        let released = Got::Ack(PacketType::PubRel, packet_id, 0);
        self.seek(|got| *got == released).await;
        self.ack(PacketType::PubComp, packet_id, ReasonCode::Success).await;
        message
    }

    pub(crate) async fn ack(&mut self, kind: PacketType, packet_id: u16, reason: ReasonCode) {
        let mut bytes = Vec::new();
        encode::encode_ack(kind, self.version, id(packet_id), reason, &mut bytes);
        self.write(&bytes).await;
    }

    /// The payloads of the next messages, acknowledged.
    pub(crate) async fn receive_texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            texts.push(self.receive().await.text().to_owned());
        }
        texts
    }

    /// Publishes and sees the acknowledgement to its end. Its Reason Code.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS) -> u8 {
        self.publish_as(Publish { qos, ..message(topic, payload) }).await
    }

    /// The same with every field; a Packet Identifier is added.
    pub(crate) async fn publish_as(&mut self, mut publish: Publish<'_>) -> u8 {
        if publish.qos == Q0 {
            self.send(&Packet::Publish(publish)).await;
            return 0;
        }
        let packet_id = *publish.packet_id.get_or_insert_with(|| self.fresh_id());
        self.send(&Packet::Publish(publish)).await;
        let kind = if publish.qos == Q1 { PacketType::PubAck } else { PacketType::PubRec };
        let answer =
            self.seek(|got| matches!(got, Got::Ack(k, n, _) if *k == kind && *n == packet_id.get())).await;
        let Got::Ack(_, _, reason) = answer else { unreachable!() };
        if publish.qos == Q2 && reason < 0x80 {
            self.ack(PacketType::PubRel, packet_id.get(), ReasonCode::Success).await;
            let done = Got::Ack(PacketType::PubComp, packet_id.get(), 0);
            self.seek(|got| *got == done).await;
        }
        reason
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) -> u8 {
        self.subscribe_as(&[(filter, options(qos))], None).await[0]
    }

    /// Subscribes; the Reason Codes.
    pub(crate) async fn subscribe_as(
        &mut self,
        filters: &[(&str, SubscriptionOptions)],
        identifier: Option<u32>,
    ) -> Vec<u8> {
        let packet_id = self.fresh_id();
        let list =
            properties(&identifier.map(Property::SubscriptionIdentifier).into_iter().collect::<Vec<_>>());
        self.send(&Packet::Subscribe(Subscribe {
            packet_id,
            properties: list.as_properties(),
            filters: filters.iter().map(|&(filter, options)| SubscribeFilter { filter, options }).collect(),
        }))
        .await;
        match self.seek(|got| matches!(got, Got::SubAck(n, _) if *n == packet_id.get())).await {
            Got::SubAck(_, reasons) => reasons,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let packet_id = self.fresh_id();
        self.send(&Packet::Unsubscribe(Unsubscribe {
            packet_id,
            properties: Properties::EMPTY,
            filters: filters.iter().copied().collect(),
        }))
        .await;
        match self.seek(|got| matches!(got, Got::UnsubAck(n, _) if *n == packet_id.get())).await {
            Got::UnsubAck(_, reasons) => reasons,
            other => panic!("{other:?}"),
        }
    }

    /// Nothing is on its way: what was delivered before a PINGREQ arrives is sent before its PINGRESP.
    pub(crate) async fn quiet(&mut self) {
        self.send(&Packet::PingReq).await;
        assert_eq!(self.next().await, Got::PingResp);
    }

    /// The broker says why, if the version can, and closes.
    pub(crate) async fn refused(&mut self, reason: u8) {
        if self.version == Version::V5 {
            assert_eq!(self.next().await, Got::Disconnect(reason));
        }
        assert_eq!(self.next().await, Got::Closed);
    }

    /// Ends the connection without a DISCONNECT, once the broker has handled everything sent.
    pub(crate) async fn vanish(mut self) {
        self.quiet().await;
        drop(self);
    }

    /// Sends DISCONNECT 0x00 and waits for the end.
    pub(crate) async fn leave(mut self) {
        self.send(&Packet::Disconnect(tombolo::mqtt::packet::Disconnect {
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }))
        .await;
        assert_eq!(self.next().await, Got::Closed);
    }
}
