//! Drives the chain of authenticators: what takes time runs on bounded pools, so that a storm of logins neither starves
//! messages nor takes all memory. Passwords are hashed, and signatures of tokens verified, by a few blocking threads;
//! questions to others are bounded in number and time.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio::task;

use crate::auth::CertificateUsername;
use crate::auth::DenyReason;
use crate::auth::PasswordCheck;
use crate::auth::callout::Question;
use crate::auth::certificate::CertificateFacts;
use crate::auth::certificate::fingerprint_hex;
use crate::auth::chain::Answer;
use crate::auth::chain::Course;
use crate::auth::chain::Grant;
use crate::auth::chain::Mechanism;
use crate::auth::chain::Shown;
use crate::auth::chain::Turn;
use crate::auth::jwt;
use crate::auth::password::Found;
use crate::auth::password::HashMemory;
use crate::auth::peer::PeerRule;
use crate::auth::scram;
use crate::auth::scram::DecoyKey;
use crate::auth::scram::Exchange;
use crate::auth::scram::ScramFile;
use crate::broker::callout::Callout;
use crate::broker::jwks::TokenKeys;
use crate::broker::password_book::PasswordBook;
use crate::broker::upgrades::Upgrades;
use crate::net::random;
use crate::time::Now;

/// Passwords hashed at a time: each takes a core and 19 MiB.
const HASHING_MAX: usize = 2;
/// Passwords of links hashed at a time, beside those: a flood of strangers must not keep a link out.
const LINK_HASHING_MAX: usize = 1;
/// Tokens verified at a time, of which each takes a fraction of a millisecond.
const TOKENS_MAX: usize = 2;
/// Logins waiting for that in each line; more are told that the Server is busy. Each keeps its CONNECT.
const WAITING_MAX: usize = 256;
/// The password that a call-out is shown in place of a wrong one.
const DECOY_BYTES: usize = 12;
/// Our part of the nonce of a SCRAM exchange.
const SCRAM_NONCE_BYTES: usize = 18;

/// One step of the chain, ready to be asked.
#[derive(Debug)]
pub enum Step {
    /// A password file.
    Password(PasswordBook),
    /// The client certificate.
    Certificate(CertificateUsername),
    /// A token.
    Jwt {
        /// What it is verified with.
        keys: TokenKeys,
        /// What it must say.
        rules: jwt::Rules,
    },
    /// Somebody else is asked.
    Http(Callout),
    /// Enhanced authentication, which was over before the chain is asked: nothing to say here.
    Scram,
}

impl Step {
    fn mechanism(&self) -> Mechanism {
        match self {
            Self::Password(_) => Mechanism::Password,
            Self::Certificate(_) => Mechanism::Certificate,
            Self::Jwt { .. } => Mechanism::Jwt,
            Self::Http(_) => Mechanism::Http,
            Self::Scram => Mechanism::Scram,
        }
    }
}

/// What clients are checked against. Swapped as a whole on reload.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// `authentication.allow_anonymous`.
    pub allow_anonymous: bool,
    /// `authentication.password_file`, then `authentication.chain`.
    pub chain: Arc<[Step]>,
    /// The file of the `scram` step of `authentication.chain`.
    pub scram: Option<Arc<ScramFile>>,
    /// `[cluster.links.peer]` of every link.
    pub peers: Vec<PeerRule>,
}

impl Credentials {
    fn passwords(&self) -> impl Iterator<Item = &PasswordBook> {
        self.chain.iter().filter_map(|step| match step {
            Step::Password(file) => Some(file),
            _ => None,
        })
    }
}

/// Where a login waits for its password to be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Applications and devices.
    Clients,
    /// A listener of role link, which nobody enters without a certificate.
    Links,
}

/// Why nothing was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// More logins are waiting than we take.
    #[error("too many logins are waiting")]
    Busy,
    /// The work panicked, which is a refusal like every other failure (A13).
    #[error("it failed")]
    Failed,
}

/// Told as soon as a password is known to be wrong, whatever is done afterwards.
pub type Wrong<'a> = &'a (dyn Fn() + Sync);

/// A client that asks to be let in, as the steps of the chain see it.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// User Name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Client Identifier.
    pub client_id: &'a str,
    /// Address.
    pub host: Option<IpAddr>,
    /// `type:name`.
    pub listener: &'a str,
    /// The client certificate whose key the TLS handshake proved.
    pub certificate: Option<&'a CertificateFacts>,
    /// Where it waits.
    pub line: Line,
    /// When it came.
    pub now: Now,
}

/// Who may come in.
#[derive(Debug)]
pub struct Authentication {
    credentials: RwLock<Arc<Credentials>>,
    decoy_key: DecoyKey,
    clients: Queue,
    links: Queue,
    tokens: Queue,
    upgrades: Arc<Upgrades>,
}

#[derive(Debug)]
struct Queue {
    working: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// What those that hashed have left to the next: as many as hashed at a time, never freed.
    memory: Arc<Mutex<Vec<HashMemory>>>,
}

impl Queue {
    fn new(at_a_time: usize) -> Self {
        let working = Arc::new(Semaphore::new(at_a_time));
        Self { working, waiting: AtomicUsize::new(0), memory: Arc::default() }
    }

    /// Does `work` on a blocking thread when it is its turn.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut HashMemory) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let _place = Place::take(&self.waiting)?;
        let Ok(permit) = Arc::clone(&self.working).acquire_owned().await else { return Err(Stopped::Failed) };
        let memories = Arc::clone(&self.memory);
        // Whoever asked may be gone before it is done: the turn is the work's, or others would begin beside it.
        let working = task::spawn_blocking(move || {
            let _permit = permit;
            let mut memory = memories.lock().pop().unwrap_or_default();
            let done = work(&mut memory);
            memories.lock().push(memory);
            done
        });
        working.await.map_err(|_| Stopped::Failed)
    }
}

impl Authentication {
    /// Checks against `credentials` until they are swapped. `decoy_key` hides who is no user.
    #[must_use]
    pub fn new(credentials: Credentials, decoy_key: DecoyKey) -> Self {
        Self {
            credentials: RwLock::new(Arc::new(credentials)),
            decoy_key,
            clients: Queue::new(HASHING_MAX),
            links: Queue::new(LINK_HASHING_MAX),
            tokens: Queue::new(TOKENS_MAX),
            upgrades: Arc::default(),
        }
    }

    /// Hashes that wait to be written.
    pub(super) fn upgrades(&self) -> &Upgrades {
        &self.upgrades
    }

    /// What is in force.
    #[must_use]
    pub fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.credentials.read())
    }

    /// Swaps what is in force; connected clients stay, and so do keys that were fetched from where they still come from.
    pub fn set(&self, credentials: Credentials) {
        let mut current = self.credentials.write();
        let keys = |credentials: &Credentials| {
            let of = |step: &Step| match step {
                Step::Jwt { keys, .. } => Some(keys.clone()),
                _ => None,
            };
            credentials.chain.iter().filter_map(of).collect::<Vec<_>>()
        };
        let before = keys(&current);
        for new in keys(&credentials) {
            new.inherit(&before);
        }
        *current = Arc::new(credentials);
    }

    /// Swaps the rules for peers alone.
    pub fn set_peers(&self, peers: Vec<PeerRule>) {
        let mut current = self.credentials.write();
        *current = Arc::new(Credentials { peers, ..Credentials::clone(&current) });
    }

    /// Takes the next message of an exchange. That is a few HMACs, so it needs no pool.
    ///
    /// # Errors
    /// Why the exchange failed.
    pub fn step(
        &self,
        exchange: &mut Exchange,
        message: Option<&[u8]>,
        users: &ScramFile,
        may: &dyn Fn(&str) -> bool,
    ) -> Result<scram::Step, scram::Refusal> {
        exchange.step(message, users, &self.decoy_key, &random::hex(SCRAM_NONCE_BYTES), may)
    }

    /// Verifies a User Name and Password by the password files alone, if there are any and both were given.
    ///
    /// # Errors
    /// Why nothing was verified.
    pub async fn check_password(
        &self,
        credentials: &Arc<Credentials>,
        asking: &Asking<'_>,
    ) -> Result<PasswordCheck, Stopped> {
        if asking.username.is_none() || asking.password.is_none() || credentials.passwords().next().is_none()
        {
            return Ok(PasswordCheck::NotChecked);
        }
        for index in 0..credentials.chain.len() {
            if !matches!(credentials.chain[index], Step::Password(_)) {
                continue;
            }
            match self.password(credentials, index, asking).await? {
                Answer::Allow(_) => return Ok(PasswordCheck::Good),
                Answer::Deny(_) => return Ok(PasswordCheck::Bad),
                Answer::Next => {}
            }
        }
        Ok(PasswordCheck::Bad)
    }

    /// Asks the steps of the chain in turn who this is: what it may and by which mechanism, or why not.
    ///
    /// # Errors
    /// Why nothing was verified.
    pub async fn ask_chain(
        &self,
        credentials: &Arc<Credentials>,
        asking: &Asking<'_>,
        wrong: Wrong<'_>,
    ) -> Result<Result<(Grant, Mechanism), DenyReason>, Stopped> {
        let shown = Shown {
            username: asking.username.is_some_and(|name| !name.is_empty()),
            password: asking.password.is_some(),
        };
        let mut course = Course::new(credentials.chain.len(), shown, credentials.allow_anonymous);
        let (mut turn, mut mechanism) = (course.begin(), Mechanism::Anonymous);
        loop {
            let index = match turn {
                Turn::Allow(grant) => return Ok(Ok((grant, mechanism))),
                Turn::Deny(reason) => return Ok(Err(reason)),
                Turn::Ask(index) => index,
            };
            let answer = match self.ask(credentials, index, asking).await {
                Err(Stopped::Failed) => Answer::Deny(DenyReason::Unavailable),
                answer => answer?,
            };
            if answer == Answer::Deny(DenyReason::BadCredentials) {
                wrong();
                self.feign(credentials, index + 1, asking).await?;
            }
            mechanism = match answer {
                Answer::Allow(_) => credentials.chain[index].mechanism(),
                _ => Mechanism::Anonymous,
            };
            turn = course.answered(answer);
        }
    }

    /// Asks the steps behind a password file that knows the user and another password what they would be asked if it did
    /// not know the user: else the time of a refusal would tell who is in the file. No answer changes anything, and the
    /// others are shown a password that is nobody's, as what was mistyped is no business of theirs.
    async fn feign(
        &self,
        credentials: &Arc<Credentials>,
        from: usize,
        asking: &Asking<'_>,
    ) -> Result<(), Stopped> {
        // What cannot be asked about is not asked about for those who are unknown either.
        if asking.password.is_none_or(|password| std::str::from_utf8(password).is_err()) {
            return Ok(());
        }
        let nobodys = random::hex(DECOY_BYTES);
        let decoy = Asking { password: Some(nobodys.as_bytes()), ..*asking };
        for index in from..credentials.chain.len() {
            let asked = match &credentials.chain[index] {
                Step::Password(_) => continue, // Paid for with the hashes of the first.
                Step::Http(_) => &decoy,
                _ => asking,
            };
            match self.ask(credentials, index, asked).await {
                Ok(Answer::Next) => {}
                Ok(_) | Err(Stopped::Failed) => break,
                Err(Stopped::Busy) => return Err(Stopped::Busy),
            }
        }
        Ok(())
    }

    async fn ask(
        &self,
        credentials: &Arc<Credentials>,
        index: usize,
        asking: &Asking<'_>,
    ) -> Result<Answer, Stopped> {
        match &credentials.chain[index] {
            Step::Password(_) => self.password(credentials, index, asking).await,
            Step::Certificate(part) => Ok(part.answer(asking.certificate, asking.username)),
            Step::Jwt { keys, rules } => self.token(keys, rules, asking).await,
            Step::Http(callout) => {
                let host = asking.host.map(|host| host.to_canonical().to_string());
                let fingerprint = asking.certificate.map(|facts| fingerprint_hex(&facts.der_sha256));
                let verified = asking.certificate.filter(|facts| facts.chain_verified);
                let question = Question {
                    username: asking.username,
                    password: asking.password,
                    client_id: asking.client_id,
                    peerhost: host.as_deref(),
                    listener: asking.listener,
                    fingerprint: fingerprint.as_deref(),
                    common_name: verified.and_then(|facts| facts.common_name.as_deref()),
                };
                callout.ask(&question, asking.now).await
            }
            Step::Scram => Ok(Answer::Next),
        }
    }

    /// The step of a password file. Whoever fails pays for the password files behind it too, as whoever is in none of
    /// them does: how long a refusal takes does not tell in which file a user is.
    async fn password(
        &self,
        credentials: &Arc<Credentials>,
        index: usize,
        asking: &Asking<'_>,
    ) -> Result<Answer, Stopped> {
        let (Some(username), Some(password)) = (asking.username, asking.password) else {
            return Ok(Answer::Next);
        };
        if username.is_empty() {
            return Ok(Answer::Next);
        }
        let queue = match asking.line {
            Line::Clients => &self.clients,
            Line::Links => &self.links,
        };
        let (credentials, name, password) =
            (Arc::clone(credentials), username.to_owned(), password.to_owned());
        let (now, upgrades) = (asking.now, Arc::clone(&self.upgrades));
        let found = queue
            .run(move |memory| {
                let Step::Password(file) = &credentials.chain[index] else { return Found::Nobody };
                let found = file.check(&name, &password, now.unix_ms / 1000, memory);
                if found == (Found::Right { legacy: true })
                    && let Some(upgrade) = file.upgrade(&name, &password)
                {
                    upgrades.put(file.path(), upgrade, now);
                }
                if found == Found::Wrong {
                    for step in &credentials.chain[index + 1..] {
                        if let Step::Password(file) = step {
                            file.pretend(&password, memory);
                        }
                    }
                }
                found
            })
            .await?;
        Ok(match found {
            Found::Right { .. } => Answer::Allow(Grant::to(username)),
            Found::Wrong => Answer::Deny(DenyReason::BadCredentials),
            Found::Nobody => Answer::Next,
        })
    }

    async fn token(
        &self,
        keys: &TokenKeys,
        rules: &jwt::Rules,
        asking: &Asking<'_>,
    ) -> Result<Answer, Stopped> {
        let asked = jwt::Asked {
            username: asking.username,
            password: asking.password,
            client_id: asking.client_id,
            now_unix: asking.now.unix_ms / 1000,
        };
        if rules.token_of(&asked).is_none_or(|token| !jwt::looks_like_a_token(token)) {
            return Ok(Answer::Next);
        }
        // Keys that could not be fetched yet, or for too long.
        let Some(keys) = keys.get(asking.now) else { return Ok(Answer::Deny(DenyReason::Unavailable)) };
        let rules = rules.clone();
        let (username, password) =
            (asking.username.map(str::to_owned), asking.password.map(<[u8]>::to_owned));
        let client_id = asking.client_id.to_owned();
        let (answer, error) = self
            .tokens
            .run(move |_| {
                let asked = jwt::Asked {
                    username: username.as_deref(),
                    password: password.as_deref(),
                    client_id: &client_id,
                    now_unix: asked.now_unix,
                };
                jwt::answer(&keys, &rules, &asked)
            })
            .await?;
        if let Some(error) = error {
            tracing::debug!(client_id = ?asking.client_id, %error, "a token was not taken");
        }
        Ok(answer)
    }
}

/// One login among those that wait.
pub(super) struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    pub(super) fn take(waiting: &'a AtomicUsize) -> Result<Self, Stopped> {
        let place = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return Err(Stopped::Busy);
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_a_failure_and_the_next_is_done() {
        let queue = Queue::new(1);
        let failed = queue.run(|_| panic!("on purpose")).await;
        assert_eq!(failed, Err::<(), _>(Stopped::Failed), "A13");
        assert_eq!(queue.run(|_| 7).await, Ok(7));
        assert_eq!(queue.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn work_whose_asker_is_gone_keeps_its_turn_until_it_is_done() {
        let queue = Queue::new(1);
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let asked = tokio::time::timeout(
            std::time::Duration::from_millis(1),
            queue.run(move |_| gone.recv().is_ok()),
        );
        assert!(asked.await.is_err());
        assert_eq!(queue.working.available_permits(), 0);
        go.send(()).unwrap();
        assert_eq!(queue.run(|_| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn more_than_may_wait_are_told_that_we_are_busy() {
        let queue = Queue::new(1);
        let places: Vec<_> = (0..WAITING_MAX).map(|_| Place::take(&queue.waiting)).collect();
        assert!(places.iter().all(Result::is_ok));
        assert_eq!(queue.run(|_| ()).await, Err(Stopped::Busy));
        drop(places);
        assert_eq!(queue.run(|_| ()).await, Ok(()));
    }
}
