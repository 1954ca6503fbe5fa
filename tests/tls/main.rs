//! TLS over real sockets: who is let in, who is not and why, and what a wrong file is told. Certificates are made for
//! each test; what the generator cannot make is in `tests/fixtures/tls`.
//!
//! The cases of `authn-tls.md` section 6 and where each is tested. `broker` is `tests/broker/certificates.rs`; what a foreign
//! client is needed for is in `tests/interop/openssl.py`, which `.ci/run` runs.
//!
//! | case | tests |
//! |---|---|
//! | T1 no certificate | `certificates::t1_*` |
//! | T2, T3 another authority, unknown pin, copied names | `certificates::t2_*`, `pinned_clients_*`; `broker::t14_*` for the event |
//! | T4 dates and their edges | `certificates::t4_*`, `pinned_clients_*` |
//! | T5 revocation | `certificates::t5_*`; `broker::t5_*` for lists that are fetched, hang or are forged |
//! | T6 usage, authorities as clients, depth | `certificates::t6_*`, `paths::t6_*`; `auth::fitness` for each usage |
//! | T7 weak keys and signatures | `certificates::t7_*`, `files::t7_*`, `servers::t7_*`; `auth::fitness` for each kind |
//! | T8 old versions | `handshakes::t8_*`; `openssl.py` |
//! | T9 weak suites | `openssl.py`; `config` for their names |
//! | T10 renegotiation, compression, heartbeat, early data | `openssl.py` |
//! | T11, T12 not TLS, slow clients | `handshakes::t11_*`; `tests/broker/handshakes.rs`, `half_open.rs`; `tests/harm/half_open.rs` |
//! | T13 a certificate without its key | `handshakes::t13_*` |
//! | T14 revoked while connected | `broker::t14_*`, `an_authority_*` |
//! | T15 expired, or revoked by a list, while connected | `broker::t15_*`; `paths::t15_*` for what of a chain counts |
//! | T16 our link and a wrong server | `servers::t16_*`; `tests/broker/link_certificates.rs` for what is sent, state and retries |

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod certificates;
mod files;
mod handshakes;
mod make;
mod paths;
mod servers;
