//! The connection of a client whose broker may be gone at any moment.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tombolo::mqtt::encode;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::reason::ReasonCode;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::hello;
use crate::harness::id;
use crate::harness::properties;

/// Where a broker is; nowhere while it is down. It is said before it is killed.
pub(crate) type Address = watch::Receiver<Option<SocketAddr>>;

/// How long a client may hear nothing: a run ends long before.
const PATIENCE: Duration = Duration::from_secs(3_600);
const SESSION_TAKEN_OVER: u8 = 0x8E;
/// How long a session is kept without a connection, in seconds.
const EXPIRY_S: u32 = 7_200;

/// Who connects, with a session that stays unless it is begun anew.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) version: Version,
    pub(crate) id: String,
    pub(crate) clean_start: bool,
    pub(crate) at: Address,
}

/// See the module. Nothing that is sent fails: the end comes with [`Line::next`].
pub(crate) struct Line {
    client: Client,
    out: Vec<u8>,
}

impl Identity {
    pub(crate) fn new(version: Version, id: &str, at: &Address) -> Self {
        Self { version, id: id.to_owned(), clean_start: false, at: at.clone() }
    }

    /// Connects as soon as there is a broker. Also whether it had the session.
    pub(crate) async fn connect(&mut self) -> (Line, bool) {
        loop {
            let address =
                *self.at.wait_for(Option::is_some).await.expect("the brokers outlive their clients");
            if let Some(opened) = self.connect_to(address.expect("this was waited for"), None).await {
                return opened;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Connects to the broker that is there now, if that works.
    pub(crate) async fn connect_once(&self, will: Option<Will<'_>>) -> Option<Line> {
        let address = *self.at.borrow();
        Some(self.connect_to(address?, will).await?.0)
    }

    async fn connect_to(&self, address: SocketAddr, will: Option<Will<'_>>) -> Option<(Line, bool)> {
        let stream = TcpStream::connect(address).await.ok()?;
        let _ = stream.set_nodelay(true);
        let mut line = Line { client: Client::over(stream), out: Vec::new() };
        (line.client.version, line.client.patience) = (self.version, PATIENCE);
        let expiry_s = if self.clean_start { 0 } else { EXPIRY_S };
        let expiry = properties(&[Property::SessionExpiryInterval(expiry_s)]);
        line.put(&Packet::Connect(Box::new(Connect {
            clean_start: self.clean_start,
            properties: if self.version == Version::V5 { expiry.as_properties() } else { Properties::EMPTY },
            will,
            ..hello(self.version, &self.id)
        })));
        match line.next().await {
            Got::ConnAck(present, 0) => Some((line, present)),
            Got::Closed => None,
            other => panic!("{} cannot connect: {other:?}", self.id),
        }
    }
}

impl Line {
    /// To be sent with the next [`Line::flush`] or [`Line::next`].
    pub(crate) fn put(&mut self, packet: &Packet<'_>) {
        encode::encode(packet, self.client.version, &mut self.out).unwrap();
    }

    pub(crate) fn put_ack(&mut self, kind: PacketType, packet_id: u16) {
        encode::encode_ack(kind, self.client.version, id(packet_id), ReasonCode::Success, &mut self.out);
    }

    pub(crate) async fn flush(&mut self) {
        // Whether it was written in part does not matter when it fails: nothing follows it.
        let _ = self.client.io.write_all(&self.out).await;
        self.out.clear();
    }

    /// The next packet, or the end of the connection.
    pub(crate) async fn next(&mut self) -> Got {
        if !self.out.is_empty() {
            self.flush().await;
        }
        match self.client.next().await {
            // An attempt to connect that was given up has overtaken this one.
            Got::Disconnect(SESSION_TAKEN_OVER) => Got::Closed,
            got => got,
        }
    }

    /// Until everything that was on its way has come. What came, and whether the connection is still there.
    pub(crate) async fn drain(&mut self) -> (Vec<Got>, bool) {
        self.put(&Packet::PingReq);
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Got::PingResp => return (all, true),
                Got::Closed => return (all, false),
                got => all.push(got),
            }
        }
    }
}
