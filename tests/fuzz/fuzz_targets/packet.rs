//! Any bytes as a packet, before the CONNECT and in each version: no panic, no wish for more than the limit,
//! and what is accepted is encoded and decoded again to the same packet.
//!
//! cargo install cargo-fuzz
//! cargo +nightly fuzz run --fuzz-dir tests/fuzz packet -- -max_len=4096

#![no_main]

use libfuzzer_sys::fuzz_target;

use tombolo::mqtt::decode::DecodeLimits;
use tombolo::mqtt::decode::Decoded;
use tombolo::mqtt::decode::decode;
use tombolo::mqtt::encode::encode;
use tombolo::mqtt::packet::Version;

const MAX: u32 = 4096;

fuzz_target!(|input: &[u8]| {
    for version in [None, Some(Version::V31), Some(Version::V311), Some(Version::V5)] {
        check(input, version);
    }
});

fn check(input: &[u8], version: Option<Version>) {
    let mut bytes = Vec::new();
    match decode(input, &DecodeLimits { version, max_packet_size: MAX }) {
        Ok(Decoded::Packet { packet, len }) => {
            assert!(len <= input.len() && len <= MAX as usize);
            encode(&packet, version.unwrap_or(Version::V5), &mut bytes)
                .expect("a decoded packet can be encoded");
            let again = decode(&bytes, &DecodeLimits { version, max_packet_size: u32::MAX });
            assert_eq!(again, Ok(Decoded::Packet { packet, len: bytes.len() }));
        }
        Ok(Decoded::NeedMore { total: Some(total) }) => {
            assert!(total > input.len() && total <= MAX as usize);
        }
        Ok(Decoded::NeedMore { total: None }) => assert!(input.len() < 5),
        Err(fault) => assert!(fault.reason_code().is_error()),
    }
}
