//! Class N: settings at their least and their most, each met by the packets that they are about.

use tombolo::config;
use tombolo::config::Environment;
use tombolo::mqtt::packet::Version;

use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Setup;
use crate::harness::VERSIONS;

const ODD: [&str; 27] = [
    "max_packet_size = \"128B\"",
    "max_packet_size = \"268435460B\"",
    "max_packet_size = \"0B\"",
    "max_clientid_len = 23",
    "max_clientid_len = 0",
    "max_topic_levels = 1",
    "max_topic_levels = 0",
    "max_topic_levels = 65535",
    "max_topic_alias = 0",
    "max_qos_allowed = 0",
    "server_keepalive = 0",
    "server_keepalive = 65535",
    "max_keepalive = 0",
    "keepalive_multiplier = 0.0",
    "keepalive_multiplier = 1e300",
    "session_expiry_interval = \"0s\"",
    "max_inflight = 0",
    "max_inflight = 1",
    "max_inflight = 65535",
    "max_mqueue_len = 0",
    "max_mqueue_len = 1",
    "max_awaiting_rel = 0",
    "max_awaiting_rel = 1",
    "await_rel_timeout = \"0s\"",
    "max_subscriptions = 0",
    "max_subscriptions = 1",
    "idle_timeout = \"0s\"",
];

/// Either it is refused with its name, or the broker does with it what clients ask, in each version, and lives.
#[tokio::test]
async fn odd_settings_are_refused_or_work() {
    let mut refused = 0;
    for odd in ODD {
        let setup = Setup::new().mqtt(odd);
        let key = odd.split(' ').next().unwrap();
        if let Err(errors) = config::parse("odd.toml", &setup.text(), &Environment::default()) {
            assert!(errors.iter().all(|error| error.key.contains(key)), "{odd}: {errors:?}");
            refused += 1;
            continue;
        }
        let broker = setup.start().await;
        for version in VERSIONS {
            let mut publisher = broker.join(version, "p").await;
            let mut subscriber = broker.join(version, "s").await;
            let granted = subscriber.subscribe("t", Q2).await;
            let mut sent = 0;
            for qos in [Q0, Q1, Q2] {
                if odd == "max_qos_allowed = 0" && qos != Q0 {
                    continue;
                }
                publisher.publish("t", b"x", qos).await;
                sent += 1;
            }
            if granted < 0x80 {
                for _ in 0..sent {
                    assert_eq!(subscriber.receive().await.text(), "x", "{odd}");
                }
            }
            subscriber.quiet().await;
            publisher.leave().await;
        }
        assert_eq!(broker.join(Version::V5, "after").await.publish("t", b"x", Q0).await, 0);
        broker.server.stop().await;
    }
    println!("class N: {} odd settings, {refused} refused by name", ODD.len());
    assert!(refused > 0 && refused < ODD.len());
}
