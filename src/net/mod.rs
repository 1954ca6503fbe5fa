//! Connections: listeners, TLS, WebSocket, dialling out, the clock. What goes over a connection is no business of
//! this module: a [`transport::Transport`] is a byte stream.

pub mod address;
pub mod admission;
pub mod bucket;
pub mod clock;
mod crypto;
pub mod descriptors;
pub mod dial;
pub mod enroll;
pub mod handshake;
pub mod http_client;
pub mod listener;
pub mod memory;
mod ocsp;
pub mod own_certificate;
pub mod peer_networks;
pub mod pem;
pub mod pin;
pub mod proxy;
pub mod random;
pub mod staple;
pub mod tls;
pub mod transport;
pub mod trust;
pub mod unix;
pub mod websocket;
