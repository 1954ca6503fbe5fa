//! A broker in this process, driven over real sockets packet by packet: one file per chapter. No test waits for
//! time to pass: each waits for what it asks for, with a bound.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod acl;
mod aliases;
mod answers;
mod auth;
mod banned;
mod battery;
mod captures;
mod certificates;
mod connect;
mod device;
mod durable;
mod enrolment;
mod errors;
mod extensions;
mod fields;
mod half_open;
mod handshakes;
mod harness;
mod hostile;
mod information;
mod keepalive;
mod limits;
mod link_bursts;
mod link_certificates;
mod link_confinement;
mod link_durable;
mod link_rules;
mod load;
mod logins;
mod metrics;
mod older;
mod proxy;
mod publish;
mod rates;
mod reload;
mod retained;
mod revoked;
mod scram;
mod session;
mod shared;
mod shutdown;
mod slow;
mod stored;
mod subscribe;
mod sys;
mod threads;
mod tightened;
mod transports;
mod unix;
mod will;
