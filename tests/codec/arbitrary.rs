//! Arbitrary valid packets of each version. Their strings are leaked, so that packets are plain values.

use proptest::prelude::*;
use proptest::strategy::Union;
use smallvec::SmallVec;

use tombolo::mqtt::packet::Ack;
use tombolo::mqtt::packet::Auth;
use tombolo::mqtt::packet::ConnAck;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Disconnect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketId;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::RetainHandling;
use tombolo::mqtt::packet::SubAck;
use tombolo::mqtt::packet::Subscribe;
use tombolo::mqtt::packet::SubscribeFilter;
use tombolo::mqtt::packet::SubscriptionOptions;
use tombolo::mqtt::packet::UnsubAck;
use tombolo::mqtt::packet::Unsubscribe;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::PropertiesBuf;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::property::PropertyContext;
use tombolo::mqtt::reason::ReasonCode;

type Packets = BoxedStrategy<Packet<'static>>;

pub(crate) fn any_version() -> impl Strategy<Value = Version> + Clone {
    prop::sample::select(vec![Version::V31, Version::V311, Version::V5])
}

pub(crate) fn packet_and_version() -> impl Strategy<Value = (Packet<'static>, Version)> {
    any_version().prop_flat_map(|version| (packet(version), Just(version)))
}

pub(crate) fn packet(version: Version) -> Packets {
    let mut kinds: Vec<_> = PacketType::ALL.to_vec();
    if version != Version::V5 {
        kinds.retain(|&kind| kind != PacketType::Auth);
    }
    Union::new(kinds.into_iter().map(|kind| packet_of(kind, version))).boxed()
}

pub(crate) fn packet_of(kind: PacketType, version: Version) -> Packets {
    match kind {
        PacketType::Connect => connect(version),
        PacketType::ConnAck => connack(version),
        PacketType::Publish => publish(version),
        PacketType::PubAck => ack(kind, PropertyContext::PubAck, version).prop_map(Packet::PubAck).boxed(),
        PacketType::PubRec => ack(kind, PropertyContext::PubRec, version).prop_map(Packet::PubRec).boxed(),
        PacketType::PubRel => ack(kind, PropertyContext::PubRel, version).prop_map(Packet::PubRel).boxed(),
        PacketType::PubComp => ack(kind, PropertyContext::PubComp, version).prop_map(Packet::PubComp).boxed(),
        PacketType::Subscribe => subscribe(version),
        PacketType::SubAck => suback(version),
        PacketType::Unsubscribe => unsubscribe(version),
        PacketType::UnsubAck => unsuback(version),
        PacketType::PingReq => Just(Packet::PingReq).boxed(),
        PacketType::PingResp => Just(Packet::PingResp).boxed(),
        PacketType::Disconnect => disconnect(version),
        PacketType::Auth => auth(),
    }
}

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn text() -> impl Strategy<Value = &'static str> + Clone {
    "[a-z0-9 /+#$é𝄞\u{FEFF}]{0,12}".prop_map(leaked)
}

fn topic() -> impl Strategy<Value = &'static str> {
    "[a-z0-9 /$é𝄞]{1,40}".prop_map(leaked)
}

fn filter() -> impl Strategy<Value = &'static str> {
    prop_oneof![text().boxed(), "\\$share/[a-z]{1,4}/[a-z/+#]{1,8}".prop_map(leaked).boxed()]
}

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    let usual = prop::collection::vec(any::<u8>(), 0..40);
    let long = prop::collection::vec(any::<u8>(), 150..200);
    prop_oneof![9 => usual, 1 => long].prop_map(|bytes| &*bytes.leak())
}

fn qos() -> impl Strategy<Value = QoS> {
    prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    prop_oneof![1..=u16::MAX, Just(0x0A00)].prop_map(|id| PacketId::new(id).expect("at least 1"))
}

fn reason(kind: PacketType) -> impl Strategy<Value = ReasonCode> {
    let allowed: Vec<_> = ReasonCode::ALL.iter().copied().filter(|reason| reason.allowed_in(kind)).collect();
    prop::sample::select(allowed)
}

fn property() -> impl Strategy<Value = Property<'static>> {
    let texts: [fn(&'static str) -> Property<'static>; 7] = [
        Property::ContentType,
        Property::AssignedClientIdentifier,
        Property::AuthenticationMethod,
        Property::ResponseInformation,
        Property::ServerReference,
        Property::ReasonString,
        Property::ReasonString,
    ];
    let flags: [fn(bool) -> Property<'static>; 6] = [
        Property::RequestProblemInformation,
        Property::RequestResponseInformation,
        Property::RetainAvailable,
        Property::WildcardSubscriptionAvailable,
        Property::SubscriptionIdentifierAvailable,
        Property::SharedSubscriptionAvailable,
    ];
    let shorts: [fn(u16) -> Property<'static>; 4] = [
        Property::ServerKeepAlive,
        Property::ReceiveMaximum,
        Property::TopicAliasMaximum,
        Property::TopicAlias,
    ];
    let longs: [fn(u32) -> Property<'static>; 4] = [
        Property::MessageExpiryInterval,
        Property::SessionExpiryInterval,
        Property::WillDelayInterval,
        Property::MaximumPacketSize,
    ];
    let binaries: [fn(&'static [u8]) -> Property<'static>; 2] =
        [Property::CorrelationData, Property::AuthenticationData];
    prop_oneof![
        7 => (prop::sample::select(texts.to_vec()), text()).prop_map(|(make, text)| make(text)),
        6 => (prop::sample::select(flags.to_vec()), any::<bool>()).prop_map(|(make, flag)| make(flag)),
        4 => (prop::sample::select(shorts.to_vec()), 1..=u16::MAX).prop_map(|(make, value)| make(value)),
        4 => (prop::sample::select(longs.to_vec()), 1..=u32::MAX).prop_map(|(make, value)| make(value)),
        2 => (prop::sample::select(binaries.to_vec()), bytes()).prop_map(|(make, value)| make(value)),
        1 => topic().prop_map(Property::ResponseTopic),
        2 => (1..=268_435_455_u32).prop_map(Property::SubscriptionIdentifier),
        1 => (0..=1_u8).prop_map(Property::PayloadFormatIndicator),
        1 => (0..=1_u8).prop_map(Property::MaximumQoS),
        3 => (text(), text()).prop_map(|(name, value)| Property::UserProperty(name, value)),
    ]
}

/// Properties this packet may carry, behind `first`.
fn properties_behind(
    first: Option<Property<'static>>,
    context: PropertyContext,
    version: Version,
) -> BoxedStrategy<Properties<'static>> {
    if version != Version::V5 {
        return Just(Properties::EMPTY).boxed();
    }
    prop_oneof![1 => Just(Vec::new()), 4 => prop::collection::vec(property(), 0..30)]
        .prop_map(move |candidates| run(first.into_iter().chain(candidates), context))
        .boxed()
}

fn properties(context: PropertyContext, version: Version) -> BoxedStrategy<Properties<'static>> {
    properties_behind(None, context, version)
}

/// The longest run of these that `context` may carry.
pub(crate) fn run<'a>(
    candidates: impl Iterator<Item = Property<'a>>,
    context: PropertyContext,
) -> Properties<'static> {
    let mut run = PropertiesBuf::new();
    for candidate in candidates {
        let mut longer = run.clone();
        longer.push(candidate);
        if Properties::parse(longer.as_properties().as_bytes(), context).is_ok() {
            run = longer;
        }
    }
    let run: &'static PropertiesBuf = Box::leak(Box::new(run));
    run.as_properties()
}

fn connect(version: Version) -> Packets {
    let flags = (any::<bool>(), any::<bool>(), any::<u16>());
    let identity = (text(), prop::option::of(text()), prop::option::of(bytes()));
    let will = prop::option::of(will(version));
    (flags, identity, properties(PropertyContext::Connect, version), will)
        .prop_map(move |((bridge, clean_start, keep_alive_seconds), identity, properties, will)| {
            let (client_id, username, password) = identity;
            let old = version != Version::V5;
            let client_id = if old && client_id.is_empty() { "c" } else { client_id };
            let password = password.filter(|_| !old || username.is_some());
            Packet::Connect(Box::new(Connect {
                version,
                bridge: bridge && old,
                clean_start,
                keep_alive_seconds,
                properties,
                client_id,
                will,
                username,
                password,
            }))
        })
        .boxed()
}

fn will(version: Version) -> impl Strategy<Value = Will<'static>> {
    (qos(), any::<bool>(), properties(PropertyContext::Will, version), topic(), bytes()).prop_map(
        |(qos, retain, properties, topic, payload)| Will { qos, retain, properties, topic, payload },
    )
}

fn connack(version: Version) -> Packets {
    (any::<bool>(), reason(PacketType::ConnAck), properties(PropertyContext::ConnAck, version))
        .prop_map(move |(present, reason, properties)| {
            let reason = match version {
                Version::V5 => reason,
                _ => reason
                    .connack_return_code()
                    .and_then(ReasonCode::from_connack_return_code)
                    .unwrap_or(ReasonCode::ServerUnavailable),
            };
            let session_present = present && !reason.is_error() && version != Version::V31;
            Packet::ConnAck(ConnAck { session_present, reason, properties })
        })
        .boxed()
}

fn publish(version: Version) -> Packets {
    let flags = (qos(), any::<bool>(), any::<bool>(), any::<bool>(), packet_id());
    (flags, topic(), properties(PropertyContext::Publish, version), bytes())
        .prop_map(|((qos, dup, retain, aliased, id), topic, properties, payload)| {
            let numbered = qos != QoS::AtMostOnce;
            let aliased = aliased && properties.topic_alias().is_some();
            Packet::Publish(Publish {
                dup: dup && numbered,
                qos,
                retain,
                topic: if aliased { "" } else { topic },
                packet_id: numbered.then_some(id),
                properties,
                payload,
            })
        })
        .boxed()
}

fn ack(kind: PacketType, context: PropertyContext, version: Version) -> BoxedStrategy<Ack<'static>> {
    (packet_id(), reason(kind), properties(context, version))
        .prop_map(move |(packet_id, reason, properties)| {
            let reason = if version == Version::V5 { reason } else { ReasonCode::Success };
            Ack { packet_id, reason, properties }
        })
        .boxed()
}

fn options(version: Version) -> impl Strategy<Value = SubscriptionOptions> {
    (qos(), any::<bool>(), any::<bool>(), 0..3_u8).prop_map(
        move |(qos, no_local, retain_as_published, handling)| {
            let retain_handling = match handling {
                0 => RetainHandling::SendAtSubscribe,
                1 => RetainHandling::SendIfNew,
                _ => RetainHandling::DoNotSend,
            };
            match version {
                Version::V5 => SubscriptionOptions { qos, no_local, retain_as_published, retain_handling },
                _ => SubscriptionOptions { qos, ..SubscriptionOptions::default() },
            }
        },
    )
}

fn subscribe(version: Version) -> Packets {
    let entry = (filter(), options(version)).prop_map(|(filter, mut options)| {
        options.no_local &= !filter.starts_with("$share/");
        SubscribeFilter { filter, options }
    });
    let filters = prop::collection::vec(entry, 1..5).prop_map(SmallVec::from_vec);
    (packet_id(), properties(PropertyContext::Subscribe, version), filters)
        .prop_map(|(packet_id, properties, filters)| {
            Packet::Subscribe(Subscribe { packet_id, properties, filters })
        })
        .boxed()
}

fn suback(version: Version) -> Packets {
    let reason = reason(PacketType::SubAck).prop_map(move |reason| match version {
        Version::V31 | Version::V311 if reason.is_error() => ReasonCode::UnspecifiedError,
        _ => reason,
    });
    let reasons = prop::collection::vec(reason, 1..6).prop_map(SmallVec::from_vec);
    (packet_id(), properties(PropertyContext::SubAck, version), reasons)
        .prop_map(|(packet_id, properties, reasons)| {
            Packet::SubAck(SubAck { packet_id, properties, reasons })
        })
        .boxed()
}

fn unsubscribe(version: Version) -> Packets {
    let filters = prop::collection::vec(filter(), 1..5).prop_map(SmallVec::from_vec);
    (packet_id(), properties(PropertyContext::Unsubscribe, version), filters)
        .prop_map(|(packet_id, properties, filters)| {
            Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters })
        })
        .boxed()
}

fn unsuback(version: Version) -> Packets {
    let count = if version == Version::V5 { 1..6 } else { 0..1 };
    let reasons = prop::collection::vec(reason(PacketType::UnsubAck), count).prop_map(SmallVec::from_vec);
    (packet_id(), properties(PropertyContext::UnsubAck, version), reasons)
        .prop_map(|(packet_id, properties, reasons)| {
            Packet::UnsubAck(UnsubAck { packet_id, properties, reasons })
        })
        .boxed()
}

fn disconnect(version: Version) -> Packets {
    (reason(PacketType::Disconnect), properties(PropertyContext::Disconnect, version))
        .prop_map(move |(reason, properties)| {
            let reason = if version == Version::V5 { reason } else { ReasonCode::Success };
            Packet::Disconnect(Disconnect { reason, properties })
        })
        .boxed()
}

fn auth() -> Packets {
    let method = Some(Property::AuthenticationMethod("SCRAM-SHA-256"));
    let full = (reason(PacketType::Auth), properties_behind(method, PropertyContext::Auth, Version::V5))
        .prop_map(|(reason, properties)| Packet::Auth(Auth { reason, properties }));
    let bare = Packet::Auth(Auth { reason: ReasonCode::Success, properties: Properties::EMPTY });
    prop_oneof![9 => full, 1 => Just(bare)].boxed()
}
