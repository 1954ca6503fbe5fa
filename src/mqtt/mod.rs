//! The language: MQTT Control Packets and topics, as plain values. Layouts of 3.1, 3.1.1 and 5.0 are known
//! only to `decode`, `encode` and `frame`; everything above sees [`packet::Packet`].

pub mod decode;
pub mod encode;
pub mod error;
pub mod frame;
pub mod packet;
pub mod property;
pub mod reason;
pub mod topic;
pub mod trie;
mod wire;
