//! What is read back from the data directory: messages and what is owed, and the segments of the log.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;

use tombolo::session::image;
use tombolo::session::restore::Progress;
use tombolo::storage::Key;
use tombolo::storage::Storage;
use tombolo::storage::Table;
use tombolo::storage::files::Files;
use tombolo::storage::files::Handle;
use tombolo::storage::group::Group;
use tombolo::storage::log::Log;
use tombolo::storage::log::Options;
use tombolo::storage::log::format;
use tombolo::storage::log::format::End;
use tombolo::storage::log::format::Header;
use tombolo::storage::log::recovery::OpenError;
use tombolo::time::Now;

const NOW: Now = Now { mono_ms: 5, unix_ms: 1_700_000_010_000 };
const SALT: u32 = 7;

/// A message, and what is owed: what is read is written as it was, but for what is left of an expiry.
pub(crate) fn image(input: &[u8]) {
    if let Some(message) = image::message(input, NOW) {
        let written = image::message_parts(&message.view(), &mut Vec::new(), NOW).concat();
        let again = image::message(&written, NOW).expect("what was written is read");
        assert_eq!(again.view(), message.view());
    }
    if let Some((session, owed, progress)) = image::owed(8, input, (9, 100), NOW) {
        let mut written = Vec::new();
        let sent = match progress {
            Progress::Waiting => None,
            Progress::Sent(id) | Progress::Received(id) => Some(id),
        };
        image::put_owed(&mut written, session, &owed, sent, NOW);
        let (session_again, again, _) = image::owed(8, &written, (9, 100), NOW).expect("as above");
        assert_eq!((session_again, again.qos, again.retain), (session, owed.qos, owed.retain));
        assert_eq!(again.subscription_ids(), owed.subscription_ids());
    }
}

/// A log of one segment: the input as the file, and the input as records with right sums, which are the way in. It opens or
/// says why not; what is read is what a second start reads; and what is committed to it is there afterwards.
pub(crate) fn log(input: &[u8]) {
    open(input.to_vec());
    let mut bytes = header().to_vec();
    bytes.extend_from_slice(input);
    open(bytes);
    open(summed(input));
}

fn header() -> [u8; format::HEADER_BYTES] {
    Header { format: format::FORMAT, salt: SALT, segment: 1, before: 0, last_number: 0 }.encode()
}

/// A length byte and so many bytes make a record; after a length of 0 the group ends.
fn summed(mut input: &[u8]) -> Vec<u8> {
    let mut bytes = header().to_vec();
    let (mut records, mut sequence) = (0, 0);
    while let Some((length, rest)) = input.split_first() {
        let (record, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        input = rest;
        if record.is_empty() {
            sequence += 1;
            bytes.extend_from_slice(&End { sequence, records, synced: sequence - 1 }.encode(SALT));
            records = 0;
            continue;
        }
        bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&format::sum(SALT, record).to_le_bytes());
        bytes.extend_from_slice(record);
        records += 1;
    }
    bytes
}

fn open(segment: Vec<u8>) {
    let files = InMemory::default();
    files.create(&format::name_of(1)).expect("memory").0.lock().expect("no panic").extend(segment);
    let log = match Log::with(files.clone(), Options::default(), SALT) {
        Ok(log) => log,
        Err(OpenError::Io { source, .. }) => panic!("memory does not fail: {source}"),
        Err(_) => return,
    };
    let before = contents(&log);
    let mut group = Group::default();
    group.body(u64::MAX, &[b"body"]);
    group.put(Table::Seen, Key::Name(b"fuzz"), Some(u64::MAX), |out| out.extend_from_slice(b"value"));
    log.commit(&mut group, true).expect("memory does not fail");
    let after = contents(&log);
    assert_eq!(log.body(u64::MAX).expect("it is there"), Some(b"body".to_vec()));
    assert!(
        after.len() >= before.len() && before.iter().all(|entry| after.contains(entry) || entry.1 == b"fuzz")
    );
    drop(log);
    let again = Log::with(files, Options::default(), SALT).expect("what was committed to opens");
    assert_eq!(contents(&again), after);
}

/// Every entry, but not what became of its body.
fn contents(log: &Log<InMemory>) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for table in Table::ALL {
        log.for_each(table, &mut |entry| {
            let key = match entry.key {
                Key::Number(number) => number.to_be_bytes().to_vec(),
                Key::Name(name) => name.to_vec(),
            };
            all.push((table as u8, key, entry.value.to_vec()));
            if let Some(body) = entry.body {
                let _ = log.body(body);
            }
        })
        .expect("memory does not fail");
    }
    all.sort();
    all
}

/// Files that are bytes in memory.
#[derive(Debug, Clone, Default)]
struct InMemory(Arc<Mutex<BTreeMap<String, InMemoryFile>>>);

#[derive(Debug, Clone, Default)]
struct InMemoryFile(Arc<Mutex<Vec<u8>>>);

impl Files for InMemory {
    type Handle = InMemoryFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().expect("no panic").keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<InMemoryFile> {
        let file = InMemoryFile::default();
        self.0.lock().expect("no panic").insert(name.to_owned(), file.clone());
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<InMemoryFile> {
        self.0.lock().expect("no panic").get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().expect("no panic").remove(name);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Handle for InMemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("no panic").len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = self.0.lock().expect("no panic");
        let from = file.get(offset as usize..).unwrap_or_default();
        let count = bytes.len().min(from.len());
        bytes[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut file = self.0.lock().expect("no panic");
        let end = offset as usize + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[offset as usize..end].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.0.lock().expect("no panic").truncate(length as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
