#![doc = include_str!("ARCHITECTURE.md")]

// In reading order, lowest layer first. Cores: pure values in, pure values out.
pub mod time;

pub mod mqtt;

pub mod acl;
pub mod auth;
pub mod link;
pub mod session;
pub mod trust;

// Shell: everything that touches the world.
pub mod config;

pub mod metrics;

pub mod net;

pub mod storage;

pub mod broker;

pub mod admin;
