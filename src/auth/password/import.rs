//! Users of EMQX's built-in database, from its bootstrap files: CSV with the columns `user_id,password_hash,salt,is_superuser`
//! (or `password` instead of the hash), or a JSON list of objects with those fields.

use serde_json::Value;

use crate::auth::password::hashes::SaltPosition;
use crate::auth::password::hashes::StoredHash;
use crate::auth::users::MAX_USERS;
use crate::auth::users::UserError;

/// How the hashes of a file were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// One round of SHA-256, EMQX's default.
    Sha256(SaltPosition),
    /// One round of SHA-512.
    Sha512(SaltPosition),
    /// bcrypt, whose text has its salt.
    Bcrypt,
    /// PBKDF2 with SHA-256 and so many iterations.
    Pbkdf2(u32),
}

/// What a file has of a user.
#[derive(Debug, Clone)]
pub enum Imported {
    /// A hash.
    Hash(StoredHash),
    /// A password in the clear, to be hashed at once.
    Plain(Vec<u8>),
}

/// A user of a file.
#[derive(Debug, Clone)]
pub struct ImportedUser {
    /// The name.
    pub name: String,
    /// What it has.
    pub secret: Imported,
    /// Whether it was a superuser, which nobody is here.
    pub superuser: bool,
}

/// Why a file is not imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// No header with the columns that are needed.
    #[error("the first line must name the columns, `user_id` and `{0}` among them")]
    Header(&'static str),
    /// A quoted field without an end, or with something behind it.
    #[error("a quoted field is not closed")]
    Quote,
    /// Another number of fields than the header.
    #[error("not as many fields as the first line has columns")]
    Fields,
    /// Not a list of objects.
    #[error("not a JSON list of objects with text in `user_id` and `{0}`")]
    Json(&'static str),
    /// A hash that is not hexadecimal.
    #[error("the hash is not hexadecimal")]
    Hex,
    /// What the file of users would not take.
    #[error(transparent)]
    User(#[from] UserError),
}

/// The users of a file, or the line (CSV) or item (JSON) that is wrong, counted from 1. `made` is [`None`] where
/// passwords are in the clear.
///
/// # Errors
/// What is wrong, where.
pub fn read(text: &str, made: Option<Made>) -> Result<Vec<ImportedUser>, (usize, ImportError)> {
    if text.trim_start().starts_with('[') { json(text, made) } else { csv(text, made) }
}

fn secret_column(made: Option<Made>) -> &'static str {
    if made.is_some() { "password_hash" } else { "password" }
}

fn csv(text: &str, made: Option<Made>) -> Result<Vec<ImportedUser>, (usize, ImportError)> {
    let column = secret_column(made);
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let header = lines.next().map_or("", |(_, line)| line).trim_start_matches('\u{feff}');
    let header = fields(header).map_err(|error| (1, error))?;
    let at = |name: &str| header.iter().position(|column| column.trim() == name);
    let (Some(user), Some(secret)) = (at("user_id"), at(column)) else {
        return Err((1, ImportError::Header(column)));
    };
    let (salt, superuser) = (at("salt"), at("is_superuser"));
    let mut users = Vec::new();
    for (index, line) in lines {
        let wrong = |error| (index + 1, error);
        let row = fields(line).map_err(wrong)?;
        if row.len() != header.len() {
            return Err(wrong(ImportError::Fields));
        }
        if users.len() >= MAX_USERS {
            return Err(wrong(UserError::TooManyUsers.into()));
        }
        let salt = salt.map_or("", |salt| &row[salt]);
        users.push(ImportedUser {
            name: row[user].clone(),
            secret: imported(&row[secret], salt, made).map_err(wrong)?,
            superuser: superuser.is_some_and(|at| row[at].trim().eq_ignore_ascii_case("true")),
        });
    }
    Ok(users)
}

/// One line of CSV (RFC 4180); a field has no line break.
fn fields(line: &str) -> Result<Vec<String>, ImportError> {
    let mut row = Vec::new();
    let mut rest = line.trim_end_matches('\r');
    loop {
        let (field, behind) = match rest.strip_prefix('"') {
            Some(inside) => quoted(inside)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        row.push(field);
        match behind.strip_prefix(',') {
            Some(more) => rest = more,
            None if behind.is_empty() => return Ok(row),
            None => return Err(ImportError::Quote),
        }
    }
}

fn quoted(inside: &str) -> Result<(String, &str), ImportError> {
    let (mut field, mut rest) = (String::new(), inside);
    loop {
        let end = rest.find('"').ok_or(ImportError::Quote)?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Ok((field, rest)),
        }
    }
}

fn json(text: &str, made: Option<Made>) -> Result<Vec<ImportedUser>, (usize, ImportError)> {
    let column = secret_column(made);
    let list: Vec<Value> = serde_json::from_str(text).map_err(|_| (1, ImportError::Json(column)))?;
    if list.len() > MAX_USERS {
        return Err((MAX_USERS + 1, UserError::TooManyUsers.into()));
    }
    let mut users = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        let wrong = |error| (index + 1, error);
        let text = |name: &str| item.get(name).and_then(Value::as_str);
        let (Some(name), Some(secret)) = (text("user_id"), text(column)) else {
            return Err(wrong(ImportError::Json(column)));
        };
        users.push(ImportedUser {
            name: name.to_owned(),
            secret: imported(secret, text("salt").unwrap_or_default(), made).map_err(wrong)?,
            superuser: item.get("is_superuser") == Some(&Value::Bool(true)),
        });
    }
    Ok(users)
}

fn imported(secret: &str, salt: &str, made: Option<Made>) -> Result<Imported, ImportError> {
    let hash = match made {
        None => return Ok(Imported::Plain(secret.as_bytes().to_vec())),
        Some(Made::Bcrypt) => StoredHash::parse(secret)?,
        Some(Made::Pbkdf2(iterations)) => {
            let encoded = <base64ct::Base64Unpadded as base64ct::Encoding>::encode_string;
            let (salt, hash) = (encoded(salt.as_bytes()), encoded(&hex(secret)?));
            StoredHash::parse(&format!("$pbkdf2-sha256$i={iterations}${salt}${hash}"))?
        }
        Some(Made::Sha256(position)) => StoredHash::legacy(false, position, salt.as_bytes(), &hex(secret)?)?,
        Some(Made::Sha512(position)) => StoredHash::legacy(true, position, salt.as_bytes(), &hex(secret)?)?,
    };
    Ok(Imported::Hash(hash))
}

fn hex(text: &str) -> Result<Vec<u8>, ImportError> {
    let text = text.trim().as_bytes();
    if !text.len().is_multiple_of(2) || text.len() > 2 * 64 {
        return Err(ImportError::Hex);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8).ok_or(ImportError::Hex);
    text.chunks_exact(2).map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::password::HashMemory;

    fn verifies(user: &ImportedUser, password: &[u8]) -> bool {
        match &user.secret {
            Imported::Hash(hash) => hash.verify(password, &mut HashMemory::default()),
            Imported::Plain(plain) => plain == password,
        }
    }

    #[test]
    fn emqx_files_are_read_in_both_forms() {
        // SHA-256 of the salt in front of the password, as EMQX makes it by default.
        let hash = "5a9a3e0a7f3a4d0c";
        assert_eq!(hex(hash).unwrap().len(), 8);
        let sha = |text: &str| {
            let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
            digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<String>()
        };
        let (one, two) = (sha("s1secret"), sha("s2,other"));
        let csv = format!(
            "user_id,password_hash,salt,is_superuser\r\nu1,{one},s1,true\r\n\r\n\"u,\"\"2\",{two},\"s2,\",false\n"
        );
        let json = format!(
            r#"[{{"user_id": "u1", "password_hash": "{one}", "salt": "s1", "is_superuser": true}},
                {{"user_id": "u,\"2", "password_hash": "{two}", "salt": "s2,"}}]"#
        );
        for text in [csv, json] {
            let users = read(&text, Some(Made::Sha256(SaltPosition::Prefix))).unwrap();
            let names: Vec<_> = users.iter().map(|user| (user.name.as_str(), user.superuser)).collect();
            assert_eq!(names, [("u1", true), ("u,\"2", false)]);
            assert!(verifies(&users[0], b"secret") && !verifies(&users[0], b"Secret"));
            assert!(verifies(&users[1], b"other"));
            let elsewhere = read(&text, Some(Made::Sha256(SaltPosition::Suffix))).unwrap();
            assert!(!verifies(&elsewhere[0], b"secret"));
        }
    }

    #[test]
    fn passwords_in_the_clear_are_another_column() {
        let users = read("user_id,password\nu,p\n", None).unwrap();
        assert!(verifies(&users[0], b"p"));
        assert_eq!(
            read("user_id,password\nu,p\n", Some(Made::Bcrypt)).unwrap_err(),
            (1, ImportError::Header("password_hash"))
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let made = Some(Made::Sha256(SaltPosition::Prefix));
        let head = "user_id,password_hash,salt\n";
        let table = [
            ("", 1, ImportError::Header("password_hash")),
            (&format!("{head}u,ab"), 2, ImportError::Fields),
            (&format!("{head}\"u,ab,s"), 2, ImportError::Quote),
            (&format!("{head}\"u\"x,ab,s"), 2, ImportError::Quote),
            (&format!("{head}u,xy,s"), 2, ImportError::Hex),
            (&format!("{head}u,ab,s"), 2, ImportError::User(UserError::LegacyForm)),
            ("[1]", 1, ImportError::Json("password_hash")),
            ("[{\"user_id\": \"u\"}]", 1, ImportError::Json("password_hash")),
            ("[", 1, ImportError::Json("password_hash")),
        ];
        for (text, line, error) in table {
            assert_eq!(read(text, made).map(|_| ()), Err((line, error)), "{text}");
        }
        let weak = "user_id,password_hash\nu,$2b$09$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";
        assert_eq!(read(weak, Some(Made::Bcrypt)).map(|_| ()), Err((2, UserError::Bcrypt.into())));
        let few = format!("{head}u,{},saltsalt", "ab".repeat(32));
        assert_eq!(read(&few, Some(Made::Pbkdf2(1_000))).map(|_| ()), Err((2, UserError::Pbkdf2.into())));
        assert!(read(&few, Some(Made::Pbkdf2(600_000))).is_ok());
    }
}
