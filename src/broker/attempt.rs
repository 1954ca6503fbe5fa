//! Attempts to log in, from the broker's side: whether one may be verified, that it counts while it is, and what a failure
//! leads to. What is counted, and how, is [`crate::auth::attempts`].

use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time;

use crate::auth::attempts::Held;
use crate::auth::attempts::Hindrance;
use crate::auth::attempts::Noted;
use crate::auth::attempts::Source;
use crate::auth::attempts::Ticket;
use crate::broker::Broker;
use crate::broker::authenticate::Place;
use crate::broker::events::event::SecurityEvent;
use crate::broker::events::event::What;
use crate::broker::login::shown_name;
use crate::net::clock;
use crate::time::Now;

/// How long whoever is locked out waits for its refusal.
const LOCKOUT_DELAY: Duration = Duration::from_secs(1);

/// Why an attempt is not verified.
pub(super) enum Unbegun {
    /// Too many failed before.
    Held(Held),
    /// Too many others wait for those that are being verified, or it waited too long itself.
    Busy,
}

/// An attempt that is being verified, until it is dropped.
pub(super) struct Attempt<'a> {
    broker: &'a Broker,
    name: Option<&'a str>,
    ticket: Option<Ticket>,
    /// Whether its failure is still to be counted.
    open: Mutex<bool>,
}

impl Attempt<'_> {
    /// What was shown is wrong: counted at once, and once.
    pub(super) fn failed(&self) {
        if let Some(ticket) = &self.ticket
            && std::mem::take(&mut *self.open.lock())
        {
            let now = clock::now();
            let policy = self.broker.limits().attempts;
            let noted = self.broker.attempts.lock().failed_with(&policy, ticket, now);
            self.broker.note_lockout(noted, self.name, now);
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = &self.ticket {
            self.broker.attempts.lock().over(ticket);
            if self.broker.attempts_waiting.load(Ordering::Relaxed) > 0 {
                self.broker.attempt_over.notify_waiters();
            }
        }
    }
}

impl Broker {
    /// Begins to verify an attempt, when those of the same name or source that are being verified leave room for it.
    pub(super) async fn begin_attempt<'a>(
        &'a self,
        source: Source,
        name: Option<&'a str>,
        limit: Duration,
    ) -> Result<Attempt<'a>, Unbegun> {
        match self.try_attempt(source, name) {
            Ok(attempt) => Ok(attempt),
            Err(Hindrance::Held(held)) => Err(Unbegun::Held(held)),
            Err(Hindrance::Wait) => Box::pin(self.await_attempt(source, name, limit)).await,
        }
    }

    async fn await_attempt<'a>(
        &'a self,
        source: Source,
        name: Option<&'a str>,
        limit: Duration,
    ) -> Result<Attempt<'a>, Unbegun> {
        let _place = Place::take(&self.attempts_waiting).map_err(|_| Unbegun::Busy)?;
        let turn = async {
            loop {
                let over = self.attempt_over.notified();
                tokio::pin!(over);
                // Before it is asked again, or what ends meanwhile would wake nobody.
                over.as_mut().enable();
                match self.try_attempt(source, name) {
                    Ok(attempt) => return Ok(attempt),
                    Err(Hindrance::Held(held)) => return Err(Unbegun::Held(held)),
                    Err(Hindrance::Wait) => over.await,
                }
            }
        };
        time::timeout(limit, turn).await.unwrap_or(Err(Unbegun::Busy))
    }

    fn try_attempt<'a>(&'a self, source: Source, name: Option<&'a str>) -> Result<Attempt<'a>, Hindrance> {
        let policy = self.limits().attempts;
        let (ticket, evicted) = self.attempts.lock().begin(&policy, source, name, clock::now())?;
        self.metrics.broker.authentication_forgotten.add(evicted);
        Ok(Attempt { broker: self, name, ticket, open: Mutex::new(true) })
    }

    /// Whether an attempt may be verified that is over at once.
    pub(super) fn check_attempt(&self, source: Source, name: Option<&str>) -> Result<(), Held> {
        self.attempts.lock().check(&self.limits().attempts, source, name, clock::now())
    }

    /// Counts an attempt that is refused unseen; who is locked out has to wait for it.
    pub(super) async fn hold(&self, held: Held) {
        self.metrics.broker.authentication_held[held].inc();
        if held == Held::Lockout {
            time::sleep(LOCKOUT_DELAY).await;
        }
    }

    /// A login failed that may have been a guess.
    pub(super) fn note_failure(&self, source: Source, name: Option<&str>, now: Now) {
        let noted = self.attempts.lock().failed(&self.limits().attempts, source, name, now);
        self.note_lockout(noted, name, now);
    }

    fn note_lockout(&self, noted: Noted, name: Option<&str>, now: Now) {
        self.metrics.broker.authentication_forgotten.add(noted.evicted);
        if noted.locked_out {
            self.metrics.broker.authentication_lockouts.inc();
            let text = "too many logins failed with this username: whoever failed has to wait";
            let event =
                SecurityEvent { identity: shown_name(name), ..SecurityEvent::new(What::Lockout, text) };
            self.security_event(&event, now);
            tracing::warn!(event = "authn_lockout", username = ?shown_name(name), "{text}");
        }
    }

    pub(super) fn note_login(&self, source: Source, name: &str, now: Now) {
        self.attempts.lock().succeeded(&self.limits().attempts, source, name, now);
    }

    /// Ends whatever holds the logins of this user. Whether anything did.
    pub fn unlock_user(&self, username: &str, now: Now) -> bool {
        let unlocked = self.attempts.lock().unlock(username);
        if unlocked {
            let event = SecurityEvent { identity: Some(username), ..SecurityEvent::new(What::Unlock, "") };
            self.security_event(&event, now);
        }
        unlocked
    }
}
