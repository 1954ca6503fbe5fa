//! Who published or has a session, as it is written down: what the rules ask about. What a connection proved ends with it.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

use crate::acl::confine::ListenerRole;
use crate::broker::identity::Identity;
use crate::broker::identity::Proof;
use crate::mqtt::packet::Version;
use crate::net::address::PeerAddr;
use crate::time::Now;

/// See the module. The names of the fields are part of what is on disk.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Kept {
    #[serde(rename = "client")]
    client_id: String,
    #[serde(rename = "user", default, skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// Address and port; none for a Unix domain socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<std::net::SocketAddr>,
    listener: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    role: String,
    #[serde(rename = "cn", default, skip_serializing_if = "Option::is_none")]
    common_name: Option<String>,
    #[serde(rename = "attrs", default, skip_serializing_if = "Option::is_none")]
    attributes: Option<BTreeMap<String, String>>,
    #[serde(rename = "super", default, skip_serializing_if = "is_default")]
    is_superuser: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bound_to: Option<String>,
    #[serde(rename = "v")]
    version: u8,
    #[serde(rename = "bridge", default, skip_serializing_if = "is_default")]
    is_bridge: bool,
    #[serde(rename = "since")]
    connected_unix_ms: u64,
    #[serde(rename = "keepalive", default, skip_serializing_if = "is_default")]
    keep_alive_seconds: u16,
    /// By a token, by the wall clock.
    #[serde(rename = "until", default, skip_serializing_if = "Option::is_none")]
    expires_unix_ms: Option<u64>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Kept {
    /// To be written down.
    #[must_use]
    pub fn of(identity: &Identity, now: Now) -> Self {
        Self {
            client_id: identity.client_id.to_string(),
            username: identity.username.as_deref().map(str::to_owned),
            peer: identity.peer.socket(),
            listener: identity.listener.to_string(),
            role: match identity.role {
                ListenerRole::Client => String::new(),
                ListenerRole::Link => "link".to_owned(),
                ListenerRole::Any => "any".to_owned(),
            },
            common_name: identity.common_name.as_deref().map(str::to_owned),
            attributes: identity.attributes.as_deref().cloned(),
            is_superuser: identity.is_superuser,
            bound_to: identity.bound_to.as_deref().map(str::to_owned),
            version: match identity.version {
                Version::V31 => 3,
                Version::V311 => 4,
                Version::V5 => 5,
            },
            is_bridge: identity.is_bridge,
            connected_unix_ms: identity.connected_unix_ms,
            keep_alive_seconds: identity.keep_alive_seconds,
            expires_unix_ms: identity
                .expires_mono_ms
                .map(|at| (now.unix_ms + at.get()).saturating_sub(now.mono_ms)),
        }
    }

    /// As it was read.
    #[must_use]
    pub fn identity(self, now: Now) -> Identity {
        let peer = self.peer.map_or(PeerAddr::Unix, PeerAddr::Ip);
        let role = match self.role.as_str() {
            "link" => ListenerRole::Link,
            "any" => ListenerRole::Any,
            _ => ListenerRole::Client,
        };
        let username: Option<Arc<str>> = self.username.map(Arc::from);
        let expires = |unix_ms: u64| now.mono_ms.saturating_add(unix_ms).saturating_sub(now.unix_ms).max(1);
        Identity {
            proof: Proof { username: username.clone(), ..Proof::default() },
            username,
            common_name: self.common_name.map(String::into_boxed_str),
            attributes: self.attributes.map(Box::new),
            is_superuser: self.is_superuser,
            bound_to: self.bound_to.map(Arc::from),
            version: match self.version {
                3 => Version::V31,
                4 => Version::V311,
                _ => Version::V5,
            },
            is_bridge: self.is_bridge,
            connected_unix_ms: self.connected_unix_ms,
            keep_alive_seconds: self.keep_alive_seconds,
            clean_start: false,
            expires_mono_ms: self.expires_unix_ms.and_then(|at| NonZeroU64::new(expires(at))),
            ..Identity::plain(self.client_id.into(), peer, self.listener.into(), role)
        }
    }
}
