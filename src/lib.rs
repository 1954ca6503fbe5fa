//! An MQTT broker with cluster linking.

// cores: pure values in, pure values out
pub mod acl;
pub mod auth;
pub mod link;
pub mod mqtt;
pub mod session;
pub mod time;
// shell: everything that touches the world
pub mod admin;
pub mod broker;
pub mod config;
pub mod metrics;
pub mod net;
