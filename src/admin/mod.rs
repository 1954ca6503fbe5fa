//! What an operator touches: the command line, health and metrics over HTTP, the demo.

pub mod base64;
pub mod cli;
pub mod commands;
pub mod http;
pub mod keys;
pub mod logging;
pub mod node;
pub mod systemd;
