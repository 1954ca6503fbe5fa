//! Any bytes as a PROXY header: no panic, no wish for more than the limit, and no other answer with more bytes
//! behind it.
//!
//! cargo +nightly fuzz run --fuzz-dir tests/fuzz proxy -- -max_len=600

#![no_main]

use libfuzzer_sys::fuzz_target;

use tombolo::net::proxy::Parsed;
use tombolo::net::proxy::V2_BYTES_MAX;
use tombolo::net::proxy::parse;

fuzz_target!(|input: &[u8]| {
    match parse(input) {
        Ok(Parsed::Header { source, length }) => {
            assert!(length <= input.len() && length <= V2_BYTES_MAX);
            assert_eq!(parse(&input[..length]), Ok(Parsed::Header { source, length }));
        }
        Ok(Parsed::NeedMore(missing)) => assert!(missing > 0 && input.len() + missing <= V2_BYTES_MAX),
        Err(_) => {}
    }
});
