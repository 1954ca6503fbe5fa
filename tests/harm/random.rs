//! Random and mutated input: to the codec, and to a live broker over many connections.

use tombolo::mqtt::packet::Version;

use crate::harness::Setup;
use crate::harness::hello;
use crate::input::exchange;
use crate::input::input;
use crate::input::inputs;
use crate::input::seeds;
use crate::mutate::Dice;
use crate::process::Process;
use crate::targets;

/// Where memory is looked at on the way.
const STEPS: usize = 10;
/// What may come after the warm-up: topics that were never seen fill the cache of Topic Names, up to `CACHED_NAMES_MAX`, and
/// who came within the sweeper's horizon has half a kilobyte there. `tests/leaks` shows that nothing else grows.
const CACHE_KIB: i64 = 4 * 1024;

#[test]
fn random_and_mutated_input_does_the_codec_no_harm() {
    let (seeds, count) = (seeds(), inputs(200_000));
    let mut dice = Dice(1);
    for _ in 0..count {
        targets::packet(&input(&seeds, &mut dice));
    }
    println!("codec: {count} inputs, each before CONNECT and in three versions");
}

#[tokio::test]
async fn random_and_mutated_input_does_a_broker_no_harm() {
    // Nothing is kept that the input asks to be kept. `tests/leaks` shows the same to the byte.
    let setup = Setup::new()
        .mqtt("retain_available = false\nsession_expiry_interval = \"0s\"\nidle_timeout = \"2s\"");
    let mut broker = Process::start(setup).await;
    let (seeds, count) = (seeds(), inputs(20_000));
    let mut dice = Dice(2);
    let mut resident = Vec::new();
    for step in 1..=STEPS {
        for _ in 0..count / STEPS {
            exchange(broker.address(), &seeds, &mut dice).await;
        }
        resident.push(broker.resident_kib());
        let mut kept = String::new();
        for sample in ["sessions", "subscriptions", "queued_messages", "retained_messages"] {
            kept += &format!(", {sample} {}", broker.metric(&format!("tombolo_{sample}")).await);
        }
        println!("live: {} inputs, {} KiB{kept}", count / STEPS * step, resident[step - 1]);
    }
    let (warm, late) = (resident[STEPS / 2 - 1], resident[STEPS - 1]);
    assert!(late <= warm + CACHE_KIB, "{resident:?} KiB");
    broker.join(&hello(Version::V5, "after")).await.quiet().await;
    broker.assert_unharmed();
}
