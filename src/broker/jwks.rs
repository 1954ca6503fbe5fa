//! The keys of tokens: read from a file with everything else, or fetched from the one URL that is configured, again and
//! again. Keys that were fetched stay in force while they cannot be fetched anew, for `max_age` at most: whoever keeps the
//! issuer from us must not keep a key in force that it took back.

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

/// Where keys are fetched.
#[derive(Debug)]
pub struct Source {
    /// The URL.
    pub url: String,
    /// SHA-256 of the authorities that its certificate is verified by.
    pub trust: Option<[u8; 32]>,
    /// Its server.
    pub server: HttpServer,
    /// How often.
    pub every: Duration,
    /// How long keys are in force without being fetched anew.
    pub max_age: Duration,
}

/// Keys from a URL.
#[derive(Debug)]
pub struct Fetched {
    source: Source,
    due_ms: AtomicU64,
    fetching: AtomicBool,
    keys: RwLock<Option<Dated>>,
}

/// Keys, and when they were fetched.
#[derive(Debug, Clone)]
struct Dated {
    keys: Arc<KeySet>,
    fetched_ms: u64,
}

/// A fetch that is under way, until it ends: with keys, without, or by a panic.
struct Fetching(Arc<Fetched>);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.fetching.store(false, Ordering::Release);
    }
}

impl TokenKeys {
    /// Keys to be fetched from there.
    #[must_use]
    pub fn fetched(source: Source) -> Self {
        Self::Fetched(Arc::new(Fetched {
            source,
            due_ms: AtomicU64::new(0),
            fetching: AtomicBool::new(false),
            keys: RwLock::default(),
        }))
    }

    /// The keys, if there are any yet that are not too old.
    #[must_use]
    pub fn get(&self, now: Now) -> Option<Arc<KeySet>> {
        match self {
            Self::Fixed(keys) => Some(Arc::clone(keys)),
            Self::Fetched(fetched) => {
                let keys = fetched.keys.read();
                let dated =
                    keys.as_ref().filter(|dated| !fetched.source.is_too_old(dated.fetched_ms, now))?;
                Some(Arc::clone(&dated.keys))
            }
        }
    }

    /// Takes over what was fetched from the same URL before, of a server that was verified by the same authorities.
    pub(super) fn inherit(&self, before: &[Self]) {
        let Self::Fetched(new) = self else { return };
        for old in before {
            if let Self::Fetched(old) = old
                && (&old.source.url, old.source.trust) == (&new.source.url, new.source.trust)
            {
                // Both may be the same: not both locks at once.
                let keys = old.keys.read().clone();
                *new.keys.write() = keys;
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
                // What panics is tried again like what fails.
                fetched.due_ms.store(now.mono_ms + RETRY_MS, Ordering::Relaxed);
                tokio::spawn(Fetching(Arc::clone(fetched)).fetch(Arc::clone(self)));
            }
        }
    }
}

impl Source {
    fn is_too_old(&self, fetched_ms: u64, now: Now) -> bool {
        now.mono_ms >= fetched_ms.saturating_add(millis(self.max_age))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Fetching {
    async fn fetch(self, broker: Arc<Broker>) {
        let Fetched { source, due_ms, keys: current, .. } = &*self.0;
        let answer = source.server.ask(None, KEY_SET_BYTES_MAX).await;
        let keys = match answer {
            Ok((200, body)) => KeySet::json(&body).map_err(|error| error.to_string()),
            Ok((status, _)) => Err(format!("status {status}")),
            Err(error) => Err(error.to_string()),
        };
        let every_ms = millis(source.every);
        let next = if keys.is_ok() { every_ms } else { RETRY_MS.min(every_ms) };
        let (now, server) = (clock::now(), &source.server.authority);
        match keys {
            Ok(keys) => {
                broker.metrics.broker.jwks_fetches[Outcome::Ok].inc();
                tracing::debug!(server, keys = keys.len(), "keys of tokens fetched");
                *current.write() = Some(Dated { keys: Arc::new(keys), fetched_ms: now.mono_ms });
            }
            Err(error) => {
                broker.metrics.broker.jwks_fetches[Outcome::Error].inc();
                let too_old = current.read().as_ref().is_none_or(|of| source.is_too_old(of.fetched_ms, now));
                let tokens = if too_old { "refused" } else { "verified by the keys of before" };
                tracing::warn!(server, error, tokens, "keys of tokens cannot be fetched");
            }
        }
        due_ms.store(now.mono_ms + next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::jwt::keys::SECRET_BYTES_MIN;

    fn from(url: &str, trust: Option<[u8; 32]>) -> TokenKeys {
        let server = HttpServer {
            host: "127.0.0.1".to_owned(),
            port: 1,
            authority: String::new(),
            path: "/".to_owned(),
            tls: None,
            accept: "*/*",
            authorization: None,
            timeout: Duration::from_secs(1),
        };
        let (every, max_age) = (Duration::from_secs(300), Duration::from_secs(3_600));
        TokenKeys::fetched(Source { url: url.to_owned(), trust, server, every, max_age })
    }

    fn fetched(keys: &TokenKeys) -> &Arc<Fetched> {
        let TokenKeys::Fetched(fetched) = keys else { panic!("keys from a URL") };
        fetched
    }

    fn with_keys(url: &str, trust: Option<[u8; 32]>) -> TokenKeys {
        let keys = from(url, trust);
        let set = KeySet::secret(&[7; SECRET_BYTES_MIN], false).unwrap();
        *fetched(&keys).keys.write() = Some(Dated { keys: Arc::new(set), fetched_ms: 1_000 });
        keys
    }

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    #[test]
    fn keys_are_in_force_for_their_longest_age_and_no_longer() {
        let keys = with_keys("u", None);
        assert!(keys.get(at(3_600_999)).is_some());
        assert!(keys.get(at(3_601_000)).is_none());
        let after = from("u", None);
        after.inherit(&[keys]);
        assert!(
            after.get(at(3_600_999)).is_some() && after.get(at(3_601_000)).is_none(),
            "a reload is no fetch"
        );
    }

    #[test]
    fn keys_are_taken_over_from_the_same_url_and_authorities_only() {
        let before = [with_keys("u", Some([1; 32]))];
        for (url, trust, expected) in [
            ("u", Some([1; 32]), true),
            ("u", Some([2; 32]), false),
            ("u", None, false),
            ("v", Some([1; 32]), false),
        ] {
            let after = from(url, trust);
            after.inherit(&before);
            assert_eq!(after.get(at(1_000)).is_some(), expected, "{url} {trust:?}");
        }
    }

    #[test]
    fn a_fetch_that_panics_is_over_too() {
        let keys = from("u", None);
        fetched(&keys).fetching.store(true, Ordering::Release);
        let fetching = Fetching(Arc::clone(fetched(&keys)));
        let panicked = std::thread::spawn(move || {
            let _fetching = fetching;
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        assert!(!fetched(&keys).fetching.load(Ordering::Acquire));
    }
}
