//! Connections: listeners, TLS, WebSocket, the clock.
