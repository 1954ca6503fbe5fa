//! Talks to a broker with rumqttc: `interop-rumqttc PORT 4|5 FEATURE`. Ends with 0, or says what was not as it should be.

use std::process::ExitCode;
use std::time::Duration;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Close below the broker's default `mqtt.max_packet_size`.
const LARGE: usize = 1024 * 1024 - 256;

/// What was expected and did not happen.
type Failure = String;

/// A message as it came: topic, payload, QoS, RETAIN, DUP.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    dup: bool,
}

impl Message {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

fn expect_equal<T: PartialEq + std::fmt::Debug>(found: T, wanted: T, what: &str) -> Result<(), Failure> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: got {found:?}, wanted {wanted:?}")) }
}

/// The features, once for each of the two clients: their interfaces differ in types only.
macro_rules! features {
    ($version:ident, $number:literal, $client:path, $qos:path, $packet:path, $topic:expr, $options:expr, $will:expr) => {
        mod $version {
            use std::collections::VecDeque;

            use $client as library;
            use $packet as Packet;
            use $qos as QoS;

            use super::Failure;
            use super::LARGE;
            use super::LIMIT;
            use super::Message;
            use super::expect_equal;

            /// What a connection is to be.
            #[derive(Default)]
            struct How<'a> {
                id: &'a str,
                lasting: bool,
                will: Option<&'a str>,
            }

            struct Peer {
                client: library::AsyncClient,
                events: library::EventLoop,
                messages: VecDeque<Message>,
                session_present: bool,
            }

            fn qos(number: u8) -> QoS {
                match number {
                    0 => QoS::AtMostOnce,
                    1 => QoS::AtLeastOnce,
                    _ => QoS::ExactlyOnce,
                }
            }

            fn topic(rest: &str) -> String {
                format!("rumqttc/{}/{rest}", $number)
            }

            impl Peer {
                async fn connect(port: u16, how: How<'_>) -> Result<Self, Failure> {
                    let id = format!("rumqttc-{}-{}", $number, how.id);
                    let mut options = library::MqttOptions::new(id, "127.0.0.1", port);
                    options.set_keep_alive(std::time::Duration::from_secs(60));
                    #[allow(clippy::redundant_closure_call, reason = "an expression of the macro's user")]
                    ($options)(&mut options, how.lasting);
                    if let Some(name) = how.will {
                        #[allow(clippy::redundant_closure_call, reason = "an expression of the macro's user")]
                        options.set_last_will(($will)(name));
                    }
                    let (client, events) = library::AsyncClient::new(options, 64);
                    let mut peer = Self { client, events, messages: VecDeque::new(), session_present: false };
                    peer.until("CONNACK", |packet| matches!(packet, Packet::ConnAck(_))).await?;
                    Ok(peer)
                }

                /// Polls until a packet of this kind has come.
                async fn until(&mut self, what: &str, wanted: impl Fn(&Packet) -> bool) -> Result<(), Failure> {
                    let polling = async {
                        loop {
                            let event = self.events.poll().await.map_err(|error| format!("{what}: {error}"))?;
                            let library::Event::Incoming(packet) = event else { continue };
                            match &packet {
                                Packet::Publish(publish) => self.messages.push_back(Message {
                                    #[allow(clippy::redundant_closure_call, reason = "as above")]
                                    topic: ($topic)(&publish.topic),
                                    payload: publish.payload.to_vec(),
                                    qos: publish.qos as u8,
                                    retain: publish.retain,
                                    dup: publish.dup,
                                }),
                                Packet::ConnAck(answer) => self.session_present = answer.session_present,
                                _ => {}
                            }
                            if wanted(&packet) {
                                return Ok(());
                            }
                        }
                    };
                    let in_time = tokio::time::timeout(LIMIT, polling).await;
                    in_time.unwrap_or_else(|_| Err(format!("{what} did not come")))
                }

                async fn subscribe(&mut self, filter: &str, level: u8) -> Result<(), Failure> {
                    self.client.subscribe(filter, qos(level)).await.map_err(|error| error.to_string())?;
                    self.until("SUBACK", |packet| matches!(packet, Packet::SubAck(_))).await
                }

                async fn publish(
                    &mut self,
                    topic: &str,
                    payload: impl Into<Vec<u8>>,
                    level: u8,
                    retain: bool,
                ) -> Result<(), Failure> {
                    let sent = self.client.publish(topic, qos(level), retain, payload.into()).await;
                    sent.map_err(|error| error.to_string())?;
                    match level {
                        // Only what asks for an answer shows that it has been sent.
                        0 => self.flush().await,
                        1 => self.until("PUBACK", |packet| matches!(packet, Packet::PubAck(_))).await,
                        _ => self.until("PUBCOMP", |packet| matches!(packet, Packet::PubComp(_))).await,
                    }
                }

                async fn flush(&mut self) -> Result<(), Failure> {
                    let sent = self.client.publish(topic("flush"), QoS::AtLeastOnce, false, "").await;
                    sent.map_err(|error| error.to_string())?;
                    self.until("PUBACK", |packet| matches!(packet, Packet::PubAck(_))).await
                }

                async fn take(&mut self) -> Result<Message, Failure> {
                    if self.messages.is_empty() {
                        self.until("a message", |packet| matches!(packet, Packet::Publish(_))).await?;
                    }
                    // The acknowledgement goes out with the next poll at the latest.
                    self.messages.pop_front().ok_or_else(|| "no message".to_owned())
                }

                async fn take_texts(&mut self, count: usize) -> Result<Vec<String>, Failure> {
                    let mut texts = Vec::new();
                    for _ in 0..count {
                        texts.push(self.take().await?.text());
                    }
                    Ok(texts)
                }

                /// Sends DISCONNECT and sees it go.
                async fn leave(mut self) -> Result<(), Failure> {
                    self.client.disconnect().await.map_err(|error| error.to_string())?;
                    // Ends with the connection.
                    while let Ok(Ok(_)) = tokio::time::timeout(LIMIT, self.events.poll()).await {}
                    Ok(())
                }
            }

            async fn qos_levels(port: u16) -> Result<(), Failure> {
                let mut peer = Peer::connect(port, How { id: "qos", ..How::default() }).await?;
                peer.subscribe(&topic("qos/+"), 2).await?;
                for level in [0, 1, 2] {
                    let name = topic(&format!("qos/{level}"));
                    peer.publish(&name, format!("payload {level}"), level, false).await?;
                    let found = peer.take().await?;
                    let wanted = Message {
                        topic: name,
                        payload: format!("payload {level}").into_bytes(),
                        qos: level,
                        retain: false,
                        dup: false,
                    };
                    expect_equal(found, wanted, "message")?;
                }
                peer.leave().await
            }

            async fn retained(port: u16) -> Result<(), Failure> {
                let name = topic("retained");
                let mut peer = Peer::connect(port, How { id: "retained", ..How::default() }).await?;
                peer.publish(&name, "kept", 1, true).await?;
                peer.subscribe(&name, 1).await?;
                let found = peer.take().await?;
                expect_equal((found.text(), found.retain), ("kept".to_owned(), true), "retained message")?;
                peer.publish(&name, "", 1, true).await?;
                expect_equal(peer.take().await?.payload.len(), 0, "the removal is a message too")?;
                let mut later = Peer::connect(port, How { id: "retained-2", ..How::default() }).await?;
                later.subscribe(&name, 1).await?;
                later.publish(&name, "live", 1, false).await?;
                expect_equal(later.take().await?.text(), "live".to_owned(), "first message after the removal")?;
                later.leave().await?;
                peer.leave().await
            }

            async fn will(port: u16) -> Result<(), Failure> {
                let name = topic("will");
                let mut watcher = Peer::connect(port, How { id: "watcher", ..How::default() }).await?;
                watcher.subscribe(&name, 1).await?;
                let how = How { id: "will", will: Some(&name), ..How::default() };
                Peer::connect(port, how).await?.leave().await?;
                let how = How { id: "will-2", will: Some(&name), ..How::default() };
                // Without a DISCONNECT.
                drop(Peer::connect(port, how).await?);
                let found = watcher.take().await?;
                expect_equal((found.text(), found.qos), ("gone".to_owned(), 1), "Will")?;
                watcher.publish(&name, "end", 1, false).await?;
                expect_equal(watcher.take().await?.text(), "end".to_owned(), "only one of the two Wills came")?;
                watcher.leave().await
            }

            async fn shared(port: u16) -> Result<(), Failure> {
                let filter = format!("$share/group/{}", topic("shared"));
                let mut members = Vec::new();
                for number in ["shared-1", "shared-2"] {
                    let mut member = Peer::connect(port, How { id: number, ..How::default() }).await?;
                    member.subscribe(&filter, 1).await?;
                    members.push(member);
                }
                let mut publisher = Peer::connect(port, How { id: "shared", ..How::default() }).await?;
                for number in 0..10 {
                    publisher.publish(&topic("shared"), number.to_string(), 1, false).await?;
                }
                let mut all = Vec::new();
                for member in &mut members {
                    all.extend(member.take_texts(5).await?);
                }
                all.sort();
                let wanted: Vec<String> = (0..10).map(|number: u8| number.to_string()).collect();
                expect_equal(all, wanted, "each message to one member")
            }

            async fn session(port: u16) -> Result<(), Failure> {
                let lasting = || How { id: "session", lasting: true, will: None };
                let mut first = Peer::connect(port, lasting()).await?;
                first.subscribe(&topic("session/+"), 2).await?;
                first.leave().await?;
                let mut other = Peer::connect(port, How { id: "session-other", ..How::default() }).await?;
                for number in 0..30_u8 {
                    let name = topic(&format!("session/{}", number % 3));
                    other.publish(&name, number.to_string(), 1 + number % 2, false).await?;
                }
                let mut again = Peer::connect(port, lasting()).await?;
                expect_equal(again.session_present, true, "Session Present")?;
                let wanted: Vec<String> = (0..30_u8).map(|number| number.to_string()).collect();
                expect_equal(again.take_texts(30).await?, wanted, "what was missed, in order")?;
                again.flush().await?;
                other.leave().await?;
                again.leave().await
            }

            async fn large(port: u16) -> Result<(), Failure> {
                let name = topic("large");
                let mut peer = Peer::connect(port, How { id: "large", ..How::default() }).await?;
                peer.subscribe(&name, 2).await?;
                for level in [0, 1, 2] {
                    let payload = vec![b'a' + level; LARGE];
                    peer.publish(&name, payload.clone(), level, false).await?;
                    let found = peer.take().await?;
                    expect_equal((found.payload.len(), found.payload == payload), (LARGE, true), "payload")?;
                }
                peer.leave().await
            }

            pub(super) async fn run(port: u16, feature: &str) -> Result<(), Failure> {
                match feature {
                    "qos" => qos_levels(port).await,
                    "retained" => retained(port).await,
                    "will" => will(port).await,
                    "shared" => shared(port).await,
                    "session" => session(port).await,
                    "large" => large(port).await,
                    other => Err(format!("{other}: no such feature")),
                }
            }
        }
    };
}

features!(
    v4,
    4,
    rumqttc,
    rumqttc::QoS,
    rumqttc::Packet,
    |topic: &String| topic.clone(),
    |options: &mut rumqttc::MqttOptions, lasting: bool| {
        options.set_clean_session(!lasting).set_max_packet_size(2 * super::LARGE, 2 * super::LARGE);
    },
    |name: &str| rumqttc::LastWill::new(name, "gone", rumqttc::QoS::AtLeastOnce, false)
);

features!(
    v5,
    5,
    rumqttc::v5,
    rumqttc::v5::mqttbytes::QoS,
    rumqttc::v5::mqttbytes::v5::Packet,
    |topic: &[u8]| String::from_utf8_lossy(topic).into_owned(),
    |options: &mut rumqttc::v5::MqttOptions, lasting: bool| {
        options.set_clean_start(!lasting);
        let mut properties = rumqttc::v5::mqttbytes::v5::ConnectProperties::new();
        properties.session_expiry_interval = lasting.then_some(600);
        properties.max_packet_size = Some(2 * super::LARGE as u32);
        options.set_connect_properties(properties);
    },
    |name: &str| rumqttc::v5::mqttbytes::v5::LastWill::new(
        name,
        "gone",
        rumqttc::v5::mqttbytes::QoS::AtLeastOnce,
        false,
        None
    )
);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, version, feature] = arguments.as_slice() else {
        eprintln!("usage: interop-rumqttc PORT 4|5 FEATURE");
        return ExitCode::from(2);
    };
    let Ok(port) = port.parse() else {
        eprintln!("{port}: no port");
        return ExitCode::from(2);
    };
    let result = match version.as_str() {
        "4" => v4::run(port, feature).await,
        _ => v5::run(port, feature).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
