//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the Server's side: the client proves that it knows its password without
//! sending it, and we prove that we know the user. Pure: the nonce is an argument, and so is the key that makes
//! unknown users look like known ones. It costs a few HMACs; the expensive derivation is the client's.
//!
//! **Credentials** are lines of a file of their own: `user:$scram-sha-256$i=50000$salt$keys`, a PHC string in which
//! `keys` is StoredKey and ServerKey. Whoever steals the file can guess passwords and pose as the Server, but
//! cannot log in with what is in it.
//!
//! **Names and passwords are printable ASCII**, where SASLprep (RFC 4013) changes nothing; others cannot be set. A
//! client that sends another name gets the course of an unknown user.

use std::fmt;
use std::fmt::Write;
use std::num::NonZeroU32;

use argon2::password_hash::Ident;
use argon2::password_hash::PasswordHash;
use base64ct::Base64;
use base64ct::Base64Unpadded;
use base64ct::Encoding;
use ring::digest;
use ring::hmac;
use ring::pbkdf2;
use subtle::ConstantTimeEq;

use crate::auth::password::MAX_PASSWORD_BYTES;
use crate::auth::users::MAX_USERNAME_BYTES;
use crate::auth::users::SALT_BYTES;
use crate::auth::users::Stored;
use crate::auth::users::UserError;
use crate::auth::users::Users;

/// The Authentication Method.
pub const METHOD: &str = "SCRAM-SHA-256";

/// Iterations of new credentials. The client pays for them at every connection, often on a microcontroller, so it
/// is less than the 600,000 that are advised for people's passwords, and more than ten times what RFC 7677 asks for.
/// Devices should have random passwords of 16 characters: no number of iterations matters for those.
pub const ITERATIONS: u32 = 50_000;
/// Fewest iterations that are accepted (RFC 7677 section 4).
pub const ITERATIONS_MIN: u32 = 4_096;
/// Most iterations that are accepted: a client would not be done in time.
pub const ITERATIONS_MAX: u32 = 10_000_000;
/// Longest message of a client: a name of which every byte is escaped, and room.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024;

const SCHEME: Ident<'static> = Ident::new_unwrap("scram-sha-256");
const KEY_BYTES: usize = 32;

/// What the file keeps of a user: enough to check a proof, not enough to make one.
#[derive(Clone)]
pub struct Credential {
    text: String,
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; KEY_BYTES],
    server_key: [u8; KEY_BYTES],
}

/// Users and their SCRAM credentials.
pub type ScramFile = Users<Credential>;

/// What a client sees of a credential before it has proved anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    iterations: u32,
    salt_bytes: usize,
}

/// What unknown users are answered with: as our own credentials have it.
const FRESH: Profile = Profile { iterations: ITERATIONS, salt_bytes: 16 };

/// Shows the iterations; salt and keys stay out of logs.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl Stored for Credential {
    /// The profiles that occur, each once. An unknown name is given one of them, so that none says "known".
    type Strangers = Vec<Profile>;

    fn parse(text: &str) -> Result<Self, UserError> {
        let phc = PasswordHash::new(text).map_err(|_| UserError::NotScram)?;
        if phc.algorithm != SCHEME || phc.version.is_some() || phc.params.iter().count() != 1 {
            return Err(UserError::NotScram);
        }
        let iterations = phc.params.get_decimal("i").ok_or(UserError::NotScram)?;
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(UserError::Iterations);
        }
        let (Some(salt), Some(keys)) = (phc.salt, phc.hash) else { return Err(UserError::NotScram) };
        let mut buffer = [0; 64];
        let salt = salt.decode_b64(&mut buffer).map_err(|_| UserError::NotScram)?.to_vec();
        let Some((stored_key, server_key)) = two_keys(keys.as_bytes()) else {
            return Err(UserError::NotScram);
        };
        if !SALT_BYTES.contains(&salt.len()) {
            return Err(UserError::Length);
        }
        Ok(Self { text: text.to_owned(), iterations, salt, stored_key, server_key })
    }

    fn text(&self) -> &str {
        &self.text
    }

    fn teach(&self, profiles: &mut Vec<Profile>) -> Result<(), UserError> {
        let profile = Profile { iterations: self.iterations, salt_bytes: self.salt.len() };
        if !profiles.contains(&profile) && profiles.len() < PROFILES_MAX {
            profiles.push(profile);
        }
        Ok(())
    }

    fn check_username(user: &str) -> Result<(), UserError> {
        is_printable_ascii(user.as_bytes()).then_some(()).ok_or(UserError::NotAscii)
    }
}

/// Profiles that are remembered: each new credential is compared with all of them.
const PROFILES_MAX: usize = 16;

fn two_keys(bytes: &[u8]) -> Option<([u8; KEY_BYTES], [u8; KEY_BYTES])> {
    let (stored, server) = bytes.split_at_checked(KEY_BYTES)?;
    Some((stored.try_into().ok()?, server.try_into().ok()?))
}

/// SASLprep changes none of these characters.
fn is_printable_ascii(text: &[u8]) -> bool {
    text.iter().all(|byte| (b' '..=b'~').contains(byte))
}

impl Credential {
    /// Derives what the file keeps of `password`; `salt` is to be random.
    ///
    /// # Errors
    /// If the password is too long or would have to be normalised, or the iterations are out of bounds.
    pub fn derive(password: &[u8], salt: &[u8; 16], iterations: u32) -> Result<Self, UserError> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(UserError::PasswordTooLong);
        }
        if !is_printable_ascii(password) {
            return Err(UserError::NotAscii);
        }
        let rounds = NonZeroU32::new(iterations)
            .filter(|rounds| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&rounds.get()))
            .ok_or(UserError::Iterations)?;
        let mut salted = [0; KEY_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password, &mut salted);
        let stored_key = sha256(&hmac(&salted, &[b"Client Key"]));
        let server_key = hmac(&salted, &[b"Server Key"]);
        let keys = [stored_key, server_key].concat();
        let (salt_text, keys) = (Base64Unpadded::encode_string(salt), Base64Unpadded::encode_string(&keys));
        let text = format!("${SCHEME}$i={iterations}${salt_text}${keys}");
        Ok(Self { text, iterations, salt: salt.to_vec(), stored_key, server_key })
    }

    /// What `name` would have if there were such a user: always the same for one key, and nobody knows its password.
    fn decoy(name: &str, profiles: &[Profile], key: &DecoyKey) -> Self {
        let made = |what: &[u8]| hmac(&key.0, &[what, name.as_bytes()]);
        let choice = u64::from_le_bytes(std::array::from_fn(|index| made(b"profile:")[index]));
        #[expect(clippy::cast_possible_truncation, reason = "at most 16 profiles")]
        let index = (choice % profiles.len().max(1) as u64) as usize;
        let Profile { iterations, salt_bytes } = profiles.get(index).copied().unwrap_or(FRESH);
        let mut salt = [made(b"salt:"), made(b"more salt:")].concat();
        salt.truncate(salt_bytes);
        let (stored_key, server_key) = (made(b"stored key:"), made(b"server key:"));
        Self { text: String::new(), iterations, salt, stored_key, server_key }
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; KEY_BYTES] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let tag = context.sign();
    std::array::from_fn(|index| tag.as_ref()[index])
}

fn sha256(bytes: &[u8]) -> [u8; KEY_BYTES] {
    let digest = digest::digest(&digest::SHA256, bytes);
    std::array::from_fn(|index| digest.as_ref()[index])
}

/// The key behind the salts of unknown users. It must outlive the process, or else the salts that change at a
/// restart are those of nobody.
#[derive(Clone)]
pub struct DecoyKey([u8; 32]);

impl DecoyKey {
    /// From 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Shows nothing of it.
impl fmt::Debug for DecoyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecoyKey")
    }
}

/// Why an exchange failed: for logs, never for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Above [`MESSAGE_BYTES_MAX`].
    #[error("a message longer than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    /// No client-first-message.
    #[error("a malformed first message")]
    MalformedFirst,
    /// No client-final-message.
    #[error("a malformed final message")]
    MalformedFinal,
    /// A `p=` flag: we support no channel binding.
    #[error("channel binding is asked for, which is not offered")]
    ChannelBinding,
    /// A mandatory extension (`m=`).
    #[error("an extension is asked for that is not known")]
    Extension,
    /// It wants to act as somebody else than it proves to be.
    #[error("an authorization identity other than the user")]
    AuthorizationIdentity,
    /// What it says of channel binding at the end is not what it said first.
    #[error("the channel binding of the final message is not that of the first")]
    BindingChanged,
    /// Not the nonce of this exchange.
    #[error("the nonce of the final message is not ours")]
    Nonce,
    /// Wrong password, or no such user: the two are not told apart.
    #[error("wrong password or no such user")]
    Proof,
    /// A message after the last.
    #[error("a message after the last")]
    Over,
    /// Too many attempts failed with this name: not looked at.
    #[error("not looked at: too many attempts failed before")]
    Held,
}

/// What to do with a client's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask on with this; empty to ask for the first message.
    Challenge(Vec<u8>),
    /// The client is who it says. The last message proves that we know the user as well.
    Done {
        /// The user.
        username: String,
        /// server-final-message.
        data: Vec<u8>,
    },
}

/// One exchange. It takes three messages at most: nothing, client-first, client-final.
#[derive(Default)]
pub struct Exchange {
    state: State,
    claimed: Option<String>,
}

#[derive(Default)]
enum State {
    #[default]
    Fresh,
    Asked,
    Challenged(Box<Challenged>),
    Over,
}

struct Challenged {
    username: String,
    known: bool,
    credential: Credential,
    gs2_header: String,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

impl Exchange {
    /// Takes the client's next message. `nonce` is random text for this call; it is used at most once. `may` says whether
    /// an attempt with this name may be verified: it is asked before there is a challenge, and again before the proof is
    /// looked at, as others may have failed meanwhile.
    ///
    /// # Errors
    /// Why the exchange is over. The client is told that it failed, and not why.
    pub fn step(
        &mut self,
        message: Option<&[u8]>,
        users: &ScramFile,
        key: &DecoyKey,
        nonce: &str,
        may: &dyn Fn(&str) -> bool,
    ) -> Result<Step, Refusal> {
        let message = message.unwrap_or_default();
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::Fresh if message.is_empty() => {
                self.state = State::Asked;
                Ok(Step::Challenge(Vec::new()))
            }
            State::Fresh | State::Asked => {
                let first = ClientFirst::parse(message)?;
                self.claimed = Some(first.username.clone());
                if !may(&first.username) {
                    return Err(Refusal::Held);
                }
                let challenged = Challenged::begin(first, users, key, nonce);
                let challenge = challenged.server_first.clone().into_bytes();
                self.state = State::Challenged(Box::new(challenged));
                Ok(Step::Challenge(challenge))
            }
            State::Challenged(challenged) if !may(&challenged.username) => Err(Refusal::Held),
            State::Challenged(challenged) => challenged.finish(message),
            State::Over => Err(Refusal::Over),
        }
    }

    /// Who the client said it was, proved or not: for logs.
    #[must_use]
    pub fn claimed(&self) -> Option<&str> {
        self.claimed.as_deref()
    }
}

impl Challenged {
    fn begin(first: ClientFirst<'_>, users: &ScramFile, key: &DecoyKey, nonce: &str) -> Self {
        // Made for known users too, so that they take no less time.
        let decoy = Credential::decoy(&first.username, &users.strangers, key);
        let found = users.lookup(&first.username);
        let known = found.is_some();
        let credential = found.cloned().unwrap_or(decoy);
        let nonce = format!("{}{nonce}", first.nonce);
        let mut server_first = format!("r={nonce},s={},i=", Base64::encode_string(&credential.salt));
        let _ = write!(server_first, "{}", credential.iterations);
        Self {
            known,
            credential,
            gs2_header: first.gs2_header.to_owned(),
            client_first_bare: first.bare.to_owned(),
            server_first,
            nonce,
            username: first.username,
        }
    }

    fn finish(self, message: &[u8]) -> Result<Step, Refusal> {
        let last = ClientFinal::parse(message)?;
        if last.channel_binding != self.gs2_header.as_bytes() {
            return Err(Refusal::BindingChanged);
        }
        if !bool::from(last.nonce.as_bytes().ct_eq(self.nonce.as_bytes())) {
            return Err(Refusal::Nonce);
        }
        let spoken: [&[u8]; 5] = [
            self.client_first_bare.as_bytes(),
            b",",
            self.server_first.as_bytes(),
            b",",
            last.without_proof.as_bytes(),
        ];
        let signature = hmac(&self.credential.stored_key, &spoken);
        let client_key: [u8; KEY_BYTES] = std::array::from_fn(|index| last.proof[index] ^ signature[index]);
        let proved = bool::from(sha256(&client_key).ct_eq(&self.credential.stored_key));
        let server_signature = hmac(&self.credential.server_key, &spoken);
        if !(proved && self.known) {
            return Err(Refusal::Proof);
        }
        let data = format!("v={}", Base64::encode_string(&server_signature)).into_bytes();
        Ok(Step::Done { username: self.username, data })
    }
}

/// `gs2-header n=name,r=nonce`.
struct ClientFirst<'a> {
    gs2_header: &'a str,
    bare: &'a str,
    username: String,
    nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, Refusal> {
        let malformed = Refusal::MalformedFirst;
        let text = std::str::from_utf8(message).map_err(|_| malformed)?;
        let (flag, rest) = text.split_once(',').ok_or(malformed)?;
        match flag {
            // "y": the client could bind, and thinks that we could not: it is right.
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err(Refusal::ChannelBinding),
            _ => return Err(malformed),
        }
        let (authorization, bare) = rest.split_once(',').ok_or(malformed)?;
        let mut attributes = bare.split(',');
        let name = attributes.next().unwrap_or_default();
        if name.starts_with("m=") {
            return Err(Refusal::Extension);
        }
        let username = name.strip_prefix("n=").and_then(unescape).ok_or(malformed)?;
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r=")).ok_or(malformed)?;
        let printable = !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if !printable || !attributes.all(is_extension) {
            return Err(malformed);
        }
        if !authorization.is_empty() {
            let acts_as = authorization.strip_prefix("a=").and_then(unescape).ok_or(malformed)?;
            if acts_as != username {
                return Err(Refusal::AuthorizationIdentity);
            }
        }
        let gs2_header = &text[..text.len() - bare.len()];
        Ok(Self { gs2_header, bare, username, nonce })
    }
}

/// `c=binding,r=nonce,p=proof`.
struct ClientFinal<'a> {
    without_proof: &'a str,
    channel_binding: Vec<u8>,
    nonce: &'a str,
    proof: [u8; KEY_BYTES],
}

impl<'a> ClientFinal<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, Refusal> {
        Self::read(message).ok_or(Refusal::MalformedFinal)
    }

    fn read(message: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next()?.strip_prefix("c=")?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        if !attributes.all(is_extension) {
            return None;
        }
        let channel_binding = Base64::decode_vec(binding).ok()?;
        let proof = Base64::decode_vec(proof).ok()?.try_into().ok()?;
        Some(Self { without_proof, channel_binding, nonce, proof })
    }
}

/// `letter=value`: an extension that may be passed over.
fn is_extension(text: &str) -> bool {
    matches!(text.as_bytes(), [letter, b'=', _, ..] if letter.is_ascii_alphabetic())
}

/// A saslname: `=2C` is a comma, `=3D` an equals sign, and nothing else follows one.
fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        name.push(match code {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        name.push_str(rest);
    }
    let acceptable = !name.is_empty() && name.len() <= MAX_USERNAME_BYTES && !name.contains('\0');
    acceptable.then_some(name)
}

#[cfg(test)]
mod tests;
