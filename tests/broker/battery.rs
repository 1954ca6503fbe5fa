//! A battery of packets that must not be: every type (and type 0), each version, before CONNECT and after it, each
//! with the faults that its layout allows. What is expected is from the standard, not from the code: `packets.rs`
//! says what a good packet looks like and which faults there are.
//!
//! After each batch the broker still serves a second client, and by its metrics no connection and no session is
//! left over. A panic of the broker's code, on whatever thread, fails the test.

mod packets;

use std::collections::BTreeSet;
use std::panic;
use std::sync::Once;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::reason::ReasonCode;

use crate::battery::packets::Case;
use crate::battery::packets::Phase;
use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::hello;

/// What the standard has for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Not one byte, and the end.
    Closed,
    /// 5.0: CONNACK with this Reason Code, and the end. Before 5.0 only the end.
    Refused(u8),
    /// CONNACK with this code in every version, and the end.
    ConnAck(u8),
    /// 5.0: DISCONNECT with this Reason Code, and the end. Before 5.0 only the end.
    Disconnect(u8),
    /// The connection goes on; this answer comes, if any.
    Answer(&'static [u8]),
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts panics in the broker's own code. A task that panics takes only itself along, and would look like a
/// connection that was closed.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.location().is_some_and(|place| place.file().starts_with("src/")) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(info);
        }));
    });
}

/// Runs the cases of one version and phase against a broker with a client that must not notice.
async fn run(version: Version, phase: Phase) {
    count_panics();
    let cases = packets::cases(version, phase);
    let types: BTreeSet<u8> = cases.iter().map(|case| case.bytes[0] >> 4).collect();
    assert_eq!(types.len(), 16, "every type has its faults: {types:?}");
    let broker = broker().await;
    let mut bystander = broker.join(Version::V5, "bystander").await;
    bystander.subscribe("bystander", Q1).await;
    for (number, case) in cases.iter().enumerate() {
        check(&broker, version, phase, case, number).await;
    }
    assert_eq!(bystander.publish("bystander", b"served", Q1).await, 0);
    assert_eq!(bystander.receive().await.text(), "served");
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 1).await;
    broker.until_metric("tombolo_sessions", 1).await;
    broker.until_metric("tombolo_subscriptions", 1).await;
    assert_eq!(broker.metric("tombolo_retained_messages"), 0);
    broker.until_metric("tombolo_inflight_messages", 0).await;
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

async fn check(broker: &Running, version: Version, phase: Phase, case: &Case, number: usize) {
    let mut client = broker.open().await;
    client.version = version;
    if phase == Phase::AfterConnect {
        // An identifier of its own: a session left behind would be counted.
        let id = format!("battery-{number}");
        assert_eq!(client.connect(&hello(version, &id)).await, Got::ConnAck(false, 0));
    }
    // Shown if the test fails: what nobody answers fails far from here.
    println!("{}", case.what);
    client.write(&case.bytes).await;
    let got = outcome(&mut client, case).await;
    let shown = &case.bytes[..case.bytes.len().min(40)];
    assert_eq!(got, wanted(version, case), "{version:?} {phase:?}: {}: {shown:02x?}", case.what);
    if got.last() != Some(&Got::Closed) {
        client.leave().await;
    }
}

/// What came until the end, or until PINGRESP where the connection is to go on.
async fn outcome(client: &mut Client, case: &Case) -> Vec<Got> {
    let mut got = Vec::new();
    if let Expect::Answer(_) = case.expect {
        client.write(&[0xC0, 0]).await;
    }
    loop {
        let next = client.next().await;
        let last = matches!(next, Got::Closed | Got::PingResp);
        got.push(next);
        if last {
            return got;
        }
    }
}

fn wanted(version: Version, case: &Case) -> Vec<Got> {
    let only_5_0 = |got| if version == Version::V5 { vec![got, Got::Closed] } else { vec![Got::Closed] };
    match case.expect {
        Expect::Closed => vec![Got::Closed],
        Expect::Refused(code) => only_5_0(Got::ConnAck(false, code)),
        Expect::ConnAck(code) => vec![Got::ConnAck(false, code), Got::Closed],
        Expect::Disconnect(code) => only_5_0(Got::Disconnect(code)),
        Expect::Answer(bytes) => {
            packets::answers(version, bytes).into_iter().chain([Got::PingResp]).collect()
        }
    }
}

#[tokio::test]
async fn nothing_bad_comes_of_any_packet_before_connect_in_3_1() {
    run(VERSIONS[0], Phase::BeforeConnect).await;
}

#[tokio::test]
async fn nothing_bad_comes_of_any_packet_before_connect_in_3_1_1() {
    run(VERSIONS[1], Phase::BeforeConnect).await;
}

#[tokio::test]
async fn nothing_bad_comes_of_any_packet_before_connect_in_5_0() {
    run(VERSIONS[2], Phase::BeforeConnect).await;
}

#[tokio::test]
async fn nothing_bad_comes_of_any_packet_after_connect_in_3_1() {
    run(VERSIONS[0], Phase::AfterConnect).await;
}

#[tokio::test]
async fn nothing_bad_comes_of_any_packet_after_connect_in_3_1_1() {
    run(VERSIONS[1], Phase::AfterConnect).await;
}

#[tokio::test]
async fn nothing_bad_comes_of_any_packet_after_connect_in_5_0() {
    run(VERSIONS[2], Phase::AfterConnect).await;
}

/// Acknowledgements of the wrong kind, too early, too late and twice: none ends a delivery, none the connection.
#[tokio::test]
async fn acknowledgements_out_of_order_do_no_harm() {
    use PacketType::PubAck;
    use PacketType::PubComp;
    use PacketType::PubRec;
    use PacketType::PubRel;
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    for version in VERSIONS {
        let mut client = broker.join(version, "c").await;
        client.subscribe("t", Q2).await;
        publisher.publish("t", b"one", Q1).await;
        publisher.publish("t", b"two", Q2).await;
        let [one, two] = [client.take().await, client.take().await].map(|got| got.packet_id.unwrap());
        // 0x92, not found, is said by 5.0 alone.
        let not_found = if version == Version::V5 { 0x92 } else { 0 };
        let steps = [
            (PubAck, two, None),
            (PubComp, two, None),
            (PubComp, one, None),
            (PubRec, one, Some((PubRel, not_found))),
            (PubRel, two, Some((PubComp, not_found))),
        ];
        for (kind, id, answer) in steps.into_iter().chain(steps) {
            client.ack(kind, id, ReasonCode::Success).await;
            if let Some((kind, reason)) = answer {
                assert_eq!(client.next().await, Got::Ack(kind, id, reason), "{version:?}");
            }
            client.quiet().await;
        }
        broker.until_metric("tombolo_inflight_messages", 2).await;
        client.ack(PubAck, one, ReasonCode::Success).await;
        for _ in 0..2 {
            client.ack(PubRec, two, ReasonCode::Success).await;
            assert_eq!(client.next().await, Got::Ack(PubRel, two, 0));
        }
        for id in [one, two, two] {
            client.ack(PubAck, id, ReasonCode::Success).await;
            client.ack(PubComp, id, ReasonCode::Success).await;
        }
        client.quiet().await;
        broker.until_metric("tombolo_inflight_messages", 0).await;
        publisher.publish("t", b"three", Q2).await;
        assert_eq!(client.receive().await.text(), "three");
        client.leave().await;
    }
}

/// Good packets of every type that end anywhere, because the client is gone.
#[tokio::test]
async fn half_a_packet_and_gone_leaves_nothing() {
    count_panics();
    let broker = broker().await;
    let mut bystander = broker.join(Version::V5, "bystander").await;
    let mut sent = 0;
    for version in VERSIONS {
        for kind in PacketType::ALL {
            let bytes = packets::good(kind.as_u8(), version);
            for end in 1..bytes.len() {
                let mut client = broker.open().await;
                client.version = version;
                if kind != PacketType::Connect {
                    let id = format!("half-{sent}");
                    assert_eq!(client.connect(&hello(version, &id)).await, Got::ConnAck(false, 0));
                }
                client.write(&bytes[..end]).await;
                drop(client);
                sent += 1;
            }
        }
    }
    assert!(sent > 300, "{sent}");
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 1).await;
    broker.until_metric("tombolo_sessions", 1).await;
    bystander.quiet().await;
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}
