//! Response Information, Reason Strings, payload formats: what 5.0 says beside its Reason Codes.

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Disconnect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::property::PropertyContext;
use tombolo::mqtt::reason::ReasonCode;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::message;
use crate::harness::properties;

async fn join(broker: &Running, list: &[Property<'_>]) -> Client {
    let list = properties(list);
    broker.try_stay(&Connect { properties: list.as_properties(), ..hello(Version::V5, "c") }).await.0
}

fn reason_string(client: &Client, context: PropertyContext) -> Option<String> {
    Properties::parse(&client.properties, context).unwrap().reason_string().map(str::to_owned)
}

#[tokio::test]
async fn response_information_goes_to_who_asks_for_it() {
    let broker = Setup::new().mqtt("response_information = \"answers/\"").start().await;
    let cases: [(&[Property<'_>], Option<&str>); 3] = [
        (&[Property::RequestResponseInformation(true)], Some("answers/")),
        (&[Property::RequestResponseInformation(false)], None),
        (&[], None),
    ];
    for (asked, expected) in cases {
        let client = join(&broker, asked).await;
        let list = Properties::parse(&client.properties, PropertyContext::ConnAck).unwrap();
        assert_eq!(list.response_information(), expected, "[MQTT-3.1.2-28]");
        client.leave().await;
    }
    let without = crate::harness::broker().await;
    let client = join(&without, &[Property::RequestResponseInformation(true)]).await;
    let list = Properties::parse(&client.properties, PropertyContext::ConnAck).unwrap();
    assert_eq!(list.response_information(), None);
}

/// It is the one part of CONNACK that a client can do without, so that a client with little room still gets in.
#[tokio::test]
async fn response_information_is_left_out_where_it_does_not_fit() {
    let long = "answers/".repeat(20);
    let broker = Setup::new().mqtt(&format!("response_information = \"{long}\"")).start().await;
    for (room, expected) in [(300, Some(&*long)), (100, None)] {
        let asked = [Property::RequestResponseInformation(true), Property::MaximumPacketSize(room)];
        let client = join(&broker, &asked).await;
        let list = Properties::parse(&client.properties, PropertyContext::ConnAck).unwrap();
        assert_eq!(list.response_information(), expected, "{room}");
        assert!(list.receive_maximum().is_some(), "{room}");
        client.leave().await;
    }
    // What else it says cannot be left out.
    let list = properties(&[Property::RequestResponseInformation(true), Property::MaximumPacketSize(10)]);
    let mut client = broker.open().await;
    let asked = Connect { properties: list.as_properties(), ..hello(Version::V5, "c") };
    assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0x95), "[MQTT-3.1.2-24]");
}

#[tokio::test]
async fn a_refusal_says_why_if_that_is_wanted_and_fits() {
    let broker = Setup::new().acl("{deny, all, all, [\"no/#\"]}. {allow, all}.").start().await;
    let cases: [(&[Property<'_>], bool); 4] = [
        (&[], true),
        (&[Property::RequestProblemInformation(true)], true),
        (&[Property::RequestProblemInformation(false)], false), // [MQTT-3.1.2-29]
        (&[Property::MaximumPacketSize(20)], false),            // [MQTT-3.9.2-1], [MQTT-3.4.2-2]
    ];
    for (asked, told) in cases {
        let mut client = join(&broker, asked).await;
        assert_eq!(client.subscribe("no/a", Q0).await, 0x87);
        let text = reason_string(&client, PropertyContext::SubAck);
        assert_eq!(text.as_deref(), told.then_some("not authorized to subscribe"));
        for (qos, context) in [(Q1, PropertyContext::PubAck), (Q2, PropertyContext::PubRec)] {
            assert_eq!(client.publish("no/a", b"", qos).await, 0x87);
            let text = reason_string(&client, context);
            assert_eq!(text.as_deref(), told.then_some("not authorized to publish"));
        }
        assert_eq!(client.subscribe("yes", Q0).await, 0);
        assert_eq!(reason_string(&client, PropertyContext::SubAck), None);
        client.leave().await;
    }
}

#[tokio::test]
async fn a_refused_connect_says_why() {
    let broker = broker().await;
    let mut client = broker.open().await;
    let asked = hello(Version::V5, "c");
    let list = properties(&[Property::AuthenticationMethod("x")]);
    let got = client.connect(&Connect { properties: list.as_properties(), ..asked }).await;
    assert_eq!(got, Got::ConnAck(false, 0x8C));
    assert!(reason_string(&client, PropertyContext::ConnAck).is_some());
}

#[tokio::test]
async fn strict_mode_checks_payloads_that_say_they_are_text() {
    let text = properties(&[Property::PayloadFormatIndicator(1)]);
    let bytes = properties(&[Property::PayloadFormatIndicator(0)]);
    let with = |properties, payload, qos: QoS| Publish { qos, properties, ..message("t", payload) };
    let strict = Setup::new().mqtt("strict_mode = true").start().await;
    let mut client = strict.join(Version::V5, "c").await;
    client.subscribe("t", Q0).await;
    for qos in [Q1, Q2] {
        assert_eq!(client.publish_as(with(text.as_properties(), b"\xff", qos)).await, 0x99);
        assert_eq!(client.publish_as(with(bytes.as_properties(), b"\xff", qos)).await, 0);
        assert_eq!(client.receive().await.payload, b"\xff");
        assert_eq!(client.publish_as(with(text.as_properties(), "é".as_bytes(), qos)).await, 0);
        assert_eq!(client.receive().await.text(), "é");
    }
    client.publish_as(with(text.as_properties(), b"\xff", Q0)).await;
    client.refused(0x99).await;

    let lenient = broker().await;
    let mut client = lenient.join(Version::V5, "c").await;
    client.subscribe("t", Q0).await;
    assert_eq!(client.publish_as(with(text.as_properties(), b"\xff", Q1)).await, 0);
    assert_eq!(client.receive().await.payload, b"\xff");
}

#[tokio::test]
async fn a_client_disconnects_with_the_codes_of_a_client() {
    let broker = broker().await;
    let codes = [(ReasonCode::ServerShuttingDown, true), (ReasonCode::QuotaExceeded, false)];
    for (reason, refused) in codes {
        let mut client = broker.join(Version::V5, "c").await;
        client.send(&Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY })).await;
        if refused {
            client.refused(0x82).await; // [MQTT-3.14.2-1]
        } else {
            assert_eq!(client.next().await, Got::Closed);
        }
    }
}
