//! Files in memory that fail as disks do, by seed: what was written is on the disk only once it is synchronised, and a
//! power cut leaves any part of the rest.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::files::Files;
use crate::storage::files::Handle;

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A write writes less than it was given.
    ShortWrite,
    /// A write writes a part and fails.
    Write,
    /// The same for want of space.
    NoSpace,
    /// A synchronisation fails; what it was about may never be on the disk, and the next one does not say so.
    Sync,
    /// What was written cannot be cut off.
    Cut,
    /// No file can be made.
    Create,
    /// No file can be removed.
    Remove,
    /// Names of files cannot be synchronised.
    Names,
    /// A read fails.
    Read,
}

impl Fault {
    pub(crate) const ALL: [Self; 9] = [
        Self::ShortWrite,
        Self::Write,
        Self::NoSpace,
        Self::Sync,
        Self::Cut,
        Self::Create,
        Self::Remove,
        Self::Names,
        Self::Read,
    ];
}

/// Numbers that look random, the same for the same seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) as usize % bound.max(1)
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

#[derive(Debug, Clone)]
enum Pending {
    Write { at: usize, bytes: Vec<u8> },
    Cut(usize),
}

impl Pending {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                to.resize(to.len().max(end), 0);
                to[*at..end].copy_from_slice(bytes);
            }
            Self::Cut(length) => to.truncate(*length),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// What is read.
    seen: Vec<u8>,
    /// What is on the disk.
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

impl Node {
    fn change(&mut self, pending: Pending) {
        pending.apply(&mut self.seen);
        self.pending.push(pending);
    }

    fn sync(&mut self) {
        self.pending.drain(..).for_each(|pending| pending.apply(&mut self.durable));
    }

    /// What is on the disk after a power cut.
    fn after_power_cut(&mut self, dice: &mut Dice, holes: bool) {
        let whole = dice.below(self.pending.len() + 1);
        for (at, pending) in self.pending.drain(..).enumerate() {
            match pending {
                _ if at < whole && !holes => pending.apply(&mut self.durable),
                Pending::Write { at: offset, bytes } if holes => {
                    for (number, sector) in bytes.chunks(64).enumerate() {
                        if dice.one_in(2) {
                            Pending::Write { at: offset + number * 64, bytes: sector.to_vec() }
                                .apply(&mut self.durable);
                        }
                    }
                }
                Pending::Write { at: offset, mut bytes } if at == whole => {
                    bytes.truncate(dice.below(bytes.len() + 1));
                    Pending::Write { at: offset, bytes }.apply(&mut self.durable);
                }
                Pending::Cut(_) if holes && dice.one_in(2) => pending.apply(&mut self.durable),
                Pending::Cut(_) | Pending::Write { .. } => {}
            }
        }
        self.seen.clone_from(&self.durable);
    }
}

#[derive(Debug, Clone)]
struct State {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    dice: Dice,
    faults: BTreeSet<Fault>,
    lies: bool,
    gone: bool,
    failures: usize,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Faulty(Arc<Mutex<State>>);

/// A file of these.
#[derive(Debug)]
pub(crate) struct FaultyHandle {
    files: Faulty,
    node: usize,
}

impl Faulty {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            nodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            dice: Dice::new(seed),
            faults: BTreeSet::new(),
            lies: false,
            gone: false,
            failures: 0,
        })))
    }

    /// From now on one in eight operations of these kinds fails.
    pub(crate) fn set_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().faults = faults.into_iter().collect();
    }

    /// How many operations failed.
    pub(crate) fn failures(&self) -> usize {
        self.0.lock().failures
    }

    /// From now on a synchronisation does nothing and says that all is well.
    pub(crate) fn set_lies(&self) {
        self.0.lock().lies = true;
    }

    /// The files after a power cut: what was not synchronised is there in part, without `holes` up to some byte, with them
    /// any of it. Whoever has these open can do nothing more.
    pub(crate) fn power_cut(&self, holes: bool) -> Self {
        let mut state = self.0.lock();
        let mut after = state.clone();
        state.gone = true;
        (after.lies, after.faults, after.failures) = (false, BTreeSet::new(), 0);
        let names: BTreeSet<String> = after.names.keys().chain(after.durable_names.keys()).cloned().collect();
        after.names = names
            .into_iter()
            .filter_map(|name| {
                let by_chance = if after.dice.one_in(2) { &after.names } else { &after.durable_names };
                by_chance.get(&name).copied().map(|node| (name, node))
            })
            .collect();
        after.durable_names.clone_from(&after.names);
        let mut dice = after.dice.clone();
        after.nodes.iter_mut().for_each(|node| node.after_power_cut(&mut dice, holes));
        after.dice = dice;
        Self(Arc::new(Mutex::new(after)))
    }

    /// The files after the process was killed. Whoever has these open can do nothing more.
    pub(crate) fn kill(&self) -> Self {
        let mut state = self.0.lock();
        let after = state.clone();
        state.gone = true;
        Self(Arc::new(Mutex::new(after)))
    }

    /// The bytes of a file.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        let state = self.0.lock();
        state.nodes[state.names[name]].seen.clone()
    }

    /// Puts a file there, on the disk.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let mut state = self.0.lock();
        let node = Node { seen: bytes.to_vec(), durable: bytes.to_vec(), pending: Vec::new() };
        state.add(name, node);
        state.durable_names = state.names.clone();
    }
}

impl State {
    fn add(&mut self, name: &str, node: Node) -> usize {
        self.nodes.push(node);
        self.names.insert(name.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// Whether this operation fails.
    fn fails(&mut self, fault: Fault) -> bool {
        let fails = self.faults.contains(&fault) && self.dice.one_in(8);
        self.failures += usize::from(fails);
        fails
    }

    fn operate(&mut self, fault: Fault) -> io::Result<()> {
        if self.gone || self.fails(fault) {
            return Err(failed());
        }
        Ok(())
    }
}

fn failed() -> io::Error {
    io::Error::other("input/output error")
}

impl Files for Faulty {
    type Handle = FaultyHandle;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        state.operate(Fault::Read)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<FaultyHandle> {
        let mut state = self.0.lock();
        state.operate(Fault::Create)?;
        let node = state.add(name, Node::default());
        Ok(FaultyHandle { files: self.clone(), node })
    }

    fn open(&self, name: &str) -> io::Result<FaultyHandle> {
        let mut state = self.0.lock();
        state.operate(Fault::Read)?;
        let node = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(FaultyHandle { files: self.clone(), node })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operate(Fault::Remove)?;
        state.names.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operate(Fault::Names)?;
        if !state.lies {
            state.durable_names = state.names.clone();
        }
        Ok(())
    }
}

impl Handle for FaultyHandle {
    fn length(&self) -> io::Result<u64> {
        Ok(self.files.0.lock().nodes[self.node].seen.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.files.0.lock();
        state.operate(Fault::Read)?;
        let seen = state.nodes[self.node].seen.get(offset as usize..).unwrap_or_default();
        let count = seen.len().min(bytes.len());
        bytes[..count].copy_from_slice(&seen[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.files.0.lock();
        if state.gone {
            return Err(failed());
        }
        let failure =
            [Fault::Write, Fault::NoSpace, Fault::ShortWrite].into_iter().find(|fault| state.fails(*fault));
        let count = match failure {
            None => bytes.len(),
            Some(Fault::ShortWrite) => 1 + state.dice.below(bytes.len()),
            Some(_) => state.dice.below(bytes.len() + 1),
        };
        let written = Pending::Write { at: offset as usize, bytes: bytes[..count].to_vec() };
        state.nodes[self.node].change(written);
        match failure {
            None | Some(Fault::ShortWrite) => Ok(count),
            Some(Fault::NoSpace) => Err(io::ErrorKind::StorageFull.into()),
            Some(_) => Err(failed()),
        }
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        let mut state = self.files.0.lock();
        state.operate(Fault::Cut)?;
        state.nodes[self.node].change(Pending::Cut(length as usize));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.files.0.lock();
        if let Err(error) = state.operate(Fault::Sync) {
            // The system believes from now on that it is there.
            state.nodes[self.node].pending.clear();
            return Err(error);
        }
        if !state.lies {
            state.nodes[self.node].sync();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_synchronised_may_be_lost_and_the_rest_is_not() {
        let mut kept = BTreeSet::new();
        for seed in 0..200 {
            let files = Faulty::new(seed);
            let handle = files.create("a").unwrap();
            handle.write_all_at(b"synced", 0).unwrap();
            handle.sync().unwrap();
            files.sync_names().unwrap();
            handle.write_all_at(b"lost", 6).unwrap();
            let after = files.power_cut(false);
            let bytes = after.read("a");
            assert!(bytes.starts_with(b"synced") && b"syncedlost".starts_with(&bytes[..]));
            kept.insert(bytes.len());
            assert!(handle.write_all_at(b"x", 0).is_err(), "that process is gone");
            assert_eq!(files.kill().read("a"), b"syncedlost");
        }
        assert!(kept.into_iter().eq(6..=10), "torn at any byte");
    }

    #[test]
    fn a_lie_is_told_by_a_power_cut_only() {
        let lost = (0..50).filter(|seed| {
            let files = Faulty::new(*seed);
            files.set_lies();
            let handle = files.create("a").unwrap();
            handle.write_all_at(b"x", 0).unwrap();
            handle.sync().unwrap();
            files.sync_names().unwrap();
            assert_eq!(files.read("a"), b"x");
            files.power_cut(false).list().unwrap().is_empty()
        });
        assert!((1..50).contains(&lost.count()));
    }

    #[test]
    fn every_fault_happens_when_it_is_wanted() {
        for fault in Fault::ALL {
            let files = Faulty::new(1);
            let handle = files.create("a").unwrap();
            files.set_faults([fault]);
            let mut short = 0;
            for _ in 0..100 {
                let _ = files.create("b");
                let _ = files.remove("b");
                let _ = files.sync_names();
                let _ = handle.cut(0);
                short += usize::from(handle.write_at(b"xyz", 0).is_ok_and(|count| count < 3));
                let _ = handle.read_at(&mut [0; 3], 0);
                let _ = handle.sync();
            }
            assert!(files.failures() > 0, "{fault:?}");
            assert_eq!(short > 0, fault == Fault::ShortWrite);
        }
    }
}
