//! `tombolo auth key`: API keys in the data directory, whether a broker runs or not.

use std::path::Path;

use serde_json::Value;
use serde_json::json;

use super::Exit;
use super::Failure;
use crate::admin::keys::Keys;
use crate::admin::keys::KeysError;
use crate::admin::output;
use crate::admin::output::Column;
use crate::admin::output::Format;
use crate::net::clock;

const COLUMNS: &[Column] = &[("KEY", "id"), ("NAME", "name"), ("CREATED", "created_at")];

/// `auth key create`: prints the secret, which is nowhere else.
pub fn key_create(data: &Path, name: &str, format: Format) -> Result<(), Failure> {
    let new = keys(data)?.create(name, clock::now().unix_ms / 1000).map_err(failure)?;
    let (id, secret) = (&new.key.id, &new.secret);
    eprintln!(
        "This secret is shown once. Use it as: curl -u KEY:SECRET http://127.0.0.1:18083/api/v5/clients"
    );
    output::print(&output::record(format, &json!({"key": id, "secret": secret, "name": new.key.name})))
}

/// `auth key list`
pub fn key_list(data: &Path, format: Format) -> Result<(), Failure> {
    let keys = keys(data)?.list().map_err(failure)?;
    let row = |key: &crate::admin::keys::Key| -> Value {
        json!({"id": key.id, "name": key.name, "created_at": key.created_at})
    };
    let rows: Vec<Value> = keys.iter().map(row).collect();
    output::print(&output::list(format, COLUMNS, &rows))
}

/// `auth key delete`: it is refused from the next request on.
pub fn key_delete(data: &Path, id: &str) -> Result<(), Failure> {
    keys(data)?.delete(id).map_err(failure)
}

fn keys(data: &Path) -> Result<Keys, Failure> {
    if !data.is_dir() {
        let message = format!("there is no data directory `{}`: name it with --data", data.display());
        return Err(Failure::new(Exit::NotFound, message));
    }
    Ok(Keys::of(data))
}

fn failure(error: KeysError) -> Failure {
    let exit = match &error {
        KeysError::NotFound(_) => Exit::NotFound,
        KeysError::Name | KeysError::Invalid { .. } => Exit::Usage,
        KeysError::Full => Exit::Conflict,
        KeysError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => Exit::Denied,
        KeysError::Io { .. } => Exit::Other,
    };
    Failure::new(exit, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_listed_and_deleted() {
        let data = tempfile::tempdir().unwrap();
        key_create(data.path(), "ci", Format::Json).unwrap();
        let id = Keys::of(data.path()).list().unwrap()[0].id.clone();
        key_list(data.path(), Format::Csv).unwrap();
        key_delete(data.path(), &id).unwrap();
        assert_eq!(key_delete(data.path(), &id).unwrap_err().exit, Exit::NotFound);
        assert_eq!(key_create(data.path(), "", Format::Json).unwrap_err().exit, Exit::Usage);
        let nowhere = data.path().join("nowhere");
        assert_eq!(key_list(&nowhere, Format::Csv).unwrap_err().exit, Exit::NotFound);
    }
}
