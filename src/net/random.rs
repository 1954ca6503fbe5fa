//! Random bytes of the operating system, through the TLS provider: the only source of randomness.

use std::fmt::Write;
use std::sync::OnceLock;

use rustls::crypto::SecureRandom;
use rustls::crypto::ring;

/// Fills `bytes`.
///
/// # Panics
/// If the operating system has no randomness to give: nothing could be kept secret then.
pub fn fill(bytes: &mut [u8]) {
    static SOURCE: OnceLock<&'static dyn SecureRandom> = OnceLock::new();
    let source = SOURCE.get_or_init(|| ring::default_provider().secure_random);
    source.fill(bytes).expect("the operating system provides randomness");
}

/// So many of them.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// A random number.
#[must_use]
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// `count` random bytes in hexadecimal.
#[must_use]
pub fn hex(count: usize) -> String {
    let mut bytes = vec![0; count];
    fill(&mut bytes);
    bytes.iter().fold(String::with_capacity(count * 2), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
