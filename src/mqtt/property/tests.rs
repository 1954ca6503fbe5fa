use proptest::prelude::*;

use crate::mqtt::reason::ReasonCode;

use super::*;

const CONTEXTS: [PropertyContext; 14] = [
    PropertyContext::Will,
    PropertyContext::Connect,
    PropertyContext::ConnAck,
    PropertyContext::Publish,
    PropertyContext::PubAck,
    PropertyContext::PubRec,
    PropertyContext::PubRel,
    PropertyContext::PubComp,
    PropertyContext::Subscribe,
    PropertyContext::SubAck,
    PropertyContext::Unsubscribe,
    PropertyContext::UnsubAck,
    PropertyContext::Disconnect,
    PropertyContext::Auth,
];

/// One valid value of each.
const SAMPLES: [Property<'_>; 27] = [
    Property::PayloadFormatIndicator(1),
    Property::MessageExpiryInterval(70_000),
    Property::ContentType("text/plain"),
    Property::ResponseTopic("re/ply"),
    Property::CorrelationData(&[0, 255]),
    Property::SubscriptionIdentifier(268_435_455),
    Property::SessionExpiryInterval(u32::MAX),
    Property::AssignedClientIdentifier("auto-1"),
    Property::ServerKeepAlive(60),
    Property::AuthenticationMethod("SCRAM"),
    Property::AuthenticationData(&[1, 0, 2]),
    Property::RequestProblemInformation(false),
    Property::WillDelayInterval(5),
    Property::RequestResponseInformation(true),
    Property::ResponseInformation("info"),
    Property::ServerReference("other:1883"),
    Property::ReasonString("because"),
    Property::ReceiveMaximum(10),
    Property::TopicAliasMaximum(0),
    Property::TopicAlias(1),
    Property::MaximumQoS(1),
    Property::RetainAvailable(false),
    Property::UserProperty("ключ", ""),
    Property::MaximumPacketSize(1_000),
    Property::WildcardSubscriptionAvailable(true),
    Property::SubscriptionIdentifierAvailable(false),
    Property::SharedSubscriptionAvailable(true),
];

fn bytes(properties: &[Property<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    properties.iter().for_each(|property| property.encode(&mut out));
    out
}

/// The lists of sections 3.1.2.11 to 3.15.2.2, counted there.
#[test]
fn each_packet_carries_its_own_properties() {
    let counts = [7, 9, 17, 8, 2, 2, 2, 2, 2, 2, 1, 2, 4, 4];
    for (context, expected) in CONTEXTS.into_iter().zip(counts) {
        let allowed = SAMPLES
            .iter()
            .filter(|sample| {
                let mut run = Vec::new();
                if matches!(sample, Property::AuthenticationData(_)) {
                    Property::AuthenticationMethod("m").encode(&mut run);
                }
                sample.encode(&mut run);
                Properties::parse(&run, context).is_ok()
            })
            .count();
        assert_eq!(allowed, expected, "{context:?}");
    }
}

#[test]
fn samples_are_read_as_written() {
    assert_eq!(PropertyId::ALL.len(), SAMPLES.len());
    for (sample, &id) in SAMPLES.iter().zip(PropertyId::ALL) {
        assert_eq!(sample.id(), id);
        assert_eq!(PropertyId::from_u8(id as u8), Some(id));
        let run = bytes(&[*sample]);
        assert_eq!(run[0], id as u8);
        let read: Vec<_> = Properties(&run).iter().collect();
        assert_eq!(read, [*sample]);
    }
    assert_eq!(PropertyId::from_u8(0), None);
    assert_eq!(PropertyId::from_u8(0x2B), None);
}

#[test]
fn getters_find_their_property() {
    let run = bytes(&SAMPLES);
    let all = Properties(&run);
    assert_eq!(all.payload_format_indicator(), Some(1));
    assert_eq!(all.message_expiry_interval(), Some(70_000));
    assert_eq!(all.content_type(), Some("text/plain"));
    assert_eq!(all.response_topic(), Some("re/ply"));
    assert_eq!(all.correlation_data(), Some(&[0, 255][..]));
    assert_eq!(all.subscription_identifiers().collect::<Vec<_>>(), [268_435_455]);
    assert_eq!(all.session_expiry_interval(), Some(u32::MAX));
    assert_eq!(all.assigned_client_identifier(), Some("auto-1"));
    assert_eq!(all.server_keep_alive(), Some(60));
    assert_eq!(all.authentication_method(), Some("SCRAM"));
    assert_eq!(all.authentication_data(), Some(&[1, 0, 2][..]));
    assert_eq!(all.request_problem_information(), Some(false));
    assert_eq!(all.will_delay_interval(), Some(5));
    assert_eq!(all.request_response_information(), Some(true));
    assert_eq!(all.response_information(), Some("info"));
    assert_eq!(all.server_reference(), Some("other:1883"));
    assert_eq!(all.reason_string(), Some("because"));
    assert_eq!(all.receive_maximum(), NonZeroU16::new(10));
    assert_eq!(all.topic_alias_maximum(), Some(0));
    assert_eq!(all.topic_alias(), NonZeroU16::new(1));
    assert_eq!(all.maximum_qos(), Some(QoS::AtLeastOnce));
    assert_eq!(all.retain_available(), Some(false));
    assert_eq!(all.user_properties().collect::<Vec<_>>(), [("ключ", "")]);
    assert_eq!(all.maximum_packet_size(), NonZeroU32::new(1_000));
    assert_eq!(all.wildcard_subscription_available(), Some(true));
    assert_eq!(all.subscription_identifier_available(), Some(false));
    assert_eq!(all.shared_subscription_available(), Some(true));
    assert_eq!(Properties::EMPTY.reason_string(), None);
    assert_eq!(Properties::EMPTY.iter().count(), 0);
}

/// Twice is a Protocol Error, but for User Property and, in PUBLISH, Subscription Identifier.
#[test]
fn single_properties_stand_once() {
    for context in CONTEXTS {
        for sample in SAMPLES {
            let mut run = bytes(&[Property::AuthenticationMethod("m"), sample]);
            if !matches!(sample, Property::AuthenticationData(_)) {
                run = bytes(&[sample]);
            }
            if Properties::parse(&run, context).is_err() {
                continue;
            }
            sample.encode(&mut run);
            let repeatable = matches!(sample, Property::UserProperty(..))
                || matches!(sample, Property::SubscriptionIdentifier(_))
                    && context == PropertyContext::Publish;
            let result = Properties::parse(&run, context);
            assert_eq!(result.is_ok(), repeatable, "{context:?} {sample:?}");
            if let Err(fault) = result {
                assert_eq!(fault.reason, ReasonCode::ProtocolError);
            }
        }
    }
}

#[test]
fn what_has_no_form_is_left_out() {
    let long = "a".repeat(65_536);
    let mut run = PropertiesBuf::new();
    run.push(Property::ReasonString(&long))
        .push(Property::UserProperty("k", "v\0"))
        .push(Property::CorrelationData(long.as_bytes()))
        .push(Property::SubscriptionIdentifier(268_435_456));
    assert!(run.as_properties().is_empty());
    run.push(Property::ReasonString("ok"));
    assert_eq!(run.as_properties().reason_string(), Some("ok"));
    run.clear();
    assert_eq!(run, PropertiesBuf::new());
}

/// `[MQTT-1.5.7-1]`
#[test]
fn both_halves_of_a_user_property_are_strings() {
    let pair = |name: &[u8], value: &[u8]| {
        let mut run = vec![PropertyId::UserProperty as u8];
        for half in [name, value] {
            run.extend_from_slice(&(half.len() as u16).to_be_bytes());
            run.extend_from_slice(half);
        }
        run
    };
    for context in CONTEXTS {
        assert!(Properties::parse(&pair(b"name", "\u{FEFF}é".as_bytes()), context).is_ok());
        for (bad, statement) in [
            (&b"a\0"[..], "[MQTT-1.5.4-2]"),
            (b"\xff", "[MQTT-1.5.4-1]"),
            (b"\xed\xa0\x80", "[MQTT-1.5.4-1]"),
        ] {
            for run in [pair(bad, b"value"), pair(b"name", bad)] {
                let fault = Properties::parse(&run, context).unwrap_err();
                assert_eq!((fault.reason, fault.statement), (ReasonCode::MalformedPacket, statement));
            }
        }
    }
    let mut run = PropertiesBuf::new();
    run.push(Property::UserProperty("n\0", "v")).push(Property::UserProperty("n", "v\0"));
    assert!(run.as_properties().is_empty());
}

#[test]
fn authentication_data_is_not_shown() {
    let mut run = PropertiesBuf::new();
    run.push(Property::AuthenticationMethod("m")).push(Property::AuthenticationData(b"\xD7secret"));
    assert_eq!(format!("{run:?}"), r#"[AuthenticationMethod("m"), AuthenticationData([hidden])]"#);
}

#[test]
fn only_what_belongs_to_the_message_is_forwarded() {
    let kept = [
        Property::UserProperty("a", "1"),
        Property::PayloadFormatIndicator(1),
        Property::UserProperty("a", "2"),
        Property::CorrelationData(b"c"),
    ];
    let run = bytes(&kept);
    assert!(matches!(Properties(&run).forwarded(), Cow::Borrowed(same) if same == run));
    let mixed = [
        kept[0],
        Property::TopicAlias(1),
        kept[1],
        Property::MessageExpiryInterval(1),
        kept[2],
        Property::SubscriptionIdentifier(300),
        kept[3],
        Property::WillDelayInterval(1),
    ];
    let all = bytes(&mixed);
    assert_eq!(Properties(&all).forwarded(), run);
    let mut room = vec![0; all.len()];
    assert_eq!(Properties(&all).forwarded_into(&mut room), run.len());
    assert_eq!(room[..run.len()], run);
}

#[test]
fn one_pass_finds_what_decides_about_a_publish() {
    let of = |list: &[Property<'_>]| Properties(&bytes(list)).of_publish();
    let none = PublishProperties { all_forwarded: true, ..PublishProperties::default() };
    assert_eq!(of(&[]), none);
    assert_eq!(of(&[Property::UserProperty("a", "1"), Property::PayloadFormatIndicator(0)]), none);
    assert_eq!(of(&[Property::PayloadFormatIndicator(1)]), PublishProperties { is_text: true, ..none });
    let some = PublishProperties { all_forwarded: false, ..none };
    assert_eq!(
        of(&[Property::MessageExpiryInterval(7), Property::TopicAlias(3)]),
        PublishProperties { message_expiry_interval: Some(7), topic_alias: NonZeroU16::new(3), ..some }
    );
    let identified = PublishProperties { subscription_identifier: true, ..some };
    assert_eq!(of(&[Property::SubscriptionIdentifier(1)]), identified);
}

proptest! {
    /// What parse accepts is read to its last byte, and written again is the same.
    #[test]
    fn accepted_runs_are_wholly_readable(
        mut run in prop::collection::vec(any::<u8>(), 0..40),
        first in prop::sample::select(PropertyId::ALL.to_vec()),
        context in prop::sample::select(CONTEXTS.to_vec()),
    ) {
        run.insert(0, first as u8);
        // lengths of strings are mostly too large to ever fit
        if run.len() > 3 {
            run[1] = 0;
            run[2] %= 32;
        }
        if let Ok(properties) = Properties::parse(&run, context) {
            let again = bytes(&properties.iter().collect::<Vec<_>>());
            prop_assert_eq!(again, run);
        }
    }

    #[test]
    fn parsing_never_panics(run in prop::collection::vec(any::<u8>(), 0..64)) {
        for context in CONTEXTS {
            let _ = Properties::parse(&run, context);
        }
    }
}
