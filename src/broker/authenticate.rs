//! Drives authentication: the slow part, hashing a password, runs on a bounded pool of blocking threads, so
//! that a storm of logins neither starves messages nor takes all memory.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio::task;

use crate::auth::PasswordCheck;
use crate::auth::password::HashMemory;
use crate::auth::password::PasswordFile;
use crate::auth::peer::PeerRule;
use crate::auth::scram;
use crate::auth::scram::DecoyKey;
use crate::auth::scram::Exchange;
use crate::auth::scram::ScramFile;
use crate::net::random;

/// Passwords hashed at a time: each takes a core and 19 MiB.
const HASHING_MAX: usize = 2;
/// Passwords of links hashed at a time, beside those: a flood of strangers must not keep a link out.
const LINK_HASHING_MAX: usize = 1;
/// Logins waiting for that in each line; more are told that the Server is busy. Each keeps its CONNECT.
const WAITING_MAX: usize = 256;
/// Our part of the nonce of a SCRAM exchange.
const SCRAM_NONCE_BYTES: usize = 18;

/// What clients are checked against. Swapped as a whole on reload.
#[derive(Debug, Default)]
pub struct Credentials {
    /// `authentication.allow_anonymous`.
    pub allow_anonymous: bool,
    /// `authentication.password_file`.
    pub passwords: Option<PasswordFile>,
    /// The file of the `scram` step of `authentication.chain`.
    pub scram: Option<ScramFile>,
    /// `[cluster.links.peer]` of every link.
    pub peers: Vec<PeerRule>,
}

/// Where a login waits for its password to be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Applications and devices.
    Clients,
    /// A listener of role link, which nobody enters without a certificate.
    Links,
}

/// More logins are waiting than we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many logins are waiting")]
pub struct Busy;

/// Who may come in.
#[derive(Debug)]
pub struct Authentication {
    credentials: RwLock<Arc<Credentials>>,
    decoy_key: DecoyKey,
    clients: Queue,
    links: Queue,
}

#[derive(Debug)]
struct Queue {
    hashing: Semaphore,
    waiting: AtomicUsize,
    /// What those that hashed have left to the next: as many as hashed at a time, never freed.
    memory: Mutex<Vec<HashMemory>>,
}

impl Queue {
    fn new(at_a_time: usize) -> Self {
        Self { hashing: Semaphore::new(at_a_time), waiting: AtomicUsize::new(0), memory: Mutex::default() }
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
        }
    }

    /// What is in force.
    #[must_use]
    pub fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.credentials.read())
    }

    /// Swaps what is in force; connected clients stay.
    pub fn set(&self, credentials: Credentials) {
        *self.credentials.write() = Arc::new(credentials);
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
    ) -> Result<scram::Step, scram::Refusal> {
        exchange.step(message, users, &self.decoy_key, &random::hex(SCRAM_NONCE_BYTES))
    }

    /// Verifies a User Name and Password, if there is a password file and both were given.
    ///
    /// # Errors
    /// When too many others are waiting for the same.
    pub async fn check_password(
        &self,
        credentials: &Arc<Credentials>,
        line: Line,
        username: Option<&str>,
        password: Option<&[u8]>,
    ) -> Result<PasswordCheck, Busy> {
        let (Some(username), Some(password)) = (username, password) else {
            return Ok(PasswordCheck::NotChecked);
        };
        if credentials.passwords.is_none() {
            return Ok(PasswordCheck::NotChecked);
        }
        let queue = match line {
            Line::Clients => &self.clients,
            Line::Links => &self.links,
        };
        let _place = Place::take(&queue.waiting)?;
        let Ok(_permit) = queue.hashing.acquire().await else { return Ok(PasswordCheck::Bad) };
        let (credentials, username, password) =
            (Arc::clone(credentials), username.to_owned(), password.to_owned());
        let mut memory = queue.memory.lock().pop().unwrap_or_default();
        let hashing = task::spawn_blocking(move || {
            let file = credentials.passwords.as_ref();
            let good = file.is_some_and(|file| file.verify_in(&username, &password, &mut memory));
            (good, memory)
        });
        // A panic in the hash function is a refusal, like every other failure.
        let Ok((good, memory)) = hashing.await else { return Ok(PasswordCheck::Bad) };
        queue.memory.lock().push(memory);
        Ok(if good { PasswordCheck::Good } else { PasswordCheck::Bad })
    }
}

/// One login among those that wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self, Busy> {
        let place = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return Err(Busy);
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
