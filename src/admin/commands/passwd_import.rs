//! `tombolo passwd FILE --import USERS`: users of EMQX's built-in database into a password file, all or none.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Exit;
use super::Failure;
use super::passwd;
use crate::auth::password::Account;
use crate::auth::password::PasswordFile;
use crate::auth::password::hash_password;
use crate::auth::password::import;
use crate::auth::password::import::Imported;
use crate::auth::password::import::ImportedUser;
use crate::auth::password::import::Made;

/// The longest file that is imported.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Imports the users of `from`; `made` is how their hashes were made, and nothing where it has passwords in the clear,
/// which are hashed at once.
pub fn passwd_import(file: &Path, from: &Path, made: Option<Made>) -> Result<(), Failure> {
    let shown = from.display();
    let failed = |error: std::io::Error| Failure::new(Exit::Other, format!("{shown}: {error}"));
    let mut text = String::new();
    let read = File::open(from).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    if read.map_err(failed)? as u64 > FILE_BYTES_MAX {
        return Err(Failure::new(Exit::Usage, format!("{shown}: longer than {FILE_BYTES_MAX} bytes")));
    }
    let imported = import::read(&text, made)
        .map_err(|(line, error)| Failure::new(Exit::Usage, format!("{shown}:{line}:1: {error}")))?;
    let count = imported.len();
    let superusers = imported.iter().filter(|user| user.superuser).count();
    let mut weak = false;
    passwd::change(file, |users: Option<PasswordFile>| {
        let mut users = users.unwrap_or_default();
        for user in imported {
            add(&mut users, user).map_err(|(exit, text)| Failure::new(exit, format!("{shown}: {text}")))?;
        }
        weak = users.legacy_user().is_some();
        Ok(users)
    })?;
    eprintln!("{count} users imported");
    if superusers > 0 {
        eprintln!(
            "{superusers} of them were superusers, which nobody is here: the ACL file says what they may"
        );
    }
    if weak {
        eprintln!("hashes that are guessed fast need legacy_hashes = true until their users log in");
    }
    Ok(())
}

fn add(users: &mut PasswordFile, user: ImportedUser) -> Result<(), (Exit, String)> {
    let name = user.name.escape_debug().to_string();
    let wrong = |error: &dyn std::fmt::Display| (Exit::Usage, format!("user `{name}`: {error}"));
    if users.lookup(&user.name).is_some() {
        return Err(wrong(&"is in the password file already: delete it there first"));
    }
    let account: Account = match user.secret {
        Imported::Hash(hash) => hash.into(),
        Imported::Plain(plain) if plain.is_empty() => return Err(wrong(&"the password is empty")),
        Imported::Plain(plain) => {
            let salt = passwd::salt().map_err(|failure| (failure.exit, failure.message))?;
            hash_password(&plain, &salt).map_err(|error| wrong(&error))?
        }
    };
    users.set(&user.name, account).map_err(|error| wrong(&error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::password::hashes::SaltPosition;

    #[test]
    fn all_users_are_imported_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let (file, from) = (dir.path().join("passwd"), dir.path().join("users.csv"));
        let hash = ring::digest::digest(&ring::digest::SHA256, b"saltsecret");
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let rows = format!("user_id,password_hash,salt,is_superuser\nu,{hex},salt,true\n");
        let made = Some(Made::Sha256(SaltPosition::Prefix));
        std::fs::write(&from, format!("{rows}a\u{7},{hex},salt,false\n")).unwrap();
        let failure = passwd_import(&file, &from, made).unwrap_err();
        assert!(failure.exit == Exit::Usage && failure.message.contains("control characters"), "{failure}");
        std::fs::write(&from, format!("{rows}v,00,salt,false\n")).unwrap();
        assert!(passwd_import(&file, &from, made).unwrap_err().message.contains("users.csv:3:1: "));
        assert!(!file.exists());
        std::fs::write(&from, &rows).unwrap();
        passwd_import(&file, &from, made).unwrap();
        let users = PasswordFile::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert!(users.verify("u", b"secret") && users.legacy_user() == Some("u"));
        let again = passwd_import(&file, &from, made).unwrap_err();
        assert!(again.message.contains("already"), "{again}");
    }

    #[test]
    fn passwords_in_the_clear_are_hashed_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (file, from) = (dir.path().join("passwd"), dir.path().join("users.json"));
        std::fs::write(&from, r#"[{"user_id": "u", "password": "secret"}]"#).unwrap();
        passwd_import(&file, &from, None).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("u:$argon2id$") && !text.contains("secret"), "{text}");
        std::fs::write(&from, r#"[{"user_id": "v", "password": ""}]"#).unwrap();
        assert!(passwd_import(&file, &from, None).unwrap_err().message.contains("empty"));
    }
}
