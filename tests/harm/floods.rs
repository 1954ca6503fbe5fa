//! Class B: memory that packets leave behind which look legal, sent without end.

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;

use tombolo::mqtt::encode;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;

use crate::harness::LIMIT;
use crate::harness::Q2;
use crate::harness::Setup;
use crate::harness::hello;
use crate::harness::id;
use crate::harness::message;
use crate::input::inputs;
use crate::process::Process;

/// What a warm-up may still bring: pages of code, and buffers of the size of a burst.
const SLACK_KIB: i64 = 2 * 1024;

/// Sends `packets` again and again over one connection, `count` packets in all, and reads every answer.
async fn flood(broker: &Process, client_id: &str, packets: &[u8], of: usize, count: usize) {
    let stream = TcpStream::connect(broker.address()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let mut bytes = Vec::new();
    encode::encode(&Packet::Connect(Box::new(hello(Version::V5, client_id))), Version::V5, &mut bytes)
        .unwrap();
    write.write_all(&bytes).await.unwrap();
    let block = packets.repeat(500);
    let answers = tokio::spawn(async move {
        let (mut space, mut total) = (vec![0; 64 * 1024], 0);
        while let Ok(more @ 1..) = read.read(&mut space).await {
            total += more;
        }
        total
    });
    for _ in 0..count.div_ceil(500 * of) {
        write.write_all(&block).await.unwrap();
    }
    write.write_all(&[0xE0, 0]).await.unwrap();
    let answered = time::timeout(LIMIT * 6, answers).await.expect("it reads on").unwrap();
    assert!(answered > count, "{client_id}: it was answered to the end");
}

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::encode(packet, Version::V5, &mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_million_packets_leave_memory_as_it_was() {
    let mut broker = Process::start(Setup::new()).await;
    let same_id =
        encoded(&Packet::Publish(Publish { qos: Q2, packet_id: Some(id(7)), ..message("t", b"x") }));
    let come_and_go = [&[0x82, 7, 0, 1, 0, 0, 1, b'a', 0][..], &[0xA2, 6, 0, 2, 0, 0, 1, b'a']].concat();
    let floods: [(&str, &[u8], usize); 4] = [
        ("QoS 2 with one Packet Identifier and no PUBREL", &same_id, 1),
        ("PUBREL of nothing", &[0x62, 2, 0, 9], 1),
        ("PUBREC of nothing", &[0x50, 2, 0, 9], 1),
        ("SUBSCRIBE and UNSUBSCRIBE", &come_and_go, 2),
    ];
    let count = inputs(100_000) / floods.len();
    for (name, packets, of) in floods {
        flood(&broker, "warm", packets, of, 5_000).await;
        let before = broker.resident_kib();
        flood(&broker, "flood", packets, of, count).await;
        let after = broker.resident_kib();
        println!("class B: {count} packets, {name}: {before} KiB before, {after} KiB after");
        assert!(after <= before + before / 20 + SLACK_KIB, "{name}: {before} to {after} KiB");
    }
    broker.until_metric("tombolo_sessions", 0).await;
    assert_eq!(broker.metric("tombolo_subscriptions").await, 0);
    broker.assert_unharmed();
}

/// A CONNECT whose Will has properties that no Will may have, or the same twice.
#[tokio::test]
async fn refused_wills_leave_memory_as_it_was() {
    let mut broker = Process::start(Setup::new()).await;
    let connect = |properties: &[u8]| {
        let mut body = b"\x00\x04MQTT\x05\x06\x00\x3c\x00\x00\x03dev".to_vec();
        body.push(properties.len() as u8);
        body.extend_from_slice(properties);
        body.extend_from_slice(b"\x00\x01w\x00\x04gone");
        [&[0x10, body.len() as u8][..], &body].concat()
    };
    let wills = [
        connect(&[0x18, 0, 0, 0, 5, 0x18, 0, 0, 0, 5]),
        connect(&[0x23, 0, 1]),
        connect(&[0x03, 0, 9, b'x']),
    ];
    let count = inputs(100_000) / 50;
    let mut before = 0;
    for number in 0..count {
        if number == count / 10 {
            before = broker.resident_kib();
        }
        let mut client = broker.open().await;
        client.write(&wills[number % wills.len()]).await;
        let mut rest = Vec::new();
        // A reset says as much as an end.
        let _ = time::timeout(LIMIT, client.io.read_to_end(&mut rest)).await.expect("it is refused");
        assert!(rest.is_empty() || rest[0] == 0x20 && rest[3] >= 0x80, "{rest:?}");
    }
    let after = broker.resident_kib();
    println!("class B: {count} bad Wills: {before} KiB before, {after} KiB after");
    assert!(after <= before + before / 20 + SLACK_KIB, "{before} to {after} KiB");
    broker.assert_unharmed();
}
