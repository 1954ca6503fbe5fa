//! Random and mutated packets, and connections that send them. What they ask for is bounded by the caller's settings.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Version;

use crate::harness::LIMIT;
use crate::harness::hello;
use crate::mutate::Dice;
use crate::mutate::mutated;

/// How many inputs: as `HARM_N` says, else a number that takes seconds.
pub(crate) fn inputs(usual: usize) -> usize {
    number_of("HARM_N", usual)
}

/// The number that this variable has, if it has one.
#[expect(clippy::disallowed_methods, reason = "a test is told by its environment how long to be")]
pub(crate) fn number_of(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The seeds of the fuzzer's target.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/packet");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Mutated packets, and now and then bytes that were never one.
pub(crate) fn input(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    if dice.roll(10) == 0 {
        return (0..dice.roll(64)).map(|_| dice.roll(256) as u8).collect();
    }
    mutated(&seeds[dice.roll(seeds.len())], dice)
}

/// One connection: mostly a CONNECT and a few packets as they should be, then the input. It ends, whatever that is.
pub(crate) async fn exchange(address: SocketAddr, seeds: &[Vec<u8>], dice: &mut Dice) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut bytes = Vec::new();
    if dice.roll(5) > 0 {
        let version = [Version::V31, Version::V311, Version::V5][dice.roll(3)];
        let connect = Connect { keep_alive_seconds: 1, ..hello(version, "random") };
        let connect = Packet::Connect(Box::new(connect));
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
