//! Where a secret really is: in the text, in a file (`file://…`) or in the environment (`${env:VAR}`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::document::Node;
use super::parse;
use super::reader::Wrong;
use super::settings::Secret;

/// The longest secret: the Password of CONNECT is binary data with a two-byte length.
const SECRET_BYTES_MAX: usize = 65_535;

/// Reads a secret; the message of an error never holds it.
pub(super) fn secret(variables: &BTreeMap<String, String>) -> impl Fn(&Node) -> Result<Secret, Wrong> {
    move |node| {
        let text = parse::text(node)?;
        if let Some(path) = text.strip_prefix("file://") {
            return from_file(Path::new(path));
        }
        let bytes = match text.strip_prefix("${env:").and_then(|rest| rest.strip_suffix('}')) {
            None => text,
            Some(name) => match variables.get(name) {
                Some(value) => value.clone(),
                None => return Err(format!("the environment has no variable `{name}`").into()),
            },
        };
        checked(bytes.into_bytes())
    }
}

fn from_file(path: &Path) -> Result<Secret, Wrong> {
    let shown = path.display();
    let cannot = |error: std::io::Error| format!("cannot read {shown}: {error}");
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a file").into());
    }
    if is_exposed(&metadata) {
        return Err(format!("{shown} can be read by others than its owner: chmod 600 {shown}").into());
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(SECRET_BYTES_MAX + 2).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(cannot)?;
    // An editor ends the file with a newline that is not part of the secret.
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    checked(bytes)
}

fn checked(bytes: Vec<u8>) -> Result<Secret, Wrong> {
    match bytes.len() {
        0 => Err("the secret is empty".into()),
        length if length > SECRET_BYTES_MAX => Err("the secret is longer than 65,535 bytes".into()),
        _ => Ok(Secret::new(bytes)),
    }
}

/// Whether group or others may read it (`authn-tls.md` section 5).
#[cfg(unix)]
pub(super) fn is_exposed(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 != 0
}

/// Access lists of other systems are not looked at.
#[cfg(not(unix))]
pub(super) fn is_exposed(_metadata: &std::fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::super::document::Origin;
    use super::super::document::Value;
    use super::*;

    fn read(text: &str) -> Result<Secret, String> {
        let variables = BTreeMap::from([("PW".to_owned(), "from-env".to_owned())]);
        let node = Node { value: Value::Text(text.to_owned()), origin: Origin::Default };
        secret(&variables)(&node).map_err(|wrong| wrong.message)
    }

    #[test]
    fn a_secret_comes_from_text_or_environment() {
        assert_eq!(read("plain"), Ok(Secret::new("plain")));
        assert_eq!(read("${env:PW}"), Ok(Secret::new("from-env")));
        assert_eq!(read("${env:NONE}"), Err("the environment has no variable `NONE`".into()));
        assert_eq!(read(""), Err("the secret is empty".into()));
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_comes_from_a_private_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let reference = format!("file://{}", path.display());
        assert!(read(&reference).unwrap_err().starts_with("cannot read "));
        std::fs::write(&path, "in a file\r\n\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&reference).unwrap_err().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&reference), Ok(Secret::new("in a file\r\n")));
        std::fs::write(&path, "x\r\n").unwrap();
        assert_eq!(read(&reference), Ok(Secret::new("x")));
    }
}
