//! Random and mutated input: to the codec, and to a live broker over many connections.

use std::fs;
use std::path::Path;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;

use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Version;

use crate::harness::LIMIT;
use crate::harness::Setup;
use crate::harness::hello;
use crate::mutate::Dice;
use crate::mutate::mutated;
use crate::process::Process;
use crate::targets;

/// How many inputs: as `HARM_N` says, else a number that takes seconds.
#[expect(clippy::disallowed_methods, reason = "a test is told by its environment how long to be")]
pub(crate) fn inputs(usual: usize) -> usize {
    std::env::var("HARM_N").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/packet");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Mutated packets, and now and then bytes that were never one.
fn input(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    if dice.roll(10) == 0 {
        return (0..dice.roll(64)).map(|_| dice.roll(256) as u8).collect();
    }
    mutated(&seeds[dice.roll(seeds.len())], dice)
}

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
    // Nothing is kept that the input asks to be kept, so that what grows is a leak.
    let setup = Setup::new()
        .mqtt("retain_available = false\nsession_expiry_interval = \"0s\"\nidle_timeout = \"2s\"");
    let mut broker = Process::start(setup).await;
    let (seeds, count) = (seeds(), inputs(20_000));
    let mut dice = Dice(2);
    let mut early = 0;
    for number in 0..count {
        if number == count / 5 {
            early = broker.resident_kib();
        }
        exchange(&broker, &seeds, &mut dice).await;
    }
    let late = broker.resident_kib();
    println!("live: {count} inputs, a connection each, {early} KiB after a fifth, {late} KiB at the end");
    assert!(late <= early + early / 20 + 4 * 1024, "{early} to {late} KiB");
    broker.join(&hello(Version::V5, "after")).await.quiet().await;
    broker.assert_unharmed();
}

/// One connection: mostly a CONNECT and a few packets as they should be, then the input. It ends, whatever that is.
async fn exchange(broker: &Process, seeds: &[Vec<u8>], dice: &mut Dice) {
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    let mut bytes = Vec::new();
    if dice.roll(5) > 0 {
        let version = [Version::V31, Version::V311, Version::V5][dice.roll(3)];
        let connect = Packet::Connect(Box::new(hello(version, "random")));
        tombolo::mqtt::encode::encode(&connect, version, &mut bytes).unwrap();
        let subscribe: &[u8] = if version == Version::V5 {
            &[0x82, 7, 0, 1, 0, 0, 1, b'#', 1]
        } else {
            &[0x82, 6, 0, 1, 0, 1, b'#', 1]
        };
        for _ in 0..dice.roll(4) {
            bytes.extend_from_slice([subscribe, &[0xC0, 0], &[0x62, 2, 0, 9]][dice.roll(3)]);
        }
    }
    bytes.extend(input(seeds, dice));
    // It may be closed before everything is written.
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
    let mut answers = Vec::new();
    let _ = time::timeout(LIMIT, stream.read_to_end(&mut answers)).await.expect("it ends");
}
