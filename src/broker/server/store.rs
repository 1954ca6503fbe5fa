//! Opens the store in the data directory, as `data.durability` asks for it.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::broker::server::StartError;
use crate::config::settings::Data;
use crate::config::settings::Durability;
use crate::storage::Storage;
use crate::storage::log;
use crate::storage::log::Log;
use crate::storage::log::Options;
use crate::storage::log::recovery::OpenError;
use crate::storage::store::Mode;
use crate::storage::store::Store;

/// What may be written above `data.max_bytes`: what was taken before, and what is written again so that space can be given
/// back. It is more than the changes that may wait.
const RESERVE_BYTES: u64 = 128 * 1024 * 1024;

/// Opens the storage of these settings, or takes the one that is open already, and begins to commit to it. The data
/// directory is to be held.
pub(super) fn start(
    data: &Data,
    storage: Option<Box<dyn Storage>>,
) -> Result<Option<Arc<Store>>, StartError> {
    let folder = data.dir.join(log::FOLDER);
    let mode = match data.durability {
        Durability::Fsync => Some(Mode::Fsync),
        Durability::Write => Some(Mode::Write),
        Durability::Memory => None,
    };
    let (storage, mode) = match (storage, mode) {
        (Some(storage), mode) => (storage, mode.unwrap_or(Mode::Fsync)),
        (None, Some(mode)) => (open(&folder, data.max_bytes)?, mode),
        (None, None) => {
            warn_of_what_is_not_read(&folder);
            tracing::info!(durability = "memory", "an acknowledgement promises nothing beyond this process");
            return Ok(None);
        }
    };
    let usage = storage.usage();
    tracing::info!(
        durability = mode.name(),
        bytes = usage.bytes,
        entries = usage.entries,
        bodies = usage.bodies,
        damaged = usage.set_aside,
        "the store is open"
    );
    let store =
        Store::start(storage, mode).map_err(|source| StartError::Store { file: folder.clone(), source })?;
    store.set_bytes_max(data.max_bytes.unwrap_or(u64::MAX));
    Ok(Some(store))
}

fn open(folder: &Path, max_bytes: Option<u64>) -> Result<Box<dyn Storage>, StartError> {
    let bytes_max = max_bytes.map_or(u64::MAX, |max| max.saturating_add(RESERVE_BYTES.max(max / 8)));
    let options = Options { bytes_max, ..Options::default() };
    let log = Log::open(folder, options).map_err(|error| match error {
        // Files are named without their folder.
        OpenError::Io { file, source } => StartError::Store { file: inside(folder, &file), source },
        newer @ OpenError::Newer { .. } => StartError::Newer(folder.to_owned(), newer),
    })?;
    Ok(Box::new(log))
}

fn inside(folder: &Path, file: &str) -> PathBuf {
    if Path::new(file) == folder { folder.to_owned() } else { folder.join(file) }
}

/// Whoever turns durability off may not mean to lose what is there.
fn warn_of_what_is_not_read(folder: &Path) {
    let is_there = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if is_there {
        tracing::warn!(
            folder = %folder.display(),
            "data.durability is \"memory\": what is stored here is not read, and stays as it is"
        );
    }
}
