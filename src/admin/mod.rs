//! What an operator touches: the command line, HTTP with its REST API, the demo.

pub use crate::time::moment as rfc3339;

pub mod announcer;
pub mod base64;
pub mod cli;
pub mod commands;
pub mod http;
pub mod keys;
pub mod links;
pub mod logging;
pub mod node;
pub mod output;
pub mod remote;
pub mod rest;
pub mod rules;
pub mod sockets;
pub mod steward;
pub mod systemd;
pub mod trust;
