//! The file of the security event log: `security.jsonl` in the data directory, for its owner only. When it is full it
//! becomes `security.1.jsonl` and so on; the oldest goes.
//!
//! A file that cannot be written is told in the log, as an event of its own and as a metric, and is tried again with
//! the next event: nobody should believe that they are watched over when they are not.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task;
use tokio::task::JoinHandle;
use tokio::time;

use crate::broker::Broker;
use crate::broker::events::Wanted;
use crate::broker::events::event::What;
use crate::broker::feeds::LineReader;
use crate::net::clock;

/// How long events are gathered after a write: when ten thousand devices come back at once, waking up for each of them
/// would cost more than all else that a login takes.
const GATHER: Duration = Duration::from_millis(50);
/// Files at a time, the one that is written included.
const FILES: u64 = 4;

/// The file in `directory`.
#[must_use]
pub fn path(directory: &Path) -> PathBuf {
    directory.join("security.jsonl")
}

/// Appends to the file whatever the broker records from now on, until its log is closed. All files together have at
/// most `bytes_max`, or one event if that is more. `None` if too many read the log already.
pub fn start(broker: &Arc<Broker>, directory: &Path, bytes_max: u64) -> Option<JoinHandle<()>> {
    let reader = broker.events.follow(Wanted::default())?;
    let file =
        RotatingFile { path: path(directory), part_bytes_max: bytes_max / FILES, open: None, torn: false };
    Some(tokio::spawn(run(Arc::clone(broker), reader, file)))
}

async fn run(broker: Arc<Broker>, mut reader: LineReader, mut file: RotatingFile) {
    let mut working = true;
    while let Some(lines) = reader.lines().await {
        // A file system can hang; the thread of the clients must not.
        let writing = task::spawn_blocking(move || {
            // Counted only where they are lost.
            let written =
                file.append(lines.as_bytes()).map_err(|error| (error, lines.lines().count() as u64));
            (written, file)
        });
        let Ok((written, back)) = writing.await else { return };
        file = back;
        match written {
            Ok(()) if working => {}
            Ok(()) => {
                working = true;
                tracing::info!(path = %file.path.display(), "security events are written again");
                broker.security_note(What::MonitorEnabled, "security.jsonl is written again", clock::now());
            }
            Err((error, count)) => {
                broker.metrics.broker.security_events_unwritten.add(count);
                if std::mem::take(&mut working) {
                    tracing::error!(path = %file.path.display(), %error, "security events are not written");
                    let text = format!("security.jsonl cannot be written: {error}");
                    broker.security_note(What::MonitorDisabled, &text, clock::now());
                }
            }
        }
        time::sleep(GATHER).await;
    }
}

#[derive(Debug)]
struct RotatingFile {
    path: PathBuf,
    part_bytes_max: u64,
    open: Option<(File, u64)>,
    /// The last line may be half a one.
    torn: bool,
}

impl RotatingFile {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = self.try_append(lines);
        // The next one begins anew: the file may have been moved away, or its disk been full.
        self.torn = written.is_err();
        if self.torn {
            self.open = None;
        }
        written
    }

    fn try_append(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = lines.len() as u64;
        if self.open.as_ref().is_some_and(|(_, size)| *size > 0 && size + length > self.part_bytes_max) {
            self.open = None;
            self.rotate()?;
        }
        let (file, size) = match &mut self.open {
            Some(open) => open,
            closed => {
                let file = open_for_owner(&self.path)?;
                let size = file.metadata()?.len();
                closed.insert((file, size))
            }
        };
        if self.torn && *size > 0 {
            file.write_all(b"\n")?;
        }
        file.write_all(lines)?;
        *size += length;
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (1..FILES - 1).rev() {
            move_if_there(&self.part(number), &self.part(number + 1))?;
        }
        move_if_there(&self.path, &self.part(1))
    }

    fn part(&self, number: u64) -> PathBuf {
        self.path.with_extension(format!("{number}.jsonl"))
    }
}

fn move_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn open_for_owner(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(directory: &tempfile::TempDir) -> RotatingFile {
        RotatingFile { path: path(directory.path()), part_bytes_max: 100, open: None, torn: false }
    }

    #[test]
    fn full_files_move_on_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = file(&directory);
        for number in 0..10 {
            log.append(format!("{number:059}\n").as_bytes()).unwrap();
        }
        let names = ["security.jsonl", "security.1.jsonl", "security.2.jsonl", "security.3.jsonl"];
        for (name, number) in names.into_iter().zip([9, 8, 7, 6]) {
            let text = fs::read_to_string(directory.path().join(name)).unwrap();
            assert_eq!(text, format!("{number:059}\n"), "{name}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), names.len());
    }

    #[test]
    fn it_goes_on_where_the_last_process_ended_and_is_for_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        file(&directory).append(b"one\n").unwrap();
        file(&directory).append(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(path(directory.path())).unwrap(), "one\ntwo\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(path(directory.path())).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_line_after_half_a_line_stands_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(path(directory.path()), "{\"half").unwrap();
        let mut log = RotatingFile { torn: true, ..file(&directory) };
        log.append(b"one\n").unwrap();
        log.append(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(path(directory.path())).unwrap(), "{\"half\none\ntwo\n");
    }

    #[test]
    fn after_an_error_it_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = file(&directory);
        fs::create_dir(path(directory.path())).unwrap();
        assert!(log.append(b"one\n").is_err());
        fs::remove_dir(path(directory.path())).unwrap();
        log.append(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(path(directory.path())).unwrap(), "two\n");
    }
}
