//! What of a link outlives the process. The storage is in memory: what a power cut leaves is a copy of what was committed.

use std::sync::Arc;

use tombolo::mqtt::packet::Version;
use tombolo::storage::Storage;
use tombolo::storage::Table;
use tombolo::storage::memory::Memory;

use crate::harness::Q1;
use crate::harness::Setup;
use crate::link_bursts::Burst;
use crate::link_bursts::MESSAGES;
use crate::link_bursts::dial;
use crate::link_bursts::plain;
use crate::link_bursts::set_up;

#[tokio::test]
async fn what_a_peer_sent_before_a_power_cut_is_known_when_it_comes_again() {
    let before = Arc::new(Memory::default());
    let broker = set_up(Setup::new()).start_on(Arc::clone(&before)).await;
    let mut near = broker.join(Version::V5, "near").await;
    near.subscribe("fwd/#", Q1).await;
    let mut peer = dial(&broker, "clink-B-1").await;
    let sent: Vec<Vec<u8>> = (0..3).map(|number| plain("fwd/1", &number.to_string())).collect();
    let mut burst = Burst::default();
    sent.iter().for_each(|message| burst.add_marked(false, MESSAGES, Q1, message, 0));
    // Each alone, too: what goes on by itself is known as well.
    let long = "x".repeat(600);
    let mut compressed = plain("fwd/1", &long);
    assert!(tombolo::link::compress::Deflater::default().shrink(&mut compressed, 0, 0));
    burst.add_marked(false, MESSAGES, Q1, &compressed, 0);
    burst.play(&mut peer).await;
    assert_eq!(near.receive_texts(4).await, ["0", "1", "2", &long]);
    assert!(before.usage().entries >= 1, "it is there when the peer is told so");

    let after = Arc::new(before.copy());
    let broker = set_up(Setup::new()).start_on(Arc::clone(&after)).await;
    let mut near = broker.join(Version::V5, "near").await;
    near.subscribe("fwd/#", Q1).await;
    // Over another connection, marked or not.
    let mut peer = dial(&broker, "clink-B-2").await;
    let mut burst = Burst::default();
    for (dup, message) in [(true, &sent[0]), (false, &sent[2]), (true, &compressed)] {
        burst.add_marked(dup, MESSAGES, Q1, message, 0);
    }
    burst.add_marked(true, MESSAGES, Q1, &plain("fwd/1", "new"), 0);
    burst.play(&mut peer).await;
    assert_eq!(near.receive_texts(1).await, ["new"]);
    near.quiet().await;
    assert_eq!(broker.metric("tombolo_link_duplicates_suppressed_total{peer=\"B\"}"), 3);

    // Of a link that is gone nothing is left.
    let gone = Arc::new(after.copy());
    let broker = Setup::new().start_on(Arc::clone(&gone)).await;
    broker.server.stop().await;
    for table in [Table::Spool, Table::Seen, Table::Incarnation, Table::Wanted] {
        let mut left = 0;
        gone.for_each(table, &mut |_| left += 1).unwrap();
        assert_eq!(left, 0, "{}", table.name());
    }
}
