//! Class E: many clients that take few ClientIDs from one another, with subscriptions under way.

use tokio::io::AsyncWriteExt;

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Version;

use crate::harness::Got;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::message;
use crate::mutate::Dice;

const CLIENTS: u64 = 200;
const ROUNDS: usize = 10;
/// Packets that a client waits for at most before it goes.
const PACKETS_MAX: usize = 50;

#[tokio::test]
async fn clients_that_share_ten_identifiers_leave_nothing_behind() {
    let broker = broker().await;
    let address = broker.address("tcp:default");
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|number| {
            tokio::spawn(async move {
                let mut dice = Dice(number);
                let mut taken = 0;
                for _ in 0..ROUNDS {
                    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
                    let mut client = crate::harness::Client::over(stream);
                    let id = format!("shared-{}", dice.roll(10));
                    client.version = Version::V5;
                    let asked = Connect { clean_start: dice.roll(2) == 0, ..hello(Version::V5, &id) };
                    let mut bytes = client.encoded(&Packet::Connect(Box::new(asked)));
                    for _ in 0..dice.roll(6) {
                        bytes.extend_from_slice(match dice.roll(3) {
                            0 => &[0x82, 7, 0, 1, 0, 0, 1, b't', 1],
                            1 => &[0xA2, 6, 0, 2, 0, 0, 1, b't'],
                            _ => &[0x82, 8, 0, 3, 0, 0, 2, b'+', b'/', 0][..9],
                        });
                    }
                    bytes.extend(client.encoded(&Packet::Publish(message("t", b"x"))));
                    // Taken over while it writes.
                    let wrote = client.io.write_all(&bytes).await;
                    if dice.roll(3) > 0 {
                        continue;
                    }
                    if wrote.is_err() {
                        continue;
                    }
                    // Whoever comes last to its identifier is not taken over, and may have subscribed to nothing.
                    for _ in 0..PACKETS_MAX {
                        match client.next().await {
                            Got::Closed => break,
                            Got::Disconnect(reason) => {
                                assert!([0x8E, 0x81, 0x82].contains(&reason), "{reason:#x}");
                                taken += u32::from(reason == 0x8E);
                            }
                            Got::Publish(_) => break,
                            _ => {}
                        }
                        if client.io.write_all(&[0xC0, 0]).await.is_err() {
                            break;
                        }
                    }
                }
                taken
            })
        })
        .collect();
    let mut taken = 0;
    for task in tasks {
        taken += task.await.unwrap();
    }
    println!(
        "class E: {} connections to 10 identifiers, {taken} saw that they were taken over",
        CLIENTS as usize * ROUNDS
    );
    for sample in ["tombolo_sessions", "tombolo_subscriptions", "tombolo_connections{listener=\"tcp\"}"] {
        broker.until_metric(sample, 0).await;
    }
    broker.join(Version::V5, "shared-1").await.quiet().await;
}
