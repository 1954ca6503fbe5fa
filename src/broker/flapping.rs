//! Clients that come and go all the time (EMQX's `flapping_detect`): how often each ended its connection itself
//! within a window. Pure but for its lock; who is banned for it and for how long is up to `banned`.
//!
//! A stranger must not get a victim banned. So
//! 1. only a client that was authenticated and had its session is counted: attempts that were refused, with whatever
//!    ClientID, are not, and an authenticated user is refused the session of another user's ClientID before that;
//! 2. what is counted, and banned, is not the ClientID but the ClientID **with** the listener, the address and the
//!    username that was authenticated there ([`key`]): whoever flaps as the victim's ClientID from elsewhere, or under
//!    another name, or on a listener that asks for no proof, bans himself;
//! 3. only ends that the client brought about count (`admission`): a session that is taken over, by whomever, to and
//!    fro, counts for neither side.
//!
//! What remains: where clients are anonymous, one that shares its address with a victim can have it banned. It can
//! take over that victim's session as well; who minds has clients authenticate.
//!
//! Failed authentications are not counted here: they have no identity to be counted under. Whoever counts them does so
//! by source and by username, and enters what follows with [`super::banned`].

use std::collections::HashMap;

use parking_lot::Mutex;
use rapidhash::fast::RandomState;

use crate::broker::identity::Identity;
use crate::config::settings::FlappingDetect;
use crate::time::Now;

/// Clients watched at one time.
const WATCHED_MAX: usize = 50_000;
/// Bytes of what names them: a Client Identifier may have 64 KiB.
const WATCHED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a client is watched under, and banned. Its parts are quoted, so that no name can be made to look like two.
#[must_use]
pub fn key(identity: &Identity) -> String {
    let host = identity.peer.ip().map_or_else(|| "local".to_owned(), |ip| ip.to_canonical().to_string());
    match &identity.username {
        Some(username) => format!("{} {host} {username:?} {:?}", identity.listener, identity.client_id),
        None => format!("{} {host} - {:?}", identity.listener, identity.client_id),
    }
}

/// What became of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It is counted.
    Counted,
    /// It is one too many.
    Flapping,
    /// Too many others are watched.
    Untracked,
}

#[derive(Debug)]
struct Count {
    since_ms: u64,
    times: u32,
}

#[derive(Debug, Default)]
struct Inner {
    watched: HashMap<Box<str>, Count, RandomState>,
    bytes: usize,
}

/// Who ended how many connections lately.
#[derive(Debug, Default)]
pub struct Flapping {
    inner: Mutex<Inner>,
}

impl Flapping {
    /// A client ended its connection.
    pub fn note(&self, policy: &FlappingDetect, key: &str, now: Now) -> Noted {
        let window_ms = policy.window_time.as_millis() as u64;
        let mut inner = self.inner.lock();
        if let Some(count) = inner.watched.get_mut(key) {
            if now.mono_ms >= count.since_ms + window_ms {
                *count = Count { since_ms: now.mono_ms, times: 0 };
            }
            count.times += 1;
            if count.times < policy.max_count {
                return Noted::Counted;
            }
            inner.watched.remove(key);
            inner.bytes -= key.len();
            return Noted::Flapping;
        }
        if policy.max_count <= 1 {
            return Noted::Flapping;
        }
        if inner.watched.len() >= WATCHED_MAX || inner.bytes + key.len() > WATCHED_BYTES_MAX {
            return Noted::Untracked;
        }
        inner.bytes += key.len();
        inner.watched.insert(key.into(), Count { since_ms: now.mono_ms, times: 1 });
        Noted::Counted
    }

    /// Forgets whose window is over.
    pub fn expire(&self, policy: &FlappingDetect, now: Now) {
        let window_ms = policy.window_time.as_millis() as u64;
        let mut inner = self.inner.lock();
        let Inner { watched, bytes } = &mut *inner;
        watched.retain(|key, count| {
            let keep = now.mono_ms < count.since_ms + window_ms;
            *bytes -= if keep { 0 } else { key.len() };
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const POLICY: FlappingDetect = FlappingDetect {
        enable: true,
        window_time: Duration::from_secs(60),
        max_count: 3,
        ban_time: Duration::from_secs(300),
    };

    #[test]
    fn the_last_of_too_many_within_the_window_is_flapping() {
        let (flapping, now) = (Flapping::default(), Now::default());
        assert_eq!(flapping.note(&POLICY, "a", now), Noted::Counted);
        assert_eq!(flapping.note(&POLICY, "a", now.plus_ms(1)), Noted::Counted);
        assert_eq!(flapping.note(&POLICY, "b", now.plus_ms(2)), Noted::Counted);
        assert_eq!(flapping.note(&POLICY, "a", now.plus_ms(59_999)), Noted::Flapping);
        assert_eq!(flapping.note(&POLICY, "a", now.plus_ms(60_000)), Noted::Counted, "counted anew");
    }

    #[test]
    fn a_slow_pace_is_none() {
        let flapping = Flapping::default();
        for step in 0..20 {
            assert_eq!(flapping.note(&POLICY, "a", Now::default().plus_ms(step * 30_001)), Noted::Counted);
        }
    }

    #[test]
    fn those_who_are_watched_are_bounded_in_number_and_bytes() {
        let (flapping, now) = (Flapping::default(), Now::default());
        let long = "x".repeat(64 * 1024);
        let refused =
            (0..1_000).find(|n| flapping.note(&POLICY, &format!("{n}{long}"), now) == Noted::Untracked);
        assert!(refused.is_some_and(|n| n < 130), "{refused:?}");
        flapping.expire(&POLICY, now.plus_ms(59_999));
        assert_eq!(flapping.note(&POLICY, &format!("new{long}"), now), Noted::Untracked);
        flapping.expire(&POLICY, now.plus_ms(60_000));
        let sizes = |inner: &Inner| (inner.watched.len(), inner.bytes);
        assert_eq!(sizes(&flapping.inner.lock()), (0, 0));
        for n in 0..WATCHED_MAX {
            assert_eq!(flapping.note(&POLICY, &n.to_string(), now), Noted::Counted);
        }
        assert_eq!(flapping.note(&POLICY, "another", now), Noted::Untracked);
        assert_eq!(flapping.note(&POLICY, "0", now), Noted::Counted, "whoever is watched stays so");
    }
}
