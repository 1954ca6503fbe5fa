//! The store in the data directory: what `data.durability` makes of it, what comes back at the next start, and what is said
//! when it cannot be opened.

use std::fs;
use std::path::PathBuf;

use tombolo::broker::server::Server;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::storage::log::format::FORMAT;
use tombolo::storage::log::format::Header;

use crate::device::Device;
use crate::device::Disk;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::message;

const FSYNC: &str = "durability = \"fsync\"";
const MEMORY: &str = "durability = \"memory\"";

/// A session that is owed two messages, and a retained message.
async fn fill(broker: &Running) {
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    client.subscribe("t", Q2).await;
    client.vanish().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 0).await;
    let mut publisher = broker.join(Version::V5, "p").await;
    for (payload, qos) in [(&b"first"[..], Q1), (b"second", Q2)] {
        assert_eq!(publisher.publish("t", payload, qos).await, 0);
    }
    let retained = Publish { retain: true, qos: Q1, ..message("r", b"retained") };
    assert_eq!(publisher.publish_as(retained).await, 0x10);
}

async fn check(broker: &Running) {
    let mut publisher = broker.join(Version::V5, "p").await;
    assert_eq!(publisher.publish("t", b"third", Q1).await, 0);
    let (mut client, present) = broker.stay(Version::V5, "c").await;
    assert!(present);
    assert_eq!(client.receive_texts(3).await, ["first", "second", "third"]);
    client.subscribe("r", Q0).await;
    assert_eq!(client.receive().await.text(), "retained");
}

fn segments(setup: &Setup) -> Vec<PathBuf> {
    let entries = fs::read_dir(setup.path("data/store")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

async fn refused(setup: &Setup) -> String {
    match Server::start(setup.settings()).await {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn what_is_stored_comes_back_at_the_next_start_in_every_mode_that_stores() {
    for mode in ["fsync", "write"] {
        let broker = Setup::new().data(&format!("durability = \"{mode}\"")).start().await;
        assert_eq!(broker.metric(&format!("tombolo_durability_info{{mode=\"{mode}\"}}")), 1);
        fill(&broker).await;
        for name in ["bytes", "live_bytes", "entries", "bodies", "segments", "max_bytes"] {
            assert!(broker.metric(&format!("tombolo_store_{name}")) > 0, "{name}");
        }
        for name in ["commits_total", "records_total", "written_bytes_total", "commit_seconds_count"] {
            assert!(broker.metric(&format!("tombolo_store_{name}")) > 2, "{name}");
        }
        assert_eq!(broker.metric("tombolo_store_failures_total"), 0);
        let broker = broker.restart().await;
        check(&broker).await;
        // The log of a broker that stopped has nothing torn or damaged.
        assert_eq!(broker.metric("tombolo_store_damaged_records_total"), 0);
    }
}

#[tokio::test]
async fn in_memory_nothing_is_stored_and_what_is_there_is_left_alone() {
    let broker = Setup::new().data(FSYNC).start().await;
    fill(&broker).await;
    let setup = broker.stop().await.data(MEMORY);
    let before: Vec<Vec<u8>> = segments(&setup).iter().map(|file| fs::read(file).unwrap()).collect();
    let broker = setup.start().await;
    assert_eq!(broker.metric("tombolo_durability_info{mode=\"memory\"}"), 1);
    assert_eq!((broker.metric("tombolo_sessions"), broker.metric("tombolo_retained_messages")), (0, 0));
    let mut client = broker.join(Version::V5, "c").await;
    client.subscribe("t", Q1).await;
    let setup = broker.stop().await;
    let after: Vec<Vec<u8>> = segments(&setup).iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(before == after);
    check(&setup.data(FSYNC).start().await).await;
}

#[tokio::test]
async fn a_second_broker_on_the_directory_is_refused() {
    let broker = Setup::new().data(FSYNC).start().await;
    let setup = Setup::new().data(FSYNC);
    let mut settings = setup.settings();
    settings.data.dir = broker.path("data");
    let error = match Server::start(settings).await {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    };
    assert_eq!(error, format!("data.dir: {} is in use by another broker", broker.path("data").display()));
    fill(&broker).await;
    check(&broker.restart().await).await;
}

#[tokio::test]
async fn a_store_of_a_later_version_is_refused_and_left_as_it_is() {
    let broker = Setup::new().data(FSYNC).start().await;
    fill(&broker).await;
    let setup = broker.stop().await;
    let file = segments(&setup).pop().unwrap();
    let older = fs::read(&file).unwrap();
    let header = Header { format: FORMAT + 1, salt: 1, segment: 1, before: 0, last_number: 0 }.encode();
    let mut newer = older.clone();
    newer[..header.len()].copy_from_slice(&header);
    fs::write(&file, &newer).unwrap();
    let error = refused(&setup).await;
    let store = setup.path("data/store");
    let start =
        format!("data.dir: {}: 00000001.log has format {}, and this version", store.display(), FORMAT + 1);
    assert!(error.starts_with(&start), "{error}");
    assert!(fs::read(&file).unwrap() == newer);
    fs::write(&file, older).unwrap();
    check(&setup.start().await).await;
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_is_named() {
    let setup = Setup::new().data(FSYNC);
    fs::create_dir(setup.path("data")).unwrap();
    fs::write(setup.path("data/store"), "a file").unwrap();
    let error = refused(&setup).await;
    let start = format!("data.dir: {}: ", setup.path("data/store").display());
    assert!(error.starts_with(&start), "{error}");
    fs::remove_file(setup.path("data/store")).unwrap();
    setup.start().await;
}

#[tokio::test]
async fn of_a_damaged_file_everything_is_served_but_what_was_damaged() {
    let broker = Setup::new().data(FSYNC).start().await;
    fill(&broker).await;
    let setup = broker.stop().await;
    let file = segments(&setup).pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let place = bytes.windows(6).position(|window| window == b"second").unwrap();
    bytes[place] ^= 1;
    fs::write(&file, bytes).unwrap();
    let broker = setup.start().await;
    assert_eq!(broker.metric("tombolo_store_damaged_records_total"), 1);
    let (mut client, present) = broker.stay(Version::V5, "c").await;
    assert!(present);
    assert_eq!(client.receive().await.text(), "first");
    client.quiet().await;
    assert_eq!(broker.metric("tombolo_messages_dropped_total{reason=\"damaged\"}"), 1);
}

#[tokio::test]
async fn trouble_is_in_metrics_and_events_by_its_kind() {
    for (kind, name) in [(std::io::ErrorKind::StorageFull, "full"), (std::io::ErrorKind::Other, "failing")] {
        let device = Device::new(Default::default());
        let broker = Setup::new().start_on(std::sync::Arc::clone(&device)).await;
        let sample = format!("tombolo_store_trouble{{kind=\"{name}\"}}");
        assert_eq!(broker.metric(&sample), 0);
        device.set(Disk::Fails(kind));
        let mut publisher = broker.join(Version::V5, "p").await;
        let send = Publish { retain: true, ..message("r", b"retained") };
        publisher.publish_as(send).await;
        broker.until_metric(&sample, 1).await;
        assert!(broker.metric("tombolo_store_failures_total") > 0);
        assert!(broker.metric("tombolo_store_waiting_bytes") > 0);
        broker.until_metric("tombolo_security_events_total{event=\"sys_store_fail\"}", 1).await;
        device.set(Disk::Works);
        broker.until_metric(&sample, 0).await;
        broker.until_metric("tombolo_store_waiting_bytes", 0).await;
    }
}

#[tokio::test]
async fn what_an_acknowledgement_promises_and_the_bound_of_the_store_need_a_restart() {
    let mut broker = Setup::new().data(FSYNC).start().await;
    for (text, key) in [(MEMORY, "data.durability"), ("max_bytes = \"1GB\"", "data.max_bytes")] {
        let error = broker.reload(|setup| setup.data(text)).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("only a restart can change {key}: ")), "{error}");
    }
    assert_eq!(broker.metric("tombolo_durability_info{mode=\"fsync\"}"), 1);
    assert!(broker.reload(|setup| setup.data(FSYNC)).await.unwrap().is_empty());
}
