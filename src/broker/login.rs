//! Who a CONNECT is from: peers by their binding first, then the chain of authenticators; and how often that may fail.
//! Before any session is touched (`[MQTT-3.1.4-2]`).

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time;

use crate::auth;
use crate::auth::Authenticator;
use crate::auth::CertificateUsername;
use crate::auth::DenyReason;
use crate::auth::Outcome;
use crate::auth::PasswordCheck;
use crate::auth::attempts::Held;
use crate::auth::attempts::Source;
use crate::auth::certificate::CertificateFacts;
use crate::auth::chain::Grant;
use crate::auth::chain::Mechanism;
use crate::auth::peer::Binding;
use crate::auth::peer::ConnectFacts;
use crate::auth::peer::ListenerRole;
use crate::auth::peer::PeerRule;
use crate::broker::Broker;
use crate::broker::Limits;
use crate::broker::accept::Endpoint;
use crate::broker::admission::Why;
use crate::broker::attempt::Unbegun;
use crate::broker::authenticate::Asking;
use crate::broker::authenticate::Credentials;
use crate::broker::authenticate::Line;
use crate::broker::authenticate::Stopped;
use crate::broker::authenticate::Wrong;
use crate::broker::enhanced::Verified;
use crate::broker::refusal;
use crate::config::settings::Role;
use crate::metrics::labels::RejectReason;
use crate::mqtt::packet::Connect;
use crate::mqtt::reason::ReasonCode;
use crate::net::address::PeerAddr;
use crate::net::clock;

const REFUSED: Why = (ReasonCode::NotAuthorized, RejectReason::NotAuthorized);
const BUSY: Why = (ReasonCode::ServerBusy, RejectReason::Quota);

/// A CONNECT that is to be answered.
pub(super) struct Knock<'a> {
    pub(super) broker: &'a Broker,
    pub(super) endpoint: &'a Endpoint,
    pub(super) granted: &'a Limits,
    pub(super) peer: PeerAddr,
    pub(super) asked: &'a Connect<'a>,
    pub(super) client_id: &'a str,
    pub(super) certificate: Option<&'a CertificateFacts>,
    pub(super) proved: Option<&'a Verified>,
}

/// Who it is.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) grant: Grant,
    pub(super) is_superuser: bool,
    pub(super) bound_to: Option<Arc<str>>,
    pub(super) password_verified: bool,
    /// Which step of the chain said so.
    pub(super) mechanism: Option<Mechanism>,
}

/// How a login was decided.
struct Decided {
    outcome: Result<Login, DenyReason>,
    refused_as_peer: Option<auth::peer::Refusal>,
    /// Whether a secret was shown and looked at.
    guess: bool,
}

impl Knock<'_> {
    /// The name that attempts are counted by.
    fn name(&self) -> Option<&str> {
        let proved = self.proved.map(|proved| &*proved.username);
        let name = proved.or(self.asked.username).filter(|name| !name.is_empty());
        // A token is no name.
        name.filter(|name| !auth::jwt::looks_like_a_token(name.as_bytes()))
    }

    /// Whether there is no secret that somebody could guess: nothing was shown at all, or a certificate that names the
    /// user, or the exchange that proved it is over. Failures of others hold nobody up who shows none, and a proof that
    /// was right is told like a wrong one if it was looked at after all.
    fn shows_no_secret(&self) -> bool {
        let has_name = self.asked.username.is_some_and(|name| !name.is_empty());
        let by_certificate = self.certificate.is_some_and(|facts| facts.chain_verified)
            && self.endpoint.certificate_username != CertificateUsername::Disabled;
        self.asked.password.is_none() && (self.proved.is_some() || !has_name || by_certificate)
    }

    fn facts(&self, password_verified: bool) -> ConnectFacts<'_> {
        ConnectFacts {
            client_id: self.client_id,
            username: self.asked.username,
            password_verified,
            certificate: self.certificate,
            role: auth_role(self.endpoint.role),
            // Behind a proxy nobody is known to be on this machine.
            loopback: self.endpoint.proxies.is_none() && self.peer.is_loopback(),
        }
    }

    /// Who it is, where there is no step: nothing is verified then, nothing can be guessed, and nobody waited for. `None`
    /// where there is one.
    pub(super) fn log_in_at_once(&self) -> Option<Result<Login, Why>> {
        let credentials = self.broker.authentication.credentials();
        credentials.chain.is_empty().then(|| {
            let decided = self.by_binding(&credentials, PasswordCheck::NotChecked);
            self.conclude(decided, &credentials, &|| {})
        })
    }

    pub(super) async fn log_in(&self) -> Result<Login, Why> {
        let broker = self.broker;
        let credentials = broker.authentication.credentials();
        // What it would be if its password were right. A certificate is no guess and is never held.
        let by_certificate = match auth::peer::bind(&credentials.peers, &self.facts(true)) {
            Binding::Peer(rule) => rule.asks_for_certificate(),
            _ => false,
        };
        // The steps may be gone by now: then there is nothing to guess.
        let attempt = if by_certificate || credentials.chain.is_empty() || self.shows_no_secret() {
            None
        } else {
            let source = Source::of(self.peer.ip());
            match broker.begin_attempt(source, self.name(), self.granted.idle_timeout).await {
                Ok(attempt) => Some(attempt),
                Err(Unbegun::Held(held)) => return Err(self.refuse_held(held).await),
                Err(Unbegun::Busy) => return Err(BUSY),
            }
        };
        let wrong = || attempt.iter().for_each(|attempt| attempt.failed());
        let deciding = self.decide(&credentials, &wrong);
        let Ok(Ok(decided)) = time::timeout(self.granted.idle_timeout, deciding).await else {
            return Err(BUSY);
        };
        self.conclude(decided, &credentials, &wrong)
    }

    /// What follows from a decision.
    fn conclude(&self, decided: Decided, credentials: &Credentials, wrong: Wrong<'_>) -> Result<Login, Why> {
        match decided.outcome {
            Ok(login) if is_name_of_a_link(credentials, &login) => {
                self.log_refusal(DenyReason::Peer, Some(auth::peer::Refusal::ClientIdOutsidePrefix));
                Err(REFUSED)
            }
            Ok(login) => {
                if decided.guess
                    && let Some(name) = self.name().or(login.grant.username.as_deref())
                {
                    self.broker.note_login(Source::of(self.peer.ip()), name, clock::now());
                }
                Ok(login)
            }
            Err(reason) => {
                if decided.guess && reason.is_guess() {
                    wrong();
                }
                self.log_refusal(reason, decided.refused_as_peer);
                Err(REFUSED)
            }
        }
    }

    async fn decide(&self, credentials: &Arc<Credentials>, wrong: Wrong<'_>) -> Result<Decided, Stopped> {
        let asking = Asking {
            username: self.asked.username,
            password: self.asked.password,
            client_id: self.client_id,
            host: self.peer.ip(),
            listener: &self.endpoint.id,
            certificate: self.certificate,
            line: if self.endpoint.role == Role::Link { Line::Links } else { Line::Clients },
            now: clock::now(),
        };
        let authentication = &self.broker.authentication;
        let ordinary = auth::peer::bind(&credentials.peers, &self.facts(true)) == Binding::Ordinary;
        let named =
            self.certificate.is_some() && self.endpoint.certificate_username != CertificateUsername::Disabled;
        let by_chain = ordinary && self.endpoint.authn_enable && !named && self.proved.is_none();
        if by_chain && !credentials.chain.is_empty() {
            // What it needs is large, and most connections that wait here do not need it.
            let asked = Box::pin(authentication.ask_chain(credentials, &asking, wrong)).await?;
            let guess = asking.username.is_some() || asking.password.is_some();
            let login = |(grant, mechanism)| Login {
                grant,
                is_superuser: false,
                bound_to: None,
                password_verified: mechanism == Mechanism::Password,
                mechanism: Some(mechanism),
            };
            return Ok(Decided { outcome: asked.map(login), refused_as_peer: None, guess });
        }
        match Box::pin(authentication.check_password(credentials, &asking)).await {
            Ok(password) => Ok(self.by_binding(credentials, password)),
            // It may have been right: refused, and no guess.
            Err(Stopped::Failed) => {
                Ok(Decided { outcome: Err(DenyReason::Unavailable), refused_as_peer: None, guess: false })
            }
            Err(Stopped::Busy) => Err(Stopped::Busy),
        }
    }

    /// Who is bound to a peer, who proved its name otherwise, and whoever is asked for nothing.
    fn by_binding(&self, credentials: &Credentials, password: PasswordCheck) -> Decided {
        let good = password == PasswordCheck::Good;
        let binding = auth::peer::bind(&credentials.peers, &self.facts(good));
        let authenticator = Authenticator {
            enable: self.endpoint.authn_enable,
            allow_anonymous: credentials.allow_anonymous,
            has_users: !credentials.chain.is_empty(),
            certificate_username: self.endpoint.certificate_username,
        };
        let shown = auth::Credentials {
            username: self.asked.username,
            has_password: self.asked.password.is_some(),
            password,
            enhanced: self.proved.map(|proved| &*proved.username),
            certificate: self.certificate,
        };
        let (bound_to, refused_as_peer) = match binding {
            Binding::Peer(rule) => (Some(Arc::from(rule.cluster.as_str())), None),
            Binding::Ordinary => (None, None),
            Binding::Refused(refusal) => (None, Some(refusal)),
        };
        let outcome = match auth::decide(&authenticator, &binding, &shown) {
            Outcome::Allow { username, is_superuser } => Ok(Login {
                grant: Grant { username, ..Grant::default() },
                is_superuser,
                bound_to,
                password_verified: good,
                mechanism: None,
            }),
            Outcome::Deny(_) if password == PasswordCheck::Bad && refused_as_peer.is_none() => {
                Err(DenyReason::BadCredentials)
            }
            Outcome::Deny(reason) => Err(reason),
        };
        // Whoever has the right password and is refused for another reason guessed nothing.
        let guess = match &outcome {
            Ok(_) => good || self.proved.is_some(),
            Err(_) => password == PasswordCheck::Bad,
        };
        Decided { outcome, refused_as_peer, guess }
    }

    /// Refuses what is not looked at, as a wrong password is.
    async fn refuse_held(&self, held: Held) -> Why {
        self.log_refusal(DenyReason::Held, None);
        self.broker.hold(held).await;
        REFUSED
    }

    fn log_refusal(&self, reason: DenyReason, refused_as_peer: Option<auth::peer::Refusal>) {
        refusal::note(self.broker, self.endpoint, self.peer, self.asked, reason, refused_as_peer);
    }
}

/// Whether a token, a certificate or an exchange gives an application the username of a link, which CONNECT did not name
/// (A6): it belongs to that link alone.
fn is_name_of_a_link(credentials: &Credentials, login: &Login) -> bool {
    let name = login.grant.username.as_deref();
    let is_its = |rule: &PeerRule| rule.username.is_some() && rule.username.as_deref() == name;
    login.bound_to.is_none() && credentials.peers.iter().any(is_its)
}

/// The User Name, unless it is a token, which is as good as a password.
pub(super) fn shown_name(username: Option<&str>) -> Option<&str> {
    username.map(|name| if auth::jwt::looks_like_a_token(name.as_bytes()) { "a token" } else { name })
}

/// `link_id` is ours to set and nobody else's (`authn-tls.md` section 2).
#[expect(clippy::box_collection, reason = "a pointer where there is none")]
pub(super) fn attributes(
    mut given: BTreeMap<String, String>,
    bound_to: Option<&str>,
) -> Option<Box<BTreeMap<String, String>>> {
    given.extend(bound_to.map(|cluster| (auth::chain::RESERVED_ATTRIBUTE.to_owned(), cluster.to_owned())));
    (!given.is_empty()).then(|| Box::new(given))
}

fn auth_role(role: Role) -> ListenerRole {
    match role {
        Role::Client => ListenerRole::Client,
        Role::Link => ListenerRole::Link,
        Role::Any => ListenerRole::Any,
    }
}
