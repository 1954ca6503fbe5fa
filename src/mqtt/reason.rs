//! Reason Codes (MQTT 5.0 section 2.4): one table of value, name and the packets that may carry it, and the
//! mapping to the CONNACK return codes of 3.1 and 3.1.1.

use std::fmt;

use crate::mqtt::packet::PacketType;

/// Declares the enum and its lookups from one table: variant = value, metric name, standard's name, packets.
macro_rules! reason_codes {
    ($($variant:ident = $value:literal, $name:literal, $text:literal, [$($packet:ident),+];)+) => {
        /// A Reason Code of MQTT 5.0. Values of 0x80 and above are failures.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ReasonCode {
            $(#[doc = $text] $variant = $value,)+
        }

        impl ReasonCode {
            /// Every Reason Code, by value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The Reason Code of this value, if the standard defines one.
            #[must_use]
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// A snake case name for logs and metric labels.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The standard's name.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// Whether a packet of this type may carry it (table 2-6).
            #[must_use]
            pub const fn allowed_in(self, packet: PacketType) -> bool {
                let packets: u16 = match self {
                    $(Self::$variant => $(1 << PacketType::$packet.as_u8())|+,)+
                };
                packets & (1 << packet.as_u8()) != 0
            }
        }
    };
}

reason_codes! {
    Success = 0x00, "success", "Success; Normal disconnection; Granted QoS 0", [ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, Disconnect, Auth];
    GrantedQoS1 = 0x01, "granted_qos_1", "Granted QoS 1", [SubAck];
    GrantedQoS2 = 0x02, "granted_qos_2", "Granted QoS 2", [SubAck];
    DisconnectWithWillMessage = 0x04, "disconnect_with_will_message", "Disconnect with Will Message", [Disconnect];
    NoMatchingSubscribers = 0x10, "no_matching_subscribers", "No matching subscribers", [PubAck, PubRec];
    NoSubscriptionExisted = 0x11, "no_subscription_existed", "No subscription existed", [UnsubAck];
    ContinueAuthentication = 0x18, "continue_authentication", "Continue authentication", [Auth];
    ReAuthenticate = 0x19, "re_authenticate", "Re-authenticate", [Auth];
    UnspecifiedError = 0x80, "unspecified_error", "Unspecified error", [ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect];
    MalformedPacket = 0x81, "malformed_packet", "Malformed Packet", [ConnAck, Disconnect];
    ProtocolError = 0x82, "protocol_error", "Protocol Error", [ConnAck, Disconnect];
    ImplementationSpecificError = 0x83, "implementation_specific_error", "Implementation specific error", [ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect];
    UnsupportedProtocolVersion = 0x84, "unsupported_protocol_version", "Unsupported Protocol Version", [ConnAck];
    ClientIdentifierNotValid = 0x85, "client_identifier_not_valid", "Client Identifier not valid", [ConnAck];
    BadUserNameOrPassword = 0x86, "bad_user_name_or_password", "Bad User Name or Password", [ConnAck];
    NotAuthorized = 0x87, "not_authorized", "Not authorized", [ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect];
    ServerUnavailable = 0x88, "server_unavailable", "Server unavailable", [ConnAck];
    ServerBusy = 0x89, "server_busy", "Server busy", [ConnAck, Disconnect];
    Banned = 0x8A, "banned", "Banned", [ConnAck];
    ServerShuttingDown = 0x8B, "server_shutting_down", "Server shutting down", [Disconnect];
    BadAuthenticationMethod = 0x8C, "bad_authentication_method", "Bad authentication method", [ConnAck, Disconnect];
    KeepAliveTimeout = 0x8D, "keep_alive_timeout", "Keep Alive timeout", [Disconnect];
    SessionTakenOver = 0x8E, "session_taken_over", "Session taken over", [Disconnect];
    TopicFilterInvalid = 0x8F, "topic_filter_invalid", "Topic Filter invalid", [SubAck, UnsubAck, Disconnect];
    TopicNameInvalid = 0x90, "topic_name_invalid", "Topic Name invalid", [ConnAck, PubAck, PubRec, Disconnect];
    PacketIdentifierInUse = 0x91, "packet_identifier_in_use", "Packet Identifier in use", [PubAck, PubRec, SubAck, UnsubAck];
    PacketIdentifierNotFound = 0x92, "packet_identifier_not_found", "Packet Identifier not found", [PubRel, PubComp];
    ReceiveMaximumExceeded = 0x93, "receive_maximum_exceeded", "Receive Maximum exceeded", [Disconnect];
    TopicAliasInvalid = 0x94, "topic_alias_invalid", "Topic Alias invalid", [Disconnect];
    PacketTooLarge = 0x95, "packet_too_large", "Packet too large", [ConnAck, Disconnect];
    MessageRateTooHigh = 0x96, "message_rate_too_high", "Message rate too high", [Disconnect];
    QuotaExceeded = 0x97, "quota_exceeded", "Quota exceeded", [ConnAck, PubAck, PubRec, SubAck, Disconnect];
    AdministrativeAction = 0x98, "administrative_action", "Administrative action", [Disconnect];
    PayloadFormatInvalid = 0x99, "payload_format_invalid", "Payload format invalid", [ConnAck, PubAck, PubRec, Disconnect];
    RetainNotSupported = 0x9A, "retain_not_supported", "Retain not supported", [ConnAck, Disconnect];
    QoSNotSupported = 0x9B, "qos_not_supported", "QoS not supported", [ConnAck, Disconnect];
    UseAnotherServer = 0x9C, "use_another_server", "Use another server", [ConnAck, Disconnect];
    ServerMoved = 0x9D, "server_moved", "Server moved", [ConnAck, Disconnect];
    SharedSubscriptionsNotSupported = 0x9E, "shared_subscriptions_not_supported", "Shared Subscriptions not supported", [SubAck, Disconnect];
    ConnectionRateExceeded = 0x9F, "connection_rate_exceeded", "Connection rate exceeded", [ConnAck, Disconnect];
    MaximumConnectTime = 0xA0, "maximum_connect_time", "Maximum connect time", [Disconnect];
    SubscriptionIdentifiersNotSupported = 0xA1, "subscription_identifiers_not_supported", "Subscription Identifiers not supported", [SubAck, Disconnect];
    WildcardSubscriptionsNotSupported = 0xA2, "wildcard_subscriptions_not_supported", "Wildcard Subscriptions not supported", [SubAck, Disconnect];
}

impl ReasonCode {
    /// The value on the wire.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether it reports a failure.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.as_u8() >= 0x80
    }

    /// The CONNACK return code of MQTT 3.1.1 table 3.1 that says it. None where none does: those versions close
    /// the connection then, without a CONNACK (3.1.1 section 3.2.2.3; its 3.1.4 for a CONNECT that is malformed).
    #[must_use]
    pub const fn connack_return_code(self) -> Option<u8> {
        match self {
            reason if !reason.is_error() => Some(0),
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::QuotaExceeded
            | Self::ConnectionRateExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved
            | Self::UnspecifiedError
            | Self::ImplementationSpecificError => Some(3),
            Self::BadUserNameOrPassword | Self::BadAuthenticationMethod => Some(4),
            Self::NotAuthorized | Self::Banned => Some(5),
            _ => None,
        }
    }

    /// The Reason Code that says what a CONNACK return code of 3.1 or 3.1.1 says.
    #[must_use]
    pub const fn from_connack_return_code(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02X})", self.text(), self.as_u8())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_standards_codes() {
        assert_eq!(ReasonCode::ALL.len(), 43);
        for pair in ReasonCode::ALL.windows(2) {
            assert!(pair[0].as_u8() < pair[1].as_u8(), "{} before {}", pair[0], pair[1]);
        }
        for value in 0..=u8::MAX {
            let known = ReasonCode::from_u8(value);
            assert_eq!(known.map(ReasonCode::as_u8), known.map(|_| value));
        }
        assert_eq!(ReasonCode::from_u8(0x03), None);
        assert_eq!(ReasonCode::from_u8(0xA3), None);
    }

    #[test]
    fn packets_carry_only_their_codes() {
        let count = |packet| ReasonCode::ALL.iter().filter(|reason| reason.allowed_in(packet)).count();
        // the lengths of the tables in sections 3.2.2.2, 3.4.2.1 to 3.7.2.1, 3.9.3, 3.11.3, 3.14.2.1, 3.15.2.1
        assert_eq!(count(PacketType::ConnAck), 22);
        assert_eq!(count(PacketType::PubAck), 9);
        assert_eq!(count(PacketType::PubRec), 9);
        assert_eq!(count(PacketType::PubRel), 2);
        assert_eq!(count(PacketType::PubComp), 2);
        assert_eq!(count(PacketType::SubAck), 12);
        assert_eq!(count(PacketType::UnsubAck), 7);
        assert_eq!(count(PacketType::Disconnect), 30);
        assert_eq!(count(PacketType::Auth), 3);
        for other in [PacketType::Connect, PacketType::Publish, PacketType::Subscribe, PacketType::PingReq] {
            assert_eq!(count(other), 0);
        }
    }

    #[test]
    fn return_codes_of_the_older_versions() {
        for code in 0..=5 {
            let reason = ReasonCode::from_connack_return_code(code).unwrap();
            assert_eq!(reason.connack_return_code(), Some(code));
        }
        assert_eq!(ReasonCode::from_connack_return_code(6), None);
        assert_eq!(ReasonCode::Banned.connack_return_code(), Some(5));
        assert_eq!(ReasonCode::QuotaExceeded.connack_return_code(), Some(3));
        for unsaid in [ReasonCode::MalformedPacket, ReasonCode::TopicNameInvalid, ReasonCode::QoSNotSupported]
        {
            assert_eq!(unsaid.connack_return_code(), None, "{unsaid}");
        }
    }

    #[test]
    fn names_are_snake_case_and_unique() {
        let mut names: Vec<_> = ReasonCode::ALL.iter().map(|reason| reason.name()).collect();
        assert!(
            names
                .iter()
                .all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 43);
        assert_eq!(ReasonCode::QoSNotSupported.to_string(), "QoS not supported (0x9B)");
    }
}
