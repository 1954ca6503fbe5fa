//! The label values of every metric: small fixed sets, never a topic or a ClientID (interface.md section 4).

use crate::auth::DenyReason;
use crate::auth::attempts::Held;
use crate::auth::peer::Refusal;
use crate::link::ingress;
use crate::metrics::series::Label;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::QoS;

/// An enum of label values with their fixed names.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident as $label:literal { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            /// Every value, in the order of the declaration.
            pub const ALL: &[Self] = &[$(Self::$value),+];
            /// How many values there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The label's value.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }

        impl Label for $name {
            const COUNT: usize = Self::ALL.len();

            fn index(self) -> usize {
                self as usize
            }

            fn pairs(index: usize, push: &mut dyn FnMut(&'static str, &'static str)) {
                push($label, Self::ALL[index].name());
            }
        }
    };
}

label! {
    /// The type of a listener (interface.md section 2).
    ListenerType as "listener" {
        /// Plain TCP.
        Tcp = "tcp",
        /// TLS.
        Ssl = "ssl",
        /// WebSocket.
        Ws = "ws",
        /// WebSocket over TLS.
        Wss = "wss",
        /// A Unix domain socket.
        Unix = "unix",
    }
}

label! {
    /// What is wrong with the store.
    StoreTrouble as "kind" {
        /// There is no space, on the disk or by the bound that was set.
        Full = "full",
        /// Writing or synchronising fails.
        Failing = "failing",
        /// It takes too long.
        Slow = "slow",
    }
}

label! {
    /// Why a Network Connection did not become a client's.
    RejectReason as "reason" {
        /// The listener has `max_connections` already.
        MaxConnections = "max_connections",
        /// It gave way to a newer one: too many were there that had not finished their CONNECT.
        HalfOpen = "half_open",
        /// No file descriptor is left for it.
        Descriptors = "descriptors",
        /// No PROXY header, a malformed one, or one of somebody who is not trusted.
        ProxyProtocol = "proxy_protocol",
        /// The TLS handshake failed.
        TlsHandshake = "tls_handshake",
        /// The WebSocket handshake failed.
        WebSocketHandshake = "websocket_handshake",
        /// A handshake or the CONNECT took too long.
        Timeout = "timeout",
        /// The first packet was not a well-formed CONNECT.
        MalformedConnect = "malformed_connect",
        /// A protocol version that is not spoken here.
        UnsupportedVersion = "unsupported_version",
        /// A Client Identifier that is not accepted.
        ClientIdentifier = "client_identifier",
        /// A 3.x client whose Keep Alive is above `mqtt.max_keepalive`.
        KeepAlive = "keep_alive",
        /// A CONNECT that asks for what is not offered.
        NotSupported = "not_supported",
        /// Authentication failed.
        NotAuthorized = "not_authorized",
        /// A rate or quota is used up.
        Quota = "quota",
        /// The client is banned.
        Banned = "banned",
        /// The broker's memory is near its ceiling.
        OverloadMemory = "overload_memory",
        /// The broker's thread is late.
        OverloadLag = "overload_lag",
        /// The broker is stopping.
        Shutdown = "shutdown",
        /// The connection ended before its CONNECT was answered.
        Lost = "lost",
        /// It was no client's: a cluster enrolled, or tried to, or has lent us a connection.
        Enrolment = "enrolment",
    }
}

label! {
    /// What became of an enrolment on the wire; what the answer said is not looked at.
    EnrolmentOutcome as "result" {
        /// The request was answered.
        Answered = "answered",
        /// There were as many as there may be at a time.
        Busy = "busy",
        /// The last one of its source was a moment ago.
        TooSoon = "too_soon",
        /// TLS failed: no certificate, an old version.
        Tls = "tls",
        /// The address or the certificate is banned.
        Banned = "banned",
        /// A request that is empty or too long.
        Malformed = "malformed",
        /// It took too long.
        Timeout = "timeout",
        /// The connection ended before its request was there.
        Lost = "lost",
        /// No answer could be made.
        Failed = "failed",
    }
}

label! {
    /// What became of a connection that a peer has lent us.
    LentOutcome as "result" {
        /// It waits to be used.
        Waiting = "waiting",
        /// As many wait as there may.
        Enough = "enough",
        /// No link wants connections of who lent it.
        Unwanted = "unwanted",
    }
}

label! {
    /// Why a client's Network Connection ended.
    DisconnectReason as "reason" {
        /// The client sent DISCONNECT.
        Normal = "normal",
        /// The client sent DISCONNECT and asked for its Will.
        WithWill = "with_will",
        /// The transport ended without a DISCONNECT.
        ConnectionLost = "connection_lost",
        /// Nothing was heard for one and a half times the Keep Alive.
        KeepAliveTimeout = "keep_alive_timeout",
        /// Another connection took the Session over.
        SessionTakenOver = "session_taken_over",
        /// Bytes that are no packet.
        MalformedPacket = "malformed_packet",
        /// A packet that is not allowed there and then.
        ProtocolError = "protocol_error",
        /// A packet above the Maximum Packet Size.
        PacketTooLarge = "packet_too_large",
        /// More unacknowledged messages than the Receive Maximum.
        ReceiveMaximumExceeded = "receive_maximum_exceeded",
        /// A Topic Alias that is not valid.
        TopicAliasInvalid = "topic_alias_invalid",
        /// `deny_action = "disconnect"`.
        NotAuthorized = "not_authorized",
        /// The client does not read what is sent to it.
        SlowConsumer = "slow_consumer",
        /// A rate or quota is used up.
        QuotaExceeded = "quota_exceeded",
        /// An operator ended it.
        AdministrativeAction = "administrative_action",
        /// The broker is stopping.
        ServerShutdown = "server_shutdown",
        /// A fault of ours.
        ServerError = "server_error",
    }
}

label! {
    /// What a connection was over when it was not read for a while.
    ThrottleReason as "reason" {
        /// `messages_rate` of its listener.
        MessagesRate = "messages_rate",
        /// `bytes_rate` of its listener.
        BytesRate = "bytes_rate",
        /// `messages_rate` of its peer's quota.
        LinkMessagesRate = "link_messages_rate",
        /// `bytes_rate` of its peer's quota.
        LinkBytesRate = "link_bytes_rate",
    }
}

label! {
    /// Why an Application Message reached a destination not, or nobody at all.
    DropReason as "reason" {
        /// The Session's queue is full.
        QueueFull = "queue_full",
        /// Its Message Expiry Interval has passed.
        Expired = "expired",
        /// No Local: the publisher is the subscriber.
        NoLocal = "no_local",
        /// Larger than the client's Maximum Packet Size.
        TooLarge = "too_large",
        /// QoS 0 to a client that does not read fast enough.
        Qos0Slow = "qos0_slow",
        /// QoS 0 to a Session without a connection.
        Qos0Offline = "qos0_offline",
        /// Nobody subscribes to it.
        NoSubscribers = "no_subscribers",
        /// The publisher may not publish there.
        Acl = "acl",
        /// Too many unreleased QoS 2 messages.
        Inflight = "inflight",
        /// The Session ended with messages in its queue.
        SessionEnded = "session_ended",
        /// A rate or quota is used up.
        Quota = "quota",
        /// The store of Retained Messages is full.
        RetainedFull = "retained_full",
        /// The broker's memory is at its ceiling.
        Overload = "overload",
        /// The Will of a client that is banned.
        Banned = "banned",
        /// It has to be stored, and cannot be for now.
        Store = "store",
        /// It was stored, and cannot be read any more.
        Damaged = "damaged",
    }
}

label! {
    /// How near the broker's memory is to its ceiling (`overload_protection.max_memory`).
    LoadLevel as "level" {
        /// There is room.
        Normal = "normal",
        /// No new clients.
        High = "high",
        /// No new messages either.
        Critical = "critical",
    }
}

label! {
    /// Who reads too slowly.
    ConsumerKind as "kind" {
        /// An application.
        Client = "client",
        /// A linked cluster.
        Link = "link",
    }
}

label! {
    /// Why its connection was ended.
    SlowReason as "reason" {
        /// It took nothing for `mqtt.send_timeout`.
        Stalled = "stalled",
        /// Its queue was full, and `mqtt.mqueue_on_full` is `disconnect`.
        QueueFull = "queue_full",
    }
}

label! {
    /// What was to be authorised.
    AclAction as "action" {
        /// PUBLISH, or a Will.
        Publish = "publish",
        /// SUBSCRIBE.
        Subscribe = "subscribe",
    }
}

label! {
    /// What denied it.
    AclReason as "reason" {
        /// A rule of the file.
        Rule = "rule",
        /// No rule matched and `no_match` is `deny`.
        NoMatch = "no_match",
        /// An application under `$LINK/`, or a publish to `$SYS` or to what only filters begin with.
        ConfinedClient = "confined_client",
        /// A peer cluster outside its own `$LINK/` topics.
        ConfinedLink = "confined_link",
    }
}

label! {
    /// How an attempt ended.
    Outcome as "result" {
        /// It holds now.
        Ok = "ok",
        /// The old state stays in force.
        Error = "error",
    }
}

label! {
    /// Direction of a link's traffic, as seen from here.
    Direction as "dir" {
        /// From the peer.
        In = "in",
        /// To the peer.
        Out = "out",
    }
}

label! {
    /// The fifteen Control Packets.
    PacketType as "type" {
        /// CONNECT.
        Connect = "connect",
        /// CONNACK.
        ConnAck = "connack",
        /// PUBLISH.
        Publish = "publish",
        /// PUBACK.
        PubAck = "puback",
        /// PUBREC.
        PubRec = "pubrec",
        /// PUBREL.
        PubRel = "pubrel",
        /// PUBCOMP.
        PubComp = "pubcomp",
        /// SUBSCRIBE.
        Subscribe = "subscribe",
        /// SUBACK.
        SubAck = "suback",
        /// UNSUBSCRIBE.
        Unsubscribe = "unsubscribe",
        /// UNSUBACK.
        UnsubAck = "unsuback",
        /// PINGREQ.
        PingReq = "pingreq",
        /// PINGRESP.
        PingResp = "pingresp",
        /// DISCONNECT.
        Disconnect = "disconnect",
        /// AUTH.
        Auth = "auth",
    }
}

impl PacketType {
    /// The type in the upper four bits of a packet's first byte (MQTT 5.0 section 2.1.2), if it is one.
    #[must_use]
    pub fn of_first_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte >> 4).wrapping_sub(1)).copied()
    }
}

impl From<&Packet<'_>> for PacketType {
    fn from(packet: &Packet<'_>) -> Self {
        match packet {
            Packet::Connect(_) => Self::Connect,
            Packet::ConnAck(_) => Self::ConnAck,
            Packet::Publish(_) => Self::Publish,
            Packet::PubAck(_) => Self::PubAck,
            Packet::PubRec(_) => Self::PubRec,
            Packet::PubRel(_) => Self::PubRel,
            Packet::PubComp(_) => Self::PubComp,
            Packet::Subscribe(_) => Self::Subscribe,
            Packet::SubAck(_) => Self::SubAck,
            Packet::Unsubscribe(_) => Self::Unsubscribe,
            Packet::UnsubAck(_) => Self::UnsubAck,
            Packet::PingReq => Self::PingReq,
            Packet::PingResp => Self::PingResp,
            Packet::Disconnect(_) => Self::Disconnect,
            Packet::Auth(_) => Self::Auth,
        }
    }
}

impl Label for QoS {
    const COUNT: usize = 3;

    fn index(self) -> usize {
        self as usize
    }

    fn pairs(index: usize, push: &mut dyn FnMut(&'static str, &'static str)) {
        push("qos", ["0", "1", "2"][index]);
    }
}

impl Label for Refusal {
    const COUNT: usize = Self::ALL.len();

    fn index(self) -> usize {
        self as usize
    }

    fn pairs(index: usize, push: &mut dyn FnMut(&'static str, &'static str)) {
        push("reason", Self::ALL[index].name());
    }
}

impl Label for Held {
    const COUNT: usize = Self::ALL.len();

    fn index(self) -> usize {
        self as usize
    }

    fn pairs(index: usize, push: &mut dyn FnMut(&'static str, &'static str)) {
        push("reason", Self::ALL[index].name());
    }
}

impl Label for DenyReason {
    const COUNT: usize = Self::ALL.len();

    fn index(self) -> usize {
        self as usize
    }

    fn pairs(index: usize, push: &mut dyn FnMut(&'static str, &'static str)) {
        push("reason", Self::ALL[index].name());
    }
}

label! {
    /// State of a link (observability.md).
    LinkState as "state" {
        /// Route replication is online.
        Active = "active",
        /// Connecting, handshaking or bootstrapping.
        Connecting = "connecting",
        /// The peer's address does not answer.
        Unreachable = "unreachable",
        /// TLS or MQTT authentication failed.
        Unauthenticated = "unauthenticated",
        /// The peer answered and refused the link.
        Rejected = "rejected",
        /// `enable = false`.
        Disabled = "disabled",
    }
}

label! {
    /// Whose certificate on a link (observability.md).
    CertificateSide as "side" {
        /// What we show the peer when we dial it.
        Local = "local",
        /// What the peer's listener shows.
        Remote = "remote",
        /// What the peer shows when it dials us.
        RemoteClient = "remote_client",
        /// By which it is known, whether it has shown it or not.
        Pinned = "pinned",
    }
}

label! {
    /// Why a link's connection had to be made again.
    ReconnectReason as "reason" {
        /// No answer in time.
        Timeout = "timeout",
        /// The peer's port or its CONNACK refused.
        Refused = "refused",
        /// The TLS handshake failed.
        Tls = "tls",
        /// Authentication failed.
        Auth = "auth",
        /// Another connection took the Session over.
        Takeover = "takeover",
        /// The peer broke the protocol.
        Protocol = "protocol",
        /// The peer is stopping.
        Shutdown = "shutdown",
        /// The transport ended.
        Lost = "lost",
    }
}

label! {
    /// Why a message did not cross a link.
    LinkDropReason as "reason" {
        /// Its Message Expiry Interval has passed.
        Expired = "expired",
        /// The spool is full.
        SpoolFull = "spool_full",
        /// Larger than the peer's Maximum Packet Size.
        TooLarge = "too_large",
        /// The peer may not publish there, or its client may not.
        Acl = "acl",
        /// Outside the link's `topics` or `export`.
        Filter = "filter",
        /// The payload is no forwarded message.
        Undecodable = "undecodable",
        /// The peer answered with a negative acknowledgement.
        PeerRefused = "peer_refused",
        /// It came from a link already.
        Loop = "loop",
        /// QoS 0 while there is no connection.
        Offline = "offline",
        /// What was kept of it on the disk cannot be read any more.
        Damaged = "damaged",
        /// The link was deleted with messages in its spool.
        LinkDeleted = "link_deleted",
    }
}

label! {
    /// Bytes before or after compression.
    ByteKind as "kind" {
        /// Payload bytes.
        Raw = "raw",
        /// Bytes of the connection.
        Wire = "wire",
    }
}

label! {
    /// Kind of a route.
    RouteKind as "kind" {
        /// Of an ordinary Subscription.
        Plain = "plain",
        /// Of a Shared Subscription.
        Shared = "shared",
        /// Of a durable Session.
        Persistent = "persistent",
    }
}

label! {
    /// What a route update does.
    RouteOp as "op" {
        /// Adds a route.
        Add = "add",
        /// Deletes a route.
        Del = "del",
        /// Adds a route as part of a bootstrap.
        Bootstrap = "bootstrap",
    }
}

label! {
    /// Why a bootstrap was sent.
    BootstrapReason as "reason" {
        /// The first of this incarnation.
        Initial = "initial",
        /// The peer asked for it with `need_bootstrap`.
        Requested = "requested",
        /// Too many route updates were waiting.
        Overflow = "overflow",
        /// The link's `topics` or `export` changed.
        Reconfigured = "reconfigured",
    }
}

impl From<ingress::DropReason> for LinkDropReason {
    fn from(reason: ingress::DropReason) -> Self {
        match reason {
            ingress::DropReason::Expired => Self::Expired,
            ingress::DropReason::SpoolFull => Self::SpoolFull,
            ingress::DropReason::TooLarge => Self::TooLarge,
            ingress::DropReason::Acl => Self::Acl,
            ingress::DropReason::Filter => Self::Filter,
            ingress::DropReason::Undecodable => Self::Undecodable,
            ingress::DropReason::PeerRefused => Self::PeerRefused,
            ingress::DropReason::Loop => Self::Loop,
            ingress::DropReason::Offline => Self::Offline,
            ingress::DropReason::Damaged => Self::Damaged,
        }
    }
}

label! {
    /// What a security event is about; the names follow OWASP's vocabulary (`authn-tls.md` section 5).
    SecurityEvent as "event" {
        /// The broker is up.
        Startup = "sys_startup",
        /// The broker stops.
        Shutdown = "sys_shutdown",
        /// Security events do not reach their file.
        MonitorDisabled = "sys_monitor_disabled",
        /// They do again.
        MonitorEnabled = "sys_monitor_enabled",
        /// A configuration was put in force.
        ConfigReload = "sys_config_reload",
        /// One was refused.
        ConfigReloadFail = "sys_config_reload_fail",
        /// What has to be kept cannot be stored.
        StoreFail = "sys_store_fail",
        /// It can again.
        StoreRecover = "sys_store_recover",
        /// An ACL file was put in force.
        AclReload = "sys_acl_reload",
        /// One was refused.
        AclReloadFail = "sys_acl_reload_fail",
        /// A link became active, or is not any more.
        LinkState = "link_state",
        /// Somebody came in.
        LoginSuccess = "authn_login_success",
        /// Somebody did not prove who they are.
        LoginFail = "authn_login_fail",
        /// A name is locked after too many failures.
        Lockout = "authn_lockout",
        /// It is not any more.
        Unlock = "authn_unlock",
        /// A connected client's proof stopped to hold.
        Revoked = "authn_revoked",
        /// Other revocation lists are in force.
        RevocationLists = "authn_revocation_lists",
        /// Revocation lists cannot be had, or cannot be used.
        RevocationListsFail = "authn_revocation_lists_fail",
        /// A responder says that our certificate is good.
        Staple = "authn_ocsp",
        /// It does not, or says nothing.
        StapleFail = "authn_ocsp_fail",
        /// A certificate that we depend on expires soon, or has expired.
        CertificateExpiry = "authn_certificate_expiry",
        /// Our link certificate is being replaced, or was.
        CertificateRotation = "authn_certificate_rotation",
        /// It should be, and cannot be.
        CertificateRotationFail = "authn_certificate_rotation_fail",
        /// Somebody is kept out from now on.
        Ban = "authn_ban",
        /// A session belongs to another user.
        SessionOfAnother = "authn_session_of_another",
        /// The ACL said no.
        AuthzFail = "authz_fail",
        /// A token, an identity or a certificate of a peer became something else.
        Trust = "authn_trust",
        /// Somebody came with a token that another had used, or guessed at one.
        TokenAbuse = "authn_token_abuse",
        /// Somebody acts as a link, or a link leaves its ground.
        LinkForgery = "link_forgery_attempt",
        /// An administrator changed something.
        Admin = "authz_admin",
    }
}
