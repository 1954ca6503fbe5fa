//! `tombolo store`: what a data directory holds, while no broker uses it. Nothing is changed.

use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Exit;
use super::Failure;
use super::settings;
use crate::admin::base64;
use crate::admin::output;
use crate::admin::output::Column;
use crate::admin::output::Format;
use crate::broker::data_dir::DataDir;
use crate::broker::data_dir::DataDirError;
use crate::storage::Entry;
use crate::storage::Key;
use crate::storage::Table;
use crate::storage::log::FOLDER;
use crate::storage::log::look::Look;
use crate::storage::log::recovery::Finding;

const COLUMNS: &[Column] = &[("TABLE", "table"), ("ENTRIES", "entries"), ("BYTES", "bytes")];

/// `store check`
pub fn store_check(dir: Option<PathBuf>, config: Option<&Path>) -> Result<(), Failure> {
    let (look, _lock) = look(dir, config)?;
    let mut text = String::new();
    for Finding { file, offset, bytes, damage } in &look.findings {
        text += &format!("{file} at {offset}, {bytes} bytes: {damage}\n");
    }
    for file in &look.unborn {
        text += &format!("{file}: never begun; the next start removes it\n");
    }
    let usage = look.usage();
    text += &format!(
        "segments: {}, records: {}, entries: {}, bodies: {}, damaged: {}\n",
        usage.segments, look.records, usage.entries, usage.bodies, look.damaged
    );
    output::print(&text)?;
    match look.damaged {
        0 => Ok(()),
        damaged => Err(Failure::new(Exit::Other, format!("the store is damaged in {damaged} places"))),
    }
}

/// `store stats`
pub fn store_stats(dir: Option<PathBuf>, config: Option<&Path>, format: Format) -> Result<(), Failure> {
    let (look, _lock) = look(dir, config)?;
    let usage = look.usage();
    let mut rows: Vec<Value> = Table::ALL
        .into_iter()
        .map(|table| (table.name(), look.table(table)))
        .chain([("bodies", look.bodies())])
        .map(|(name, size)| json!({"table": name, "entries": size.entries, "bytes": size.bytes}))
        .collect();
    let oldest = look.oldest();
    let mut totals = json!({
        "segments": usage.segments,
        "bytes": usage.bytes,
        "live_bytes": usage.live_bytes,
        "dead_bytes": usage.bytes - usage.live_bytes,
        "oldest_segment": oldest.as_ref().map(|(file, ..)| file),
        "oldest_bytes": oldest.as_ref().map(|(_, bytes, _)| bytes),
        "oldest_live_bytes": oldest.as_ref().map(|(.., live_bytes)| live_bytes),
        "damaged": look.damaged,
    });
    match format {
        Format::Json | Format::Yaml => {
            totals["tables"] = Value::Array(std::mem::take(&mut rows));
            output::print(&output::record(format, &totals))
        }
        Format::Csv => output::print(&output::list(format, COLUMNS, &rows)),
        Format::Table | Format::Compact => {
            output::print(&(output::list(format, COLUMNS, &rows) + &output::record(format, &totals)))
        }
    }
}

/// `store export`
pub fn store_export(dir: Option<PathBuf>, config: Option<&Path>) -> Result<(), Failure> {
    let (look, _lock) = look(dir, config)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    for table in Table::ALL {
        let read = look.for_each(table, &mut |entry| {
            if written.is_ok() {
                written = writeln!(out, "{}", line(table, &entry));
            }
        });
        read.map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    }
    match written.and_then(|()| out.flush()) {
        // A reader that has gone is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Other, format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn line(table: Table, entry: &Entry<'_>) -> Value {
    let mut fields = Map::new();
    fields.insert("table".to_owned(), json!(table.name()));
    match entry.key {
        Key::Number(number) => drop(fields.insert("key".to_owned(), json!(number))),
        Key::Name(name) => put_text(&mut fields, "key", name),
    }
    put_text(&mut fields, "value", entry.value);
    if let Some(body) = entry.body {
        fields.insert("body".to_owned(), json!(body));
        fields.insert("body_bytes".to_owned(), json!(entry.body_bytes));
    }
    Value::Object(fields)
}

fn put_text(fields: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    let text = str::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control));
    let (name, value) = match text {
        Some(text) => (name.to_owned(), text.to_owned()),
        None => (format!("{name}_base64"), base64::encode(bytes)),
    };
    fields.insert(name, Value::from(value));
}

/// Reads the store; brokers are kept out meanwhile.
fn look(dir: Option<PathBuf>, config: Option<&Path>) -> Result<(Look, Option<File>), Failure> {
    let data = match dir {
        Some(dir) => dir,
        None => settings(config)?.data.dir,
    };
    let store = data.join(FOLDER);
    if !store.is_dir() {
        return Err(Failure::new(Exit::NotFound, format!("there is no store in `{}`", data.display())));
    }
    let lock = DataDir::keep_out(&data).map_err(|error| {
        let exit = match &error {
            DataDirError::InUse(_) => Exit::Conflict,
            DataDirError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Denied
            }
            DataDirError::Io { .. } => Exit::Other,
        };
        Failure::new(exit, error.to_string())
    })?;
    let look = Look::open(&store)
        .map_err(|error| Failure::new(Exit::Other, format!("{}: {error}", store.display())))?;
    Ok((look, lock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Storage;
    use crate::storage::group::Group;
    use crate::storage::log::Log;
    use crate::storage::log::Options;

    fn written() -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        let log = Log::open(&data.path().join(FOLDER), Options::default()).unwrap();
        let mut group = Group::default();
        group.body(1, &[b"message"]);
        group.put(Table::Retained, Key::Name(b"a/b"), Some(1), |bytes| bytes.push(0));
        group.put(Table::Ban, Key::Number(2), None, |bytes| bytes.extend_from_slice("grün".as_bytes()));
        log.commit(&mut group, true).unwrap();
        data
    }

    fn check(data: &Path) -> Result<(), Failure> {
        store_check(Some(data.to_owned()), None)
    }

    #[test]
    fn a_store_is_checked_without_being_changed() {
        let data = written();
        let file = data.path().join("store/00000001.log");
        check(data.path()).unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        // Torn: cut off within the mark of the close.
        bytes.truncate(bytes.len() - 5);
        std::fs::write(&file, &bytes).unwrap();
        check(data.path()).unwrap();
        bytes[120] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let failure = check(data.path()).unwrap_err();
        assert_eq!(
            (failure.exit, failure.message.as_str()),
            (Exit::Other, "the store is damaged in 1 places")
        );
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(data.path().join(FOLDER)).unwrap().count(), 1);
    }

    #[test]
    fn a_store_that_is_not_there_or_in_use_is_said_so() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(check(data.path()).unwrap_err().exit, Exit::NotFound);
        let data = written();
        let _held = DataDir::open(data.path()).unwrap();
        let failure = store_stats(Some(data.path().to_owned()), None, Format::Json).unwrap_err();
        assert_eq!(failure.exit, Exit::Conflict);
        assert!(failure.message.contains("in use by another broker"), "{failure}");
    }

    #[test]
    fn an_entry_is_a_line_of_json() {
        let data = written();
        let (look, _lock) = look(Some(data.path().to_owned()), None).unwrap();
        let mut lines = Vec::new();
        for table in Table::ALL {
            look.for_each(table, &mut |entry| lines.push(line(table, &entry))).unwrap();
        }
        let expected = [
            json!({"table": "retained", "key": "a/b", "value_base64": "AA==", "body": 1, "body_bytes": 7}),
            json!({"table": "bans", "key": 2, "value": "grün"}),
        ];
        assert_eq!(lines, expected);
    }
}
