//! The keys of tokens: read from a file with everything else, or fetched from the one URL that is configured, again and
//! again. Keys that were fetched stay in force while they cannot be fetched anew.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::RwLock;

use crate::auth::jwt::keys::KEY_SET_BYTES_MAX;
use crate::auth::jwt::keys::KeySet;
use crate::broker::Broker;
use crate::broker::authenticate::Step;
use crate::metrics::labels::Outcome;
use crate::net::clock;
use crate::net::http_client::HttpServer;
use crate::time::Now;

/// How soon keys are fetched again that could not be.
const RETRY_MS: u64 = 10_000;

/// What tokens are verified with.
#[derive(Debug, Clone)]
pub enum TokenKeys {
    /// As they were read.
    Fixed(Arc<KeySet>),
    /// As they were fetched last.
    Fetched(Arc<Fetched>),
}

/// Keys from a URL.
#[derive(Debug)]
pub struct Fetched {
    url: String,
    server: HttpServer,
    every_ms: u64,
    due_ms: AtomicU64,
    fetching: AtomicBool,
    keys: RwLock<Option<Arc<KeySet>>>,
}

impl TokenKeys {
    /// Keys to be fetched from this URL, which is that of `server`.
    #[must_use]
    pub fn fetched(url: String, server: HttpServer, every: Duration) -> Self {
        Self::Fetched(Arc::new(Fetched {
            url,
            server,
            every_ms: u64::try_from(every.as_millis()).unwrap_or(u64::MAX),
            due_ms: AtomicU64::new(0),
            fetching: AtomicBool::new(false),
            keys: RwLock::default(),
        }))
    }

    /// The keys, if there are any yet.
    #[must_use]
    pub fn get(&self) -> Option<Arc<KeySet>> {
        match self {
            Self::Fixed(keys) => Some(Arc::clone(keys)),
            Self::Fetched(fetched) => fetched.keys.read().clone(),
        }
    }

    /// Takes over what was fetched from the same URL before.
    pub(super) fn inherit(&self, before: &[Self]) {
        let Self::Fetched(new) = self else { return };
        for old in before {
            if let Self::Fetched(old) = old
                && old.url == new.url
            {
                new.keys.write().clone_from(&old.keys.read());
            }
        }
    }
}

impl Broker {
    /// Begins to fetch the keys that are due.
    pub(super) fn fetch_keys(self: &Arc<Self>, now: Now) {
        let credentials = self.authentication.credentials();
        for step in credentials.chain.iter() {
            let Step::Jwt { keys: TokenKeys::Fetched(fetched), .. } = step else { continue };
            let due = fetched.due_ms.load(Ordering::Relaxed) <= now.mono_ms;
            if due && !fetched.fetching.swap(true, Ordering::AcqRel) {
                tokio::spawn(Arc::clone(fetched).fetch(Arc::clone(self)));
            }
        }
    }
}

impl Fetched {
    async fn fetch(self: Arc<Self>, broker: Arc<Broker>) {
        // Whatever ends it, it may be fetched again, though not at once.
        let _under_way = UnderWay(&self.fetching);
        self.due_ms.store(clock::now().mono_ms + RETRY_MS, Ordering::Relaxed);
        let answer = self.server.ask(None, KEY_SET_BYTES_MAX).await;
        let keys = match answer {
            Ok((200, body)) => KeySet::json(&body).map_err(|error| error.to_string()),
            Ok((status, _)) => Err(format!("status {status}")),
            Err(error) => Err(error.to_string()),
        };
        let next = if keys.is_ok() { self.every_ms } else { RETRY_MS.min(self.every_ms) };
        match keys {
            Ok(keys) => {
                broker.metrics.broker.jwks_fetches[Outcome::Ok].inc();
                tracing::debug!(server = self.server.authority, keys = keys.len(), "keys of tokens fetched");
                *self.keys.write() = Some(Arc::new(keys));
            }
            Err(error) => {
                broker.metrics.broker.jwks_fetches[Outcome::Error].inc();
                tracing::warn!(server = self.server.authority, error, "keys of tokens cannot be fetched");
            }
        }
        self.due_ms.store(clock::now().mono_ms + next, Ordering::Relaxed);
    }
}

/// Says that nobody is at it any more, at the end of its life.
struct UnderWay<'a>(&'a AtomicBool);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
