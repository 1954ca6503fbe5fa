//! EMQX cluster linking: payloads and state machines, pure; driven by `broker`.
//!
//! Bytes: [`etf`], [`compress`], [`payload`] (control operations), [`message`] (forwarded messages), [`name`]
//! (topics and ClientIDs). What we want from a peer: [`route`], [`pending`], [`replicator`]. What a peer wants
//! from us: [`remote_routes`], [`export`], [`ingress`]. Up to which QoS: [`bounds`]. What it sends us: [`alike`], [`seen`]. What we send it: [`lane`].
//! What two of ours say beyond EMQX's protocol: [`extension`], [`balance`], [`relay`], [`retained`].

pub mod alike;
mod arena;
pub mod backoff;
pub mod balance;
pub mod bounds;
pub mod compress;
pub mod etf;
pub mod export;
pub mod extension;
pub mod ingress;
pub mod lane;
pub mod message;
pub mod name;
pub mod payload;
pub mod pending;
pub mod relay;
pub mod remote_routes;
pub mod replicator;
pub mod retained;
pub mod route;
pub mod seen;
