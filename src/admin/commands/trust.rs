//! `link create` with tokens, `link token`, `link trust`, `link cert`, `auth identity`, `auth group`, `auth permission`: what a
//! running broker knows about trust (`trust.md` 2.2). Sentences and columns are those of LXD's client.

mod groups;
mod identities;
mod links;

pub use self::groups::group_create;
pub use self::groups::group_delete;
pub use self::groups::group_describe;
pub use self::groups::group_forbid;
pub use self::groups::group_list;
pub use self::groups::group_permit;
pub use self::groups::group_rename;
pub use self::groups::group_show;
pub use self::groups::permission_list;
pub use self::identities::IdentityOrder;
pub use self::identities::identity_create;
pub use self::identities::identity_delete;
pub use self::identities::identity_info;
pub use self::identities::identity_into;
pub use self::identities::identity_list;
pub use self::identities::identity_out_of;
pub use self::identities::identity_revoke;
pub use self::identities::identity_show;
pub use self::links::JoinOrder;
pub use self::links::TokenOrder;
pub use self::links::cert_import;
pub use self::links::cert_rotate;
pub use self::links::cert_show;
pub use self::links::link_approve;
pub use self::links::link_distrust;
pub use self::links::link_issue;
pub use self::links::link_join;
pub use self::links::link_trust;
pub use self::links::token_list;
pub use self::links::token_revoke;

use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use zeroize::Zeroizing;

use super::Exit;
use super::Failure;
use crate::net::own_certificate::PEM_BYTES_MAX;

/// A field as text, for a sentence.
fn text(answer: &Value, field: &str) -> String {
    crate::admin::output::shown(&answer[field])
}

/// Prints what the broker finds that an operator should know.
fn warn(answer: &Value) {
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        eprintln!("warning: {}", crate::admin::output::shown(warning));
    }
}

/// A file of PEM, which may hold a key.
fn read_pem(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let failed = |error: io::Error| Failure::usage(format!("{}: {error}", file.display()));
    let opened = File::open(file).map_err(failed)?;
    // One that grows would leave parts of it behind in memory.
    let mut read = Zeroizing::new(String::with_capacity(PEM_BYTES_MAX + 1));
    opened.take(PEM_BYTES_MAX as u64 + 1).read_to_string(&mut read).map_err(failed)?;
    if read.len() > PEM_BYTES_MAX {
        return Err(Failure::usage(format!("{}: longer than {PEM_BYTES_MAX} bytes", file.display())));
    }
    Ok(read)
}

/// A token as it was given: itself, `-` for the first line of the standard input, `@FILE` for that of a file. On the command line
/// others see it, which is said.
fn read_token(given: &str) -> Result<Zeroizing<String>, Failure> {
    let failed = |error: io::Error| Failure::usage(format!("--token: {error}"));
    let mut line = Zeroizing::new(String::with_capacity(crate::trust::token::CHARS_MAX + 1));
    let most = crate::trust::token::CHARS_MAX as u64 + 1;
    match given.strip_prefix('@') {
        Some(file) => {
            let file = File::open(file).map_err(failed)?;
            io::BufReader::new(file.take(most)).read_line(&mut line).map_err(failed)?;
        }
        None if given == "-" => {
            io::stdin().lock().take(most).read_line(&mut line).map_err(failed)?;
        }
        None => {
            eprintln!(
                "warning: the token stands on the command line, where every user of this machine can see it: --token - reads the \
                 standard input, --token @FILE a file"
            );
            line.push_str(given);
        }
    }
    let token = Zeroizing::new(line.trim().to_owned());
    if token.is_empty() { Err(Failure::usage("--token: there is none")) } else { Ok(token) }
}

impl Failure {
    /// What was asked for cannot be.
    pub(in crate::admin) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_a_file_or_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "tmb1.abc\nmore\n").unwrap();
        assert_eq!(&*read_token(&format!("@{}", file.display())).unwrap(), "tmb1.abc");
        assert_eq!(&*read_token(" tmb1.abc ").unwrap(), "tmb1.abc");
        std::fs::write(&file, "\n").unwrap();
        for nothing in [format!("@{}", file.display()), "@/no/such/file".to_owned(), String::new()] {
            assert_eq!(read_token(&nothing).unwrap_err().exit, Exit::Usage, "{nothing}");
        }
    }

    #[test]
    fn a_file_of_pem_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("long.pem");
        std::fs::write(&file, vec![b'x'; PEM_BYTES_MAX + 1]).unwrap();
        assert!(read_pem(&file).unwrap_err().message.contains("longer than 65536 bytes"));
        std::fs::write(&file, "x").unwrap();
        assert_eq!(&*read_pem(&file).unwrap(), "x");
    }
}
