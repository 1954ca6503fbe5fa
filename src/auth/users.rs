//! A file of users: one `user:$scheme$...` a line, `#` comments. What may stand behind the colon is its kind's:
//! [`crate::auth::password::PasswordFile`] or [`crate::auth::scram::ScramFile`]. A file holds one kind, so that
//! every account in it is one its authenticator can use. Plain text is refused.

use std::collections::HashMap;
use std::fmt;

use crate::auth::password::MAX_LANES;
use crate::auth::password::MAX_MEMORY_KIB;
use crate::auth::password::MAX_PASSES;
use crate::auth::password::MAX_PASSWORD_BYTES;
use crate::auth::scram::ITERATIONS_MAX;
use crate::auth::scram::ITERATIONS_MIN;

/// Longest file we read, in bytes.
pub const MAX_FILE_BYTES: usize = 32 * 1024 * 1024;
/// Most users in one file.
pub const MAX_USERS: usize = 100_000;
/// Longest username, in bytes.
pub const MAX_USERNAME_BYTES: usize = 1024;
/// Shortest and longest salt, in bytes.
pub const SALT_BYTES: std::ops::RangeInclusive<usize> = 8..=48;

/// What is wrong with a username, a password or a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// Neither user nor comment.
    #[error("expected `user:$...`")]
    NoSeparator,
    /// Nothing before the colon.
    #[error("the username is empty")]
    EmptyUsername,
    /// Above [`MAX_USERNAME_BYTES`].
    #[error("the username is longer than {MAX_USERNAME_BYTES} bytes")]
    UsernameTooLong,
    /// It could not be read back from the file.
    #[error("a username cannot contain control characters, begin with `#`, or begin or end with white space")]
    UnsafeUsername,
    /// Named twice.
    #[error("the user is in the file already, on line {0}")]
    DuplicateUser(usize),
    /// Above [`MAX_USERS`].
    #[error("more than {MAX_USERS} users")]
    TooManyUsers,
    /// Above [`MAX_FILE_BYTES`].
    #[error("the file is longer than {MAX_FILE_BYTES} bytes")]
    FileTooLong,
    /// Above [`MAX_PASSWORD_BYTES`].
    #[error("the password is longer than {MAX_PASSWORD_BYTES} bytes, which no MQTT client can send")]
    PasswordTooLong,
    /// Not a PHC string.
    #[error("the hash is not a PHC string like `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`")]
    NotPhc,
    /// Another algorithm or version.
    #[error("only argon2id, version 19, is accepted, or bcrypt and pbkdf2-sha256 from elsewhere")]
    Algorithm,
    /// Parameters out of bounds.
    #[error(
        "argon2id parameters out of bounds: m at most {MAX_MEMORY_KIB} and at least 8 per lane, t 1 to {MAX_PASSES}, p 1 to {MAX_LANES}"
    )]
    Parameters,
    /// Not bcrypt as we take it.
    #[error("bcrypt is like `$2b$10$...`, with a cost of 10 to 14")]
    Bcrypt,
    /// Not PBKDF2 as we take it.
    #[error("PBKDF2 is like `$pbkdf2-sha256$i=600000$salt$hash`, with 600,000 to 10,000,000 iterations")]
    Pbkdf2,
    /// Not a legacy hash as we keep it.
    #[error("a salted SHA hash is like `$emqx-sha256$prefix$salt$hash`")]
    LegacyForm,
    /// Not two passwords with an end of the old one.
    #[error("expected one hash, or `NEW until=SECONDS OLD`")]
    Overlap,
    /// Above [`crate::auth::password::KINDS_MAX`].
    #[error(
        "more than {} kinds of hashes: an attempt has to cost one of each",
        crate::auth::password::KINDS_MAX
    )]
    Kinds,
    /// Salt or hash of a length we do not accept.
    #[error("the salt must have 8 to 48 bytes and the hash 16 to 64")]
    Length,
    /// No SCRAM credential.
    #[error("the credential is not like `$scram-sha-256$i=50000$salt$keys`")]
    NotScram,
    /// Too few or too many iterations.
    #[error("the iterations must be {ITERATIONS_MIN} to {ITERATIONS_MAX}")]
    Iterations,
    /// A name or password that would have to be normalised.
    #[error("SCRAM names and passwords may contain printable ASCII only")]
    NotAscii,
}

/// An error with the line it is on, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {error}")]
pub struct LineError {
    /// The line.
    pub line: usize,
    /// What is wrong there.
    pub error: UserError,
}

/// What a file keeps for a user.
pub trait Stored: Sized {
    /// What is kept of all users for those that are not in the file, so that an unknown user looks like a known one.
    type Strangers: Default;

    /// Reads what stands behind the colon.
    ///
    /// # Errors
    /// If it is not of this kind, or out of bounds.
    fn parse(text: &str) -> Result<Self, UserError>;

    /// As it stands in the file.
    fn text(&self) -> &str;

    /// Makes unknown users look like this one too.
    ///
    /// # Errors
    /// If there would be too many kinds to look like.
    fn teach(&self, strangers: &mut Self::Strangers) -> Result<(), UserError>;

    /// Whether a user of this kind may be called that; every name in a file has passed the check of names already.
    ///
    /// # Errors
    /// If not.
    fn check_username(_user: &str) -> Result<(), UserError> {
        Ok(())
    }
}

/// One line, to be written back as it was read.
#[derive(Debug, Clone)]
enum Line {
    Verbatim(String),
    User(String),
}

/// The users of one file.
#[derive(Clone)]
pub struct Users<S: Stored> {
    lines: Vec<Line>,
    users: HashMap<String, S>,
    pub(super) strangers: S::Strangers,
}

impl<S: Stored> Default for Users<S> {
    fn default() -> Self {
        Self { lines: Vec::new(), users: HashMap::new(), strangers: S::Strangers::default() }
    }
}

/// Shows how many users there are.
impl<S: Stored> fmt::Debug for Users<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl<S: Stored> Users<S> {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// On the first line that is neither empty, a comment nor a user with an acceptable credential.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(LineError { line: 1, error: UserError::FileTooLong });
        }
        let mut file = Self::default();
        let mut seen = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let at_line = |error| LineError { line: index + 1, error };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                file.lines.push(Line::Verbatim(line.to_owned()));
                continue;
            }
            // A username may contain colons (EMQX's `clink-user:A`), a PHC string never does.
            let (user, stored) = line.rsplit_once(':').ok_or_else(|| at_line(UserError::NoSeparator))?;
            if let Some(&first) = seen.get(user) {
                return Err(at_line(UserError::DuplicateUser(first)));
            }
            let stored = S::parse(stored).map_err(at_line)?;
            file.set(user, stored).map_err(at_line)?;
            seen.insert(user, index + 1);
        }
        Ok(file)
    }

    /// How many users there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is no user.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// What is kept for `user`.
    #[must_use]
    pub fn lookup(&self, user: &str) -> Option<&S> {
        self.users.get(user)
    }

    /// Every user, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &S)> {
        self.users.iter().map(|(user, stored)| (user.as_str(), stored))
    }

    /// Adds `user` at the end, or replaces the credential where the user is; says whether the user was there.
    ///
    /// # Errors
    /// If the name cannot stand in the file, or the file is full.
    pub fn set(&mut self, user: &str, stored: S) -> Result<bool, UserError> {
        check_username(user)?;
        S::check_username(user)?;
        let existed = self.users.contains_key(user);
        if !existed && self.users.len() >= MAX_USERS {
            return Err(UserError::TooManyUsers);
        }
        stored.teach(&mut self.strangers)?;
        self.users.insert(user.to_owned(), stored);
        if !existed {
            self.lines.push(Line::User(user.to_owned()));
        }
        Ok(existed)
    }

    /// Removes `user`; says whether the user was there.
    pub fn remove(&mut self, user: &str) -> bool {
        self.lines.retain(|line| !matches!(line, Line::User(name) if name == user));
        self.users.remove(user).is_some()
    }

    /// The text of the file: comments and order as they were read.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for line in &self.lines {
            match line {
                Line::Verbatim(text) => out.push_str(text),
                Line::User(user) => {
                    let Some(stored) = self.users.get(user) else { continue };
                    out.push_str(user);
                    out.push(':');
                    out.push_str(stored.text());
                }
            }
            out.push('\n');
        }
        out
    }
}

fn check_username(user: &str) -> Result<(), UserError> {
    if user.is_empty() {
        return Err(UserError::EmptyUsername);
    }
    if user.len() > MAX_USERNAME_BYTES {
        return Err(UserError::UsernameTooLong);
    }
    if user.starts_with('#') || user.trim() != user || user.chars().any(char::is_control) {
        return Err(UserError::UnsafeUsername);
    }
    Ok(())
}
