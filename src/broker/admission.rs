//! Whom the broker takes in: what stands in the way of a CONNECT beside authentication. Load and the number of
//! sessions first, then bans. A linked cluster is never refused for load: its messages are what others wait for.

use crate::broker::Broker;
use crate::broker::banned::Subject;
use crate::broker::close::Close;
use crate::broker::events::event::SecurityEvent;
use crate::broker::events::event::What;
use crate::broker::flapping;
use crate::broker::flapping::Noted;
use crate::broker::identity::Identity;
use crate::config::settings::Role;
use crate::metrics::labels::RejectReason;
use crate::mqtt::reason::ReasonCode;
use crate::session::Ending;
use crate::time::Now;

/// Why a CONNECT is refused.
pub(super) type Why = (ReasonCode, RejectReason);

const BANNED: Why = (ReasonCode::Banned, RejectReason::Banned);

impl Broker {
    /// Before anything is spent on a CONNECT: an application is refused while there is no room. On a listener of
    /// role any it shows only later who is a link.
    pub(super) fn check_load(&self, role: Role) -> Result<(), Why> {
        let refused = self.load.refuses_clients().filter(|_| role == Role::Client);
        refused.map_or(Ok(()), Err)
    }

    /// Before the password is looked at: what an operator banned, as far as the CONNECT itself shows it.
    pub(super) fn check_banned(&self, claimed: &Subject<'_>, now: Now) -> Result<(), Why> {
        if self.banned.find(claimed, now) { Err(BANNED) } else { Ok(()) }
    }

    /// Once it is known who it is.
    pub(super) fn check_admission(
        &self,
        identity: &Identity,
        max_sessions: usize,
        keeps: bool,
        now: Now,
    ) -> Result<(), Why> {
        if self.banned.find(&Subject::of(identity), now) || self.banned.is_flapping(identity, now) {
            return Err(BANNED);
        }
        if identity.bound_to.is_some() {
            return Ok(());
        }
        if let Some(why) = self.load.refuses_clients() {
            return Err(why);
        }
        // One that is there may take what it is owed, and make room by that.
        let full = self.clients.len() >= max_sessions || (keeps && self.trouble().is_some());
        if full && !self.clients.contains_key(&identity.client_id) {
            return Err((ReasonCode::QuotaExceeded, RejectReason::Quota));
        }
        Ok(())
    }

    /// A connection of this client ended. What it did itself counts towards flapping; a takeover, an operator or a
    /// shutdown does not, or whoever takes a session over again and again had its owner banned.
    pub(super) fn note_end(&self, identity: &Identity, close: &Close, now: Now) {
        let own_doing = match close {
            Close::Client(Ending::Normal | Ending::WithWill) | Close::Lost(_) => true,
            Close::Decode(_) | Close::Violation(..) => true,
            Close::Server(_) | Close::Slow(_) => false,
        };
        let policy = self.limits().flapping;
        if !own_doing || !policy.enable || identity.bound_to.is_some() {
            return;
        }
        match self.flapping.note(&policy, &flapping::key(identity), now) {
            Noted::Counted => {}
            Noted::Untracked => self.metrics.broker.flapping_untracked.inc(),
            Noted::Flapping => {
                self.metrics.broker.flapping_bans.inc();
                {
                    let _burst = self.begin();
                    self.banned.ban_flapping(identity, now, policy.ban_time);
                }
                let text = format!("for {:?}: it came and went too often", policy.ban_time);
                let event = identity.event(What::Ban);
                self.security_event(&SecurityEvent { description: &text, ..event }, now);
                tracing::warn!(
                    event = "flapping",
                    client_id = &*identity.client_id,
                    username = identity.username.as_deref(),
                    peer = %identity.peer,
                    ban_time = ?policy.ban_time,
                    "client banned: it came and went too often"
                );
            }
        }
    }
}
