//! `tombolo passwd`: sets or deletes one user of a password file. The file is replaced as a whole, so a broker
//! that reads it sees the old or the new one.

use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::IsTerminal;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use super::Exit;
use super::Failure;
use crate::auth::password::Account;
use crate::auth::password::PasswordFile;
use crate::auth::password::hash_password;
use crate::auth::scram;
use crate::auth::scram::Credential;
use crate::auth::users::Stored;
use crate::auth::users::UserError;
use crate::auth::users::Users;
use crate::broker::replace::Locked;
use crate::broker::replace::Patience;
use crate::net::clock;

/// What is read of standard input: more than the longest password.
const INPUT_BYTES_MAX: u64 = 65_535 + 3;

/// The longest password file that is read: more than the reader of the text takes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Makes what a file keeps of a password, with a random salt.
type Hasher<S> = fn(&[u8], &[u8; 16]) -> Result<S, UserError>;

/// Sets the password of `user` in a file of passwords, creating user and file as needed. The one before stays good for
/// that time beside the new one.
pub fn passwd_set_argon2id(
    file: &Path,
    user: &str,
    stdin: bool,
    keep_old: Option<Duration>,
) -> Result<(), Failure> {
    let Some(keep_old) = keep_old else { return passwd_set(file, user, stdin, hash_password) };
    let shown = file.display();
    let none = || Failure::new(Exit::NotFound, format!("{shown}: no user `{}`", user.escape_debug()));
    let before = read(file)?.unwrap_or_default();
    before.lookup(user).map(|_: &Account| ()).ok_or_else(none)?;
    let password = ask(user, stdin)?;
    change(file, |users: Option<PasswordFile>| {
        let mut users = users.unwrap_or_default();
        let old = users.lookup(user).cloned().ok_or_else(none)?;
        set(&mut users, user, &password, hash_password)?;
        let until = clock::now().unix_ms / 1000 + keep_old.as_secs();
        let new = users.lookup(user).cloned().ok_or_else(none)?;
        users
            .set(user, new.replacing(old, until))
            .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        Ok(users)
    })
}

/// Sets the password of `user` in a file of SCRAM credentials, creating user and file as needed.
pub fn passwd_set_scram(file: &Path, user: &str, stdin: bool) -> Result<(), Failure> {
    passwd_set(file, user, stdin, scram_credential)
}

fn scram_credential(password: &[u8], salt: &[u8; 16]) -> Result<Credential, UserError> {
    Credential::derive(password, salt, scram::ITERATIONS)
}

fn passwd_set<S: Stored>(file: &Path, user: &str, stdin: bool, hasher: Hasher<S>) -> Result<(), Failure> {
    // What is wrong with the file is told before anything is typed; it may be another by then.
    let _: Option<Users<S>> = read(file)?;
    let password = ask(user, stdin)?;
    change(file, |users: Option<Users<S>>| {
        let mut users = users.unwrap_or_default();
        set(&mut users, user, &password, hasher)?;
        Ok(users)
    })
}

fn ask(user: &str, stdin: bool) -> Result<Vec<u8>, Failure> {
    if stdin { from_pipe(io::stdin().lock()) } else { from_terminal(user) }
}

/// A line of either kind of file: whoever deletes a user need not say which it is.
struct Either(String);

impl Stored for Either {
    type Strangers = ();

    fn parse(text: &str) -> Result<Self, UserError> {
        let password = Account::parse(text).map(|_| ());
        password.or_else(|error| Credential::parse(text).map(|_| ()).map_err(|_| error))?;
        Ok(Self(text.to_owned()))
    }

    fn text(&self) -> &str {
        &self.0
    }

    fn teach(&self, (): &mut ()) -> Result<(), UserError> {
        Ok(())
    }
}

/// Deletes `user`.
pub fn passwd_delete(file: &Path, user: &str) -> Result<(), Failure> {
    let shown = file.display();
    let none = |what: String| Failure::new(Exit::NotFound, format!("{shown}: {what}"));
    change(file, |users: Option<Users<Either>>| {
        let mut users = users.ok_or_else(|| none("no such file".to_owned()))?;
        if !users.remove(user) {
            return Err(none(format!("no user `{}`", user.escape_debug())));
        }
        Ok(users)
    })
}

fn set<S: Stored>(
    users: &mut Users<S>,
    user: &str,
    password: &[u8],
    hasher: Hasher<S>,
) -> Result<(), Failure> {
    if password.is_empty() {
        return Err(Failure::new(Exit::Usage, "the password is empty"));
    }
    let salt = salt()?;
    let invalid = |error| Failure::new(Exit::Usage, format!("{error}"));
    let stored = hasher(password, &salt).map_err(invalid)?;
    users.set(user, stored).map_err(invalid)?;
    Ok(())
}

/// A fresh one.
pub(super) fn salt() -> Result<[u8; 16], Failure> {
    let mut salt = [0; 16];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut salt)
        .map_err(|_| Failure::new(Exit::Other, "the operating system gives no random numbers"))?;
    Ok(salt)
}

fn read<S: Stored>(file: &Path) -> Result<Option<Users<S>>, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Other, format!("{}: {error}", file.display()));
    let mut text = String::new();
    match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(opened) => opened.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?,
    };
    parsed(file, &text).map(Some)
}

fn parsed<S: Stored>(file: &Path, text: &str) -> Result<Users<S>, Failure> {
    let at = |line| format!("{}:{line}:1", file.display());
    Users::parse(text)
        .map_err(|error| Failure::new(Exit::Usage, format!("{}: {}", at(error.line), error.error)))
}

/// Changes the file as it is now, and nobody else meanwhile: neither a `passwd` beside this one nor the broker, which
/// replaces weak hashes.
pub(super) fn change<S: Stored>(
    file: &Path,
    change: impl FnOnce(Option<Users<S>>) -> Result<Users<S>, Failure>,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Other, format!("{}: {error}", file.display()));
    let locked = Locked::new(file, Patience::Wait).map_err(failed)?;
    let text = locked.read(FILE_BYTES_MAX).map_err(failed)?;
    let users = change(text.map(|text| parsed(file, &text)).transpose()?)?;
    locked
        .replace(&users.render())
        .map_err(|(path, error)| Failure::new(Exit::Other, format!("{}: {error}", path.display())))
}

/// Everything there is, without one trailing newline (`interface.md` section 2).
fn from_pipe(input: impl Read) -> Result<Vec<u8>, Failure> {
    let mut password = Vec::new();
    input
        .take(INPUT_BYTES_MAX)
        .read_to_end(&mut password)
        .map_err(|error| Failure::new(Exit::Other, format!("standard input: {error}")))?;
    if password.last() == Some(&b'\n') {
        password.pop();
        if password.last() == Some(&b'\r') {
            password.pop();
        }
    }
    Ok(password)
}

fn from_terminal(user: &str) -> Result<Vec<u8>, Failure> {
    let input = io::stdin();
    if !input.is_terminal() {
        return Err(Failure::new(Exit::Usage, "standard input is not a terminal: use --stdin"));
    }
    eprint!("Password of {} (it will be seen; --stdin takes it from a pipe): ", user.escape_debug());
    let mut line = Vec::new();
    input
        .lock()
        .take(INPUT_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .map_err(|error| Failure::new(Exit::Other, format!("standard input: {error}")))?;
    from_pipe(line.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::scram::ScramFile;

    fn replace(file: &Path, text: &str) -> Result<(), Failure> {
        let text = text.to_owned();
        change(file, |_: Option<Users<Either>>| parsed(file, &text))
    }

    fn mode(path: &Path) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_user_is_set_changed_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd");
        let mut passwords: PasswordFile = read(&path).unwrap().unwrap_or_default();
        set(&mut passwords, "clink-user:A", b"first", hash_password).unwrap();
        replace(&path, &passwords.render()).unwrap();
        assert_eq!(mode(&path), 0o600);
        let mut passwords: PasswordFile = read(&path).unwrap().unwrap();
        assert!(passwords.verify("clink-user:A", b"first"));
        set(&mut passwords, "clink-user:A", b"second", hash_password).unwrap();
        set(&mut passwords, "other", b"first", hash_password).unwrap();
        replace(&path, &passwords.render()).unwrap();
        let passwords: PasswordFile = read(&path).unwrap().unwrap();
        assert!(passwords.verify("clink-user:A", b"second") && !passwords.verify("clink-user:A", b"first"));
        passwd_delete(&path, "clink-user:A").unwrap();
        let passwords: PasswordFile = read(&path).unwrap().unwrap();
        assert!(passwords.lookup("clink-user:A").is_none() && passwords.lookup("other").is_some());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn the_mode_and_the_link_of_an_existing_file_stay() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::write(&real, "# ours\n").unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut passwords: PasswordFile = read(&link).unwrap().unwrap();
        set(&mut passwords, "u", b"p", hash_password).unwrap();
        replace(&link, &passwords.render()).unwrap();
        assert!(link.is_symlink());
        assert_eq!(mode(&real), 0o640);
        assert!(std::fs::read_to_string(&real).unwrap().starts_with("# ours\nu:$argon2id$"));
    }

    #[test]
    fn scram_users_have_a_file_of_their_own_from_which_they_are_deleted_alike() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scram");
        let mut users = ScramFile::default();
        set(&mut users, "u", b"secret", scram_credential).unwrap();
        replace(&path, &users.render()).unwrap();
        assert_eq!(mode(&path), 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("u:$scram-sha-256$i=50000$"), "{text}");
        let failure = read::<Account>(&path).unwrap_err();
        assert!(
            failure.message.ends_with(
                ":1:1: only argon2id, version 19, is accepted, or bcrypt and pbkdf2-sha256 from elsewhere"
            ),
            "{failure}"
        );
        let odd = set(&mut users, "u", "p\u{e9}".as_bytes(), scram_credential).unwrap_err();
        assert_eq!(odd.exit, Exit::Usage);
        passwd_delete(&path, "u").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd");
        assert_eq!(passwd_delete(&path, "u").unwrap_err().exit, Exit::NotFound);
        std::fs::write(&path, "").unwrap();
        assert_eq!(passwd_delete(&path, "u").unwrap_err().exit, Exit::NotFound);
    }

    #[test]
    fn bad_input_is_refused_and_the_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd");
        std::fs::write(&path, "# ok\nno separator\n").unwrap();
        let failure = passwd_delete(&path, "u").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.starts_with(&format!("{}:2:1: ", path.display())), "{failure}");
        let mut passwords = PasswordFile::default();
        assert_eq!(set(&mut passwords, "u", b"", hash_password).unwrap_err().exit, Exit::Usage);
        assert_eq!(set(&mut passwords, "a\nb", b"p", hash_password).unwrap_err().exit, Exit::Usage);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "# ok\nno separator\n");
    }

    #[test]
    fn one_trailing_newline_is_dropped() {
        let read = |text: &str| from_pipe(text.as_bytes()).unwrap();
        assert_eq!(read("pw"), b"pw");
        assert_eq!(read("pw\n"), b"pw");
        assert_eq!(read("pw\r\n"), b"pw");
        assert_eq!(read("pw\n\n"), b"pw\n");
        assert_eq!(read(" p w "), b" p w ");
        assert_eq!(read(""), b"");
    }
}
