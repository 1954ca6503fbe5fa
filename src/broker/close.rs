//! Why a connection ends, and what its client, the log and the metrics hear of it.

use std::io;

use crate::broker::reasons::ReasonStrings;
use crate::metrics::labels::DisconnectReason;
use crate::metrics::labels::SlowReason;
use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::Disconnect;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::Version;
use crate::mqtt::reason::ReasonCode;
use crate::session::Ending;

/// The end of a connection.
#[derive(Debug)]
pub enum Close {
    /// The transport ended or failed.
    Lost(io::Error),
    /// The client sent DISCONNECT.
    Client(Ending),
    /// Bytes that are no packet, or a packet that must not be.
    Decode(DecodeError),
    /// A packet that is fine by itself, but not here and now.
    Violation(ReasonCode, &'static str),
    /// The client does not take what is sent to it.
    Slow(SlowReason),
    /// The Server's own decision: takeover, silence, shutdown, an operator.
    Server(ReasonCode),
}

impl Close {
    /// Whether the Will is due.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match self {
            Self::Client(ending) => *ending,
            _ => Ending::WithWill,
        }
    }

    /// The Reason Code of the DISCONNECT a 5.0 client gets.
    #[must_use]
    pub fn reason(&self) -> Option<ReasonCode> {
        match self {
            Self::Lost(_) | Self::Client(_) => None,
            Self::Decode(error) => Some(error.reason_code()),
            Self::Slow(_) => Some(ReasonCode::QuotaExceeded),
            Self::Violation(reason, _) | Self::Server(reason) => Some(*reason),
        }
    }

    /// Whether there may be anyone left to read the last bytes.
    #[must_use]
    pub fn peer_may_listen(&self) -> bool {
        !matches!(self, Self::Lost(_))
    }

    /// Appends the DISCONNECT that says why (`[MQTT-4.13.2-1]`), never with a Session Expiry Interval
    /// (`[MQTT-3.14.2-2]`). Before 5.0 a Server just closes.
    pub fn farewell(&self, version: Version, reason_strings: ReasonStrings, out: &mut Vec<u8>) {
        let Some(reason) = self.reason().filter(|_| version == Version::V5) else { return };
        let encoded = reason_strings.encode(self.explanation(), version, out, |properties| {
            Packet::Disconnect(Disconnect { reason, properties })
        });
        if encoded.is_err() {
            tracing::debug!(%reason, "a DISCONNECT could not be encoded");
        }
    }

    fn explanation(&self) -> Option<&'static str> {
        match self {
            Self::Decode(error) => Some(error.text),
            Self::Violation(_, text) => Some(text),
            Self::Slow(_) => Some("what is sent to this client is not taken fast enough"),
            _ => None,
        }
    }

    /// The value of the `reason` label.
    #[must_use]
    pub fn label(&self) -> DisconnectReason {
        match self {
            Self::Lost(_) => DisconnectReason::ConnectionLost,
            Self::Client(Ending::Normal) => DisconnectReason::Normal,
            Self::Client(Ending::WithWill) => DisconnectReason::WithWill,
            Self::Slow(_) => DisconnectReason::SlowConsumer,
            Self::Decode(_) | Self::Violation(..) | Self::Server(_) => {
                self.reason().map_or(DisconnectReason::ServerError, label_of)
            }
        }
    }

    /// One line for the operator: a fault of the peer as a warning, an ordinary end only for debugging.
    pub fn log(&self, client_id: &str) {
        match self {
            Self::Lost(error) => tracing::debug!(client_id, %error, "connection lost"),
            Self::Client(_) => tracing::debug!(client_id, "client disconnected"),
            Self::Decode(error) => {
                tracing::warn!(client_id, reason = %error.reason_code(), "disconnected: {error}")
            }
            Self::Violation(reason, text) => tracing::warn!(client_id, %reason, "disconnected: {text}"),
            Self::Slow(reason) => {
                tracing::warn!(
                    client_id,
                    reason = reason.name(),
                    "disconnected: the client does not take what is sent to it"
                );
            }
            Self::Server(reason) => tracing::info!(client_id, %reason, "disconnected by the server"),
        }
    }
}

fn label_of(reason: ReasonCode) -> DisconnectReason {
    match reason {
        ReasonCode::MalformedPacket => DisconnectReason::MalformedPacket,
        ReasonCode::PacketTooLarge => DisconnectReason::PacketTooLarge,
        ReasonCode::ReceiveMaximumExceeded => DisconnectReason::ReceiveMaximumExceeded,
        ReasonCode::TopicAliasInvalid => DisconnectReason::TopicAliasInvalid,
        ReasonCode::NotAuthorized => DisconnectReason::NotAuthorized,
        ReasonCode::KeepAliveTimeout => DisconnectReason::KeepAliveTimeout,
        ReasonCode::SessionTakenOver => DisconnectReason::SessionTakenOver,
        ReasonCode::ServerShuttingDown => DisconnectReason::ServerShutdown,
        ReasonCode::AdministrativeAction => DisconnectReason::AdministrativeAction,
        ReasonCode::QuotaExceeded => DisconnectReason::QuotaExceeded,
        _ => DisconnectReason::ProtocolError,
    }
}
