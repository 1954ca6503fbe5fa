//! The drivers and what they share.

pub mod retained;
pub mod routes;
pub mod shared;
