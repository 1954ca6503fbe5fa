//! TLS over real sockets: who is let in, who is not and why, and what a wrong file is told. Certificates are made for
//! each test; what the generator cannot make is in `tests/fixtures/tls`.
//!
//! The cases of `authn-tls.md` section 6, T1 to T16, and where each is tested; T9 and T10 need a foreign client.
//!
//! | case | tests |
//! |---|---|
//! TABLE

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod certificates;
mod files;
mod handshakes;
mod make;
mod servers;
